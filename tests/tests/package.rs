//! The agent as a service: installed and taken away again, hardened, and heard by a service manager.
//!
//! systemd is not what starts things on a build machine, so the unit is judged by `systemd-analyze`,
//! and what it would start is started here, with a socket that plays the service manager.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::{
    Agent, AgentOptions, Process, World, eventually, program, repository,
};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The worst that `systemd-analyze security` may think of the unit, of 10. Most of what remains is
/// what the agent is for: it talks on the network and to accelerators.
const MOST_EXPOSED: &str = "2.0";

fn unit() -> PathBuf {
    repository().join("agent/packaging/outrigger-agent.service")
}

fn outrigger_agent(args: &[&str]) -> Output {
    Command::new(program("outrigger-agent").unwrap()).args(args).output().unwrap()
}

#[track_caller]
fn succeeds(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn fails(output: &Output, said: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(stderr.contains(said), "{stderr}");
}

/// All files below a folder, relative to it.
fn files(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(folder).unwrap().display().to_string());
            }
        }
    }
    found
}

/// Whether `systemd-analyze` is here; if not, says that a test is skipped.
fn systemd_analyze(args: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(args).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: systemd-analyze cannot be started ({error})");
            None
        }
    }
}

/// The unit with a program that exists here.
fn unit_for_here(folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(unit()).unwrap();
    let here = program("outrigger-agent").unwrap();
    let path = folder.join("outrigger-agent.service");
    std::fs::write(&path, text.replace("/usr/bin/outrigger-agent", here.to_str().unwrap()))
        .unwrap();
    path
}

#[test]
fn systemd_understands_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let unit = unit_for_here(folder.path());
    let Some(output) = systemd_analyze(&["verify", "--man=no", "--recursive-errors=no"], &unit)
    else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("outrigger-agent.service:"), "{said}");
}

#[test]
fn the_unit_exposes_little() {
    let threshold = format!("--threshold={}", MOST_EXPOSED.replace('.', ""));
    let args = ["security", "--no-pager", "--offline=true", &threshold];
    let Some(output) = systemd_analyze(&args, &unit()) else { return };
    let report = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unrecognized option") || said.contains("Unknown option") {
        eprintln!("skipped: this systemd-analyze cannot judge a unit offline");
        return;
    }
    assert!(output.status.success(), "more exposed than {MOST_EXPOSED}:\n{report}{said}");
}

/// Plays the service manager: what it hears until `last`, in order.
fn hear_until(manager: &UnixDatagram, last: &str) -> Vec<String> {
    manager.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    let mut heard: Vec<String> = Vec::new();
    while Instant::now() < end {
        let mut buffer = [0; 256];
        if let Ok(length) = manager.recv(&mut buffer) {
            heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if heard.last().is_some_and(|message| message == last) {
                return heard;
            }
        }
    }
    panic!("no {last} came, only {heard:?}");
}

/// `ExecStart=` of the unit, for this state folder.
fn exec_start(state_dir: &Path) -> Command {
    let text = std::fs::read_to_string(unit()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let line = line
        .replace("/usr/bin/outrigger-agent", program("outrigger-agent").unwrap().to_str().unwrap())
        .replace("/var/lib/outrigger-agent", state_dir.to_str().unwrap());
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// What MemoryDenyWriteExecute= of the unit does, where the kernel can (Linux 6.3).
fn deny_write_execute(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec this calls prctl alone, which is async-signal-safe.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            // An older kernel refuses: then this test proves less, but no less than nothing.
            libc::prctl(
                libc::PR_SET_MDWE,
                libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN),
                0,
                0,
                0,
            );
            Ok(())
        });
    }
}

#[test]
fn the_service_manager_hears_when_it_serves_lives_and_stops() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let state_dir = world.folder().join("device");
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token().unwrap()).unwrap();
    let socket = world.folder().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    let mut command = exec_start(&state_dir);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
    let anywhere = "127.0.0.1:0";
    command.args(["--http", anywhere, "--grpc", anywhere, "--metrics", anywhere]);
    deny_write_execute(&mut command);
    let log = state_dir.join("agent.log");
    let process = Process::start(command, &log).unwrap();
    let heard = hear_until(&manager, "READY=1");
    assert_eq!(heard, ["WATCHDOG_USEC=400000", "READY=1"], "as before a new beginning");
    let address = std::fs::read_to_string(state_dir.join("listening")).unwrap();
    let address = address.lines().next().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    let mut client = outrigger_tests::http::HttpClient::connect(address).unwrap();
    assert_eq!(client.get("/v2/health/live").unwrap().status, 200, "ready means that it serves");
    let answers =
        || Some(client.get("/v2/models/fashion/ready").ok()?.status == 200).filter(|r| *r);
    eventually("a model answers", Duration::from_secs(60), answers).unwrap();
    drop(client);
    hear_until(&manager, "WATCHDOG=1");
    hear_until(&manager, "WATCHDOG=1");
    assert_eq!(process.stop().unwrap(), Some(0));
    hear_until(&manager, "STOPPING=1");
}

