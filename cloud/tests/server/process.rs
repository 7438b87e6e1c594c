//! The program itself.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn serve(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_outrigger-cloud"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder)
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn it_says_when_it_is_ready_and_stops_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = serve(folder.path());
    let mut log = BufReader::new(first.stderr.take().unwrap()).lines();
    let started: Vec<_> =
        log.by_ref().map(Result::unwrap).take_while(|l| !l.contains("ready")).collect();
    let started = started.join("\n");
    assert!(started.contains("outrigger login --cloud"), "{started}");

    let second = serve(folder.path()).wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && message.contains("another server"), "{message}");

    let stopped = Command::new("kill").args(["-TERM", &first.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert!(first.wait().unwrap().success());
}
