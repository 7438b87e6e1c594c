"""Repositories made by python-tuf, and what an attacker makes of them: tuf_attacks.py FOLDER

Each case is a folder: `stored` has the metadata that a client trusts already, `remote` what it is served
now (`metadata` and `targets`). `cases.json` says for each what must come of it: "accepted", or the kind of
refusal. Keys, signatures and the form of all files are python-tuf's.
"""

import copy
import json
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Metadata,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=timezone.utc)
PATH, GOOD = "team/model.json", b"the model that was signed"
LONG_AGO = NOW - timedelta(days=1)


class Repository:
    """All roles with their keys; root's threshold is 2 of 3."""

    def __init__(self):
        self.signers = {role: [CryptoSigner.generate_ed25519()] for role in ("timestamp", "snapshot", "targets", "team")}
        self.signers["root"] = [CryptoSigner.generate_ed25519() for _ in range(3)]
        until = NOW + timedelta(days=30)
        self.root = Root(expires=until, consistent_snapshot=True)
        for role in ("root", "timestamp", "snapshot", "targets"):
            for signer in self.signers[role]:
                self.root.add_key(signer.public_key, role)
        self.root.roles["root"].threshold = 2
        team = self.signers["team"][0].public_key
        self.targets = Targets(expires=until)
        self.targets.delegations = Delegations(
            {team.keyid: team}, {"team": DelegatedRole("team", [team.keyid], 1, False, ["team/*"])}
        )
        self.team = Targets(expires=until)
        self.team.targets[PATH] = TargetFile.from_data(PATH, GOOD, ["sha256"])
        self.snapshot = Snapshot(expires=until)
        self.snapshot.meta["team.json"] = MetaFile(1)
        self.timestamp = Timestamp(expires=until)
        self.files, self.artifacts = {}, {}
        self.add_artifact(GOOD, GOOD)
        self.publish("root")
        self.publish("team", "targets", "snapshot", "timestamp")

    def add_artifact(self, signed, served):
        digest = TargetFile.from_data(PATH, signed, ["sha256"]).hashes["sha256"]
        self.artifacts[f"team/{digest}.model.json"] = served

    def sign(self, role, signers=None):
        metadata = Metadata(copy.deepcopy(getattr(self, role)))
        for signer in signers or self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def publish(self, *roles):
        """Signs roles as they are, and lists them where they belong, with length and hash."""
        for role in roles:
            signed = self.sign(role)
            version = getattr(self, role).version
            self.files["timestamp.json" if role == "timestamp" else f"{version}.{role}.json"] = signed
            if role in ("targets", "team"):
                self.snapshot.meta[f"{role}.json"] = MetaFile.from_data(version, signed, ["sha256"])
            if role == "snapshot":
                self.timestamp.snapshot_meta = MetaFile.from_data(version, signed, ["sha256"])

    def next(self, *roles):
        for role in roles:
            getattr(self, role).version += 1
            self.publish(role)

    def stored(self):
        """What a client has that has just seen all of it."""
        names = {role: f"{getattr(self, role).version}.{role}.json" for role in ("root", "snapshot", "targets", "team")}
        names["timestamp"] = "timestamp.json"
        return {f"{role}.json": self.files[name] for role, name in names.items()}

    def rotate(self, *roles):
        for role in roles:
            for signer in self.signers[role]:
                self.root.revoke_key(signer.public_key.keyid, role)
            self.signers[role] = [CryptoSigner.generate_ed25519()]
            self.root.add_key(self.signers[role][0].public_key, role)


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


CASES = {}


def case(expected):
    def take(function):
        CASES[function.__name__] = (expected, function)
        return function

    return take


@case("accepted")
def nothing_new(repo):
    pass


@case("accepted")
def an_honest_update(repo):
    repo.team.targets[PATH] = TargetFile.from_data(PATH, b"the next one", ["sha256"])
    repo.add_artifact(b"the next one", b"the next one")
    repo.next("team", "targets", "snapshot", "timestamp")


@case("Rollback")
def rollback_of_the_timestamp(repo):
    repo.timestamp.version = 4
    repo.publish("timestamp")


@case("Rollback")
def rollback_of_the_snapshot(repo):
    repo.snapshot.version = 4
    repo.publish("snapshot")
    repo.next("timestamp")


@case("Rollback")
def rollback_of_the_targets(repo):
    repo.targets.version = 4
    repo.publish("targets")
    repo.next("snapshot", "timestamp")


@case("Rollback")
def rollback_of_a_team(repo):
    repo.team.version = 4
    repo.publish("team")
    repo.next("snapshot", "timestamp")


@case("Expired")
def freeze(repo):
    """The timestamp that the client has seen is served for ever."""
    repo.timestamp.expires = LONG_AGO
    repo.next("timestamp")


@case("Expired")
def freeze_of_the_snapshot(repo):
    repo.snapshot.expires = LONG_AGO
    repo.next("snapshot", "timestamp")


@case("WrongHash")
def mix_and_match(repo):
    """The newest snapshot, with the targets of another state that has the same version and length."""
    repo.next("targets")
    first = repo.files["6.targets.json"]
    repo.next("snapshot", "timestamp")
    repo.targets.expires += timedelta(days=1)
    repo.publish("targets")
    assert len(first) == len(repo.files["6.targets.json"])


