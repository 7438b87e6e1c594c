# Run by `cargo xtask prove package`, as root, in a mount namespace of its own.
# Arguments: a folder to work in, the tar.gz, two .debs, outrigger-cloud, outrigger, the root to start from.
work=$1 tarball=$2 first=$3 second=$4 cloud=$5 operator=$6 base=$7
state=var/lib/outrigger-agent
export XDG_CACHE_HOME=/nonexistent OUTRIGGER_CONFIG_DIR="$work/operator"
library=${OUTRIGGER_ORT_LIB-}
unset OUTRIGGER_ORT_LIB
say() { echo "  - $*"; }
fail() { echo "not kept: $*" >&2; exit 1; }
wait_for() { # file
    for _ in $(seq 300); do [ -s "$1" ] && return; sleep 0.1; done
    fail "no $1 after 30 s"
}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

mkdir "$work/layers"
mount -t tmpfs tmpfs "$work/layers"
cd "$work/layers"
mkdir changes scratch root
mount -t overlay overlay -o "lowerdir=$base,upperdir=changes,workdir=scratch" root
mount -t proc proc root/proc
mount --bind /dev root/dev
rm -rf root/run/systemd
in_root() { chroot root "$@"; }
cp "$first" "$second" root/mnt/
first=/mnt/${first##*/} second=/mnt/${second##*/}

# A cloud on loopback, for the agents to join. It finds ONNX Runtime beside the unpacked agent.
tar -xzf "$tarball" -C "$work"
unpacked=$(echo "$work"/outrigger-agent-*/)
OUTRIGGER_ORT_LIB=${library:-$(echo "$unpacked"lib/outrigger/libonnxruntime*)} \
    "$cloud" serve --data-dir "$work/cloud" --listen 127.0.0.1:0 >"$work/cloud.log" 2>&1 &
wait_for "$work/cloud/listening"
address=$(cat "$work/cloud/listening")
"$operator" login --cloud "$address" --key-file "$work/cloud/admin.key" >/dev/null
"$operator" device token -o "$work/token-tar" >/dev/null
"$operator" device token -o root/mnt/token >/dev/null

agent="${unpacked}bin/outrigger-agent"
"$agent" enrol --cloud "$address" --token-file "$work/token-tar" --state-dir "$work/tar" >/dev/null
"$agent" run --state-dir "$work/tar" --http 127.0.0.1:0 --grpc 127.0.0.1:0 --metrics 127.0.0.1:0 2>"$work/tar.log" &
wait_for "$work/tar/listening"
"$agent" status --state-dir "$work/tar" >/dev/null || fail "the unpacked agent does not run"
kill $!
say "the tar.gz runs where it is unpacked"

in_root dpkg --install "$first" >/dev/null
in_root dpkg --audit
in_root id outrigger-agent >/dev/null || fail "there is no user"
[ -e root/usr/lib/systemd/system/outrigger-agent.service ] || fail "there is no unit"
say "the .deb installs: $(in_root dpkg-query --show outrigger-agent)"

in_root outrigger-agent install --cloud "$address" --token-file /mnt/token >/dev/null 2>&1
in_root chown -R outrigger-agent: "/$state"
[ ! -e root/usr/local/bin/outrigger-agent ] || fail "install copied what the package had brought"
chroot --userspec=outrigger-agent:outrigger-agent root \
    /usr/bin/outrigger-agent run --state-dir "/$state" --http 127.0.0.1:0 --grpc 127.0.0.1:0 --metrics 127.0.0.1:0 2>"$work/deb.log" &
running=$!
wait_for "root/$state/listening"
in_root outrigger-agent status >/dev/null || fail "the packaged agent does not run"
say "it joins a fleet and runs as its own user"

in_root dpkg --install "$second" >/dev/null
[ -e "root/$state/enrolment.json" ] || fail "the upgrade lost the enrolment"
in_root outrigger-agent status >/dev/null || fail "the upgrade ended what ran"
say "it upgrades: $(in_root dpkg-query --show outrigger-agent)"
kill $running
wait $running || true

in_root dpkg --remove outrigger-agent >/dev/null
[ -e "root/$state/enrolment.json" ] || fail "the removal lost the enrolment"
in_root dpkg --purge outrigger-agent >/dev/null
! in_root id outrigger-agent >/dev/null 2>&1 || fail "the user is left"
rm -f root$first root$second
left=$(find changes \( -type f -o -type l \) -path '*outrigger*' ! -path "changes/$work/*")
[ -z "$left" ] || fail "left after the purge: $left"
say "it is removed, and purged without a trace"
