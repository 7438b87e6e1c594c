//! What the README says is what happens: its five-minute tour, command by command.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::{eventually, program, repository};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The commands of the blocks that follow a `<!-- tour -->` line.
fn tour() -> Vec<String> {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let blocks = readme.split("<!-- tour -->\n```console\n").skip(1);
    let lines = blocks.flat_map(|b| b.split("```").next().unwrap().lines());
    lines.filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
}

/// A port that is free for TCP and UDP.
fn free_port() -> u16 {
    eventually("a free port", Duration::from_secs(5), || {
        let tcp = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = tcp.local_addr().ok()?.port();
        UdpSocket::bind(("127.0.0.1", port)).ok().map(|_| port)
    })
    .unwrap()
}

/// Programs that the tour left in the background.
struct Background(Vec<Child>);

impl Drop for Background {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn shell(command: &str, home: &Path) -> Command {
    let programs = program("outrigger").unwrap().parent().unwrap().to_owned();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .unwrap_or_else(|| format!("{}/.cache", std::env::var("HOME").unwrap()).into());
    let mut shell = Command::new("bash");
    shell.args(["-c", command]).current_dir(repository()).env("PATH", path);
    shell.env("HOME", home).env("XDG_CACHE_HOME", cache).stdin(Stdio::null());
    shell.env_remove("OUTRIGGER_CONFIG_DIR").env_remove("OUTRIGGER_STATE_DIR");
    shell
}

#[test]
fn the_tour() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("o");
    let (cloud, agent) = (free_port().to_string(), free_port().to_string());
    let mut background = Background(Vec::new());
    let mut outputs = String::new();
    let commands = tour();
    assert!(commands.len() >= 8, "the tour is there: {commands:?}");
    for command in commands {
        let command = command
            .replace("/tmp/outrigger", &folder.to_string_lossy())
            .replace("8443", &cloud)
            .replace("8000", &agent)
            .replace("outrigger-agent run", "outrigger-agent run --grpc 127.0.0.1:0");
        if let Some(command) = command.strip_suffix(" &") {
            let child =
                shell(&format!("exec {command}"), home.path()).stderr(Stdio::null()).spawn();
            background.0.push(child.unwrap());
            continue;
        }
        // A person reads a line before typing the next; here a command may be early instead.
        let mut last = String::new();
        let done = eventually(&command, Duration::from_secs(30), || {
            let output = shell(&command, home.path()).output().unwrap();
            last = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            output.status.success().then(|| last.clone())
        });
        outputs += &done.unwrap_or_else(|e| panic!("{e}\n{last}"));
    }
    for expected in [
        "fashion",
        "Ankle boot",
        "Sandal",
        "\"placement\":\"edge\"",
        "\"placement\":\"cloud\"",
        "connected",
    ] {
        assert!(outputs.contains(expected), "{expected} in:\n{outputs}");
    }
}