#[test]
fn what_install_brings_uninstall_takes_away() {
    let world = World::start().unwrap();
    let root = world.folder().join("root");
    let token = world.token().unwrap();
    let places = ["--root", root.to_str().unwrap()];
    let cloud = world.cloud.address();
    let install = ["install", "--cloud", &cloud];
    fails(&outrigger_agent(&[&install[..], &places].concat()), "--token-file");
    let with_token = [&install[..], &["--token-file", token.to_str().unwrap()], &places].concat();
    let said = succeeds(&outrigger_agent(&with_token));

    let found = files(&root);
    let library = found.iter().find(|f| f.starts_with("usr/local/lib/outrigger/libonnx")).unwrap();
    let state = ["agent.toml", "ca.pem", "device.key", "device.pem", "enrolment.json", "time.json"];
    let mut expected: BTreeSet<String> =
        state.iter().map(|file| format!("var/lib/outrigger-agent/{file}")).collect();
    let own = [
        "etc/systemd/system/outrigger-agent.service",
        "usr/local/bin/outrigger-agent",
        library,
        "usr/local/lib/outrigger/outrigger-agent.files",
    ];
    expected.extend(own.map(str::to_owned));
    assert_eq!(found, expected);
    for file in own {
        assert!(said.contains(&format!("wrote {}\n", root.join(file).display())), "{file}\n{said}");
    }

    // Again: nothing is asked, nothing is lost.
    let said = succeeds(&outrigger_agent(&[&install[..], &places].concat()));
    assert!(said.contains("enrolled already"), "{said}");
    assert_eq!(files(&root), expected);
    let elsewhere = ["install", "--cloud", "example.org:8443"];
    fails(&outrigger_agent(&[&elsewhere[..], &places].concat()), "unenrol");

    // The installed program finds the installed library, and is not taken away while it runs.
    let mut command = Command::new(root.join("usr/local/bin/outrigger-agent"));
    let state_dir = root.join("var/lib/outrigger-agent");
    command.args(["run", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
    command.args(["--metrics", "127.0.0.1:0", "--state-dir"]).arg(&state_dir);
    command.env_remove("OUTRIGGER_ORT_LIB").env("XDG_CACHE_HOME", "/nonexistent");
    let mut process = Process::start(command, &world.folder().join("agent.log")).unwrap();
    let listening = state_dir.join("listening");
    process.wait_for("outrigger-agent", || listening.exists().then_some(())).unwrap();
    fails(&outrigger_agent(&[&["uninstall"][..], &places].concat()), "hint: stop it first");
    assert_eq!(process.stop().unwrap(), Some(0));

    succeeds(&outrigger_agent(&[&["uninstall"][..], &places].concat()));
    assert!(files(&root).iter().all(|f| f.starts_with("var/lib/outrigger-agent/")));
    assert!(state_dir.join("enrolment.json").exists(), "what the device knows is kept");
    fails(&outrigger_agent(&[&["uninstall"][..], &places].concat()), "not installed");

    succeeds(&outrigger_agent(&[&install[..], &places].concat()));
    succeeds(&outrigger_agent(&[&["uninstall", "--purge"][..], &places].concat()));
    assert_eq!(files(&root), BTreeSet::new());
}

#[test]
fn the_way_out_of_a_fleet_is_closed_while_the_agent_runs() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let state_dir = agent.state_dir().to_owned();
    let call = |command: &str| {
        outrigger_agent(&[command, "--yes", "--state-dir", state_dir.to_str().unwrap()])
    };
    fails(&call("unenrol"), "hint: stop it first");
    fails(&call("factory-reset"), "hint: stop it first");
    let second = outrigger_agent(&["run", "--state-dir", state_dir.to_str().unwrap()]);
    fails(&second, "hint: stop it first");
    agent.wait_active("fashion", 1).unwrap();
    agent.stop().unwrap();

    let unsure = outrigger_agent(&["unenrol", "--state-dir", state_dir.to_str().unwrap()]);
    fails(&unsure, "--yes");
    assert!(succeeds(&call("unenrol")).contains("no longer enrolled"));
    let left = files(&state_dir);
    assert!(left.contains("state.db") && left.iter().any(|f| f.starts_with("bundles/")));
    for gone in ["device.key", "device.pem", "ca.pem", "enrolment.json"] {
        assert!(!left.contains(gone), "{gone}");
    }
    fails(&outrigger_agent(&["run", "--state-dir", state_dir.to_str().unwrap()]), "not enrolled");

    // It comes back as a new device, and the models that it kept answer.
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token().unwrap()).unwrap();
    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    agent.stop().unwrap();

    let reset = ["factory-reset", "--yes", "--json", "--state-dir", state_dir.to_str().unwrap()];
    let step: serde_json::Value =
        serde_json::from_str(&succeeds(&outrigger_agent(&reset))).unwrap();
    assert_eq!((&step["step"], &step["subject"]), (&json!("emptied"), &json!(state_dir)));
    assert_eq!(std::fs::read_dir(&state_dir).unwrap().count(), 0);
}