@case("WrongVersion")
def mix_and_match_without_hashes(repo):
    """Snapshot 6 says targets 6, and gets targets 7 under that name."""
    repo.targets.version = 7
    repo.files["6.targets.json"] = repo.sign("targets")
    repo.snapshot.meta["targets.json"] = MetaFile(6)
    repo.next("snapshot", "timestamp")


@case("Rollback")
def fast_forward(repo):
    """Somebody had drawn the version up to where nothing newer ever comes."""
    honest = repo.timestamp.version
    repo.timestamp.version = 2**62
    repo.publish("timestamp")
    repo.seen = repo.stored()
    repo.timestamp.version = honest + 1
    repo.publish("timestamp")


@case("accepted")
def fast_forward_and_recovery(repo):
    """The same, and root has taken the stolen keys away."""
    repo.timestamp.version = repo.snapshot.version = 2**62
    repo.publish("snapshot", "timestamp")
    repo.seen = repo.stored()
    repo.rotate("timestamp", "snapshot")
    repo.next("root")
    repo.snapshot.version = repo.timestamp.version = 1
    repo.publish("snapshot", "timestamp")


@case("TooLarge")
def endless_metadata(repo):
    repo.next("timestamp")
    repo.files["timestamp.json"] += b" " * (1 << 20)


@case("TooLarge")
def endless_snapshot(repo):
    repo.next("snapshot", "timestamp")
    repo.files["6.snapshot.json"] += b" " * (1 << 20)


@case("TooLarge")
def endless_target(repo):
    repo.add_artifact(GOOD, GOOD + b"!" * (1 << 20))


@case("WrongLength")
def wrong_length_of_metadata(repo):
    repo.next("snapshot", "timestamp")
    repo.files["6.snapshot.json"] = repo.files["6.snapshot.json"][:-1]


@case("WrongLength")
def wrong_length(repo):
    repo.add_artifact(GOOD, GOOD[:-1])


@case("WrongHash")
def wrong_hash(repo):
    repo.add_artifact(GOOD, GOOD[:-1] + b"?")


@case("Unsigned")
def one_key_of_root_is_stolen(repo):
    """One of three signs a root of the attacker's, where two are needed."""
    evil = CryptoSigner.generate_ed25519()
    repo.root.version += 1
    repo.root.add_key(evil.public_key, "targets")
    repo.files["2.root.json"] = repo.sign("root", repo.signers["root"][:1])


@case("Unsigned")
def one_key_of_root_is_stolen_and_root_has_a_threshold_of_one(repo):
    """The new root says that one is enough; the old one did not."""
    repo.root.version += 1
    repo.root.roles["root"].threshold = 1
    repo.files["2.root.json"] = repo.sign("root", repo.signers["root"][:1])


@case("Unsigned")
def all_online_keys_are_stolen(repo):
    """Targets of the attacker's, which snapshot's and timestamp's keys make the newest."""
    repo.signers["targets"] = repo.signers["snapshot"] + repo.signers["timestamp"]
    repo.team.targets[PATH] = TargetFile.from_data(PATH, b"evil", ["sha256"])
    repo.next("targets", "snapshot", "timestamp")


@case("Unsigned")
def a_team_that_nobody_named(repo):
    repo.signers["team"] = [CryptoSigner.generate_ed25519()]
    repo.next("team", "snapshot", "timestamp")


@case("NotInSnapshot")
def an_extraneous_delegation(repo):
    """A role that is delegated to, and that no snapshot lists."""
    evil = CryptoSigner.generate_ed25519()
    extra = DelegatedRole("extra", [evil.public_key.keyid], 1, False, ["team/*"])
    repo.targets.delegations.keys[evil.public_key.keyid] = evil.public_key
    repo.targets.delegations.roles = {"extra": extra, **repo.targets.delegations.roles}
    repo.next("targets", "snapshot", "timestamp")


@case("NotNamed")
def a_team_beyond_what_it_may_name(repo):
    team = repo.targets.delegations.roles["team"]
    team.paths = ["other/*"]
    repo.next("targets", "snapshot", "timestamp")


@case("RoleRemoved")
def a_role_disappears(repo):
    del repo.snapshot.meta["team.json"]
    repo.next("snapshot", "timestamp")


@case("Malformed")
def one_signature_twice(repo):
    repo.next("timestamp")
    metadata = json.loads(repo.files["timestamp.json"])
    metadata["signatures"] *= 2
    repo.files["timestamp.json"] = json.dumps(metadata).encode()


@case("Malformed")
def a_snapshot_as_a_timestamp(repo):
    both = repo.signers["timestamp"] + repo.signers["snapshot"]
    repo.files["timestamp.json"] = repo.sign("snapshot", both)


@case("Absent")
def a_snapshot_is_held_back(repo):
    repo.next("snapshot", "timestamp")
    del repo.files["6.snapshot.json"]


def main():
    folder = Path(sys.argv[1])
    expectations = []
    for name, (expected, attack) in CASES.items():
        repo = Repository()
        for role in ("team", "targets", "snapshot", "timestamp"):
            getattr(repo, role).version = 5
            repo.publish(role)
        repo.seen = repo.stored()
        attack(repo)
        write(folder / name / "stored", repo.seen)
        write(folder / name / "remote/metadata", repo.files)
        write(folder / name / "remote/targets", repo.artifacts)
        expectations.append({"name": name, "expected": expected})
    text = {"now_s": int(NOW.timestamp()), "path": PATH, "cases": expectations}
    (folder / "cases.json").write_text(json.dumps(text))


main()
