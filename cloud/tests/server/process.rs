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

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cloud.toml"), "[drain]\nnotice_s = 3600\n").unwrap();
    let mut server = serve(folder.path());
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let mut until = |text: &str| log.by_ref().any(|line| line.unwrap().contains(text));
    let terminate = || {
        let killed = Command::new("kill").args(["-TERM", &server.id().to_string()]).status();
        assert!(killed.unwrap().success());
    };
    assert!(until("ready"));
    terminate();
    assert!(until("a second signal"));
    terminate();
    assert!(until("ended at once"));
    assert_eq!(server.wait().unwrap().code(), Some(1));
}

fn check_config(args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger-cloud"))
        .arg("check-config")
        .args(args)
        .env_remove("RUST_LOG")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_config_says_what_holds_and_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_str().unwrap();
    std::fs::write(folder.path().join("cloud.toml"), "[drain]\ngrace_s = 3\n").unwrap();
    let environment = [("OUTRIGGER_CLOUD_SERVER_LISTEN", "127.0.0.1:0")];
    let (code, text, _) = check_config(&["--data-dir", data_dir], &environment);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(line("grace_s = 3").ends_with("cloud.toml:2"), "{text}");
    assert!(
        line("listen = \"127.0.0.1:0\"").ends_with("# OUTRIGGER_CLOUD_SERVER_LISTEN"),
        "{text}"
    );
    assert!(line("data_dir").ends_with("# --data-dir"), "{text}");
    let (code, text, _) = check_config(&["--data-dir", data_dir, "--json"], &[]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let settings = report["settings"].as_array().unwrap();
    let grace = settings.iter().find(|setting| setting["key"] == "drain.grace_s").unwrap();
    assert_eq!(
        (code, &grace["origin"]["from"], &grace["origin"]["line"]),
        (Some(0), &"file".into(), &2.into())
    );

    std::fs::write(folder.path().join("cloud.toml"), "\n[drain]\ngrace = 3\n").unwrap();
    let (code, text, errors) = check_config(&["--data-dir", data_dir], &[]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    assert!(errors.contains("cloud.toml:3: unknown field `grace`"), "{errors}");
    assert!(errors.contains("hint: "), "{errors}");
    let (code, text, _) = check_config(&["--data-dir", data_dir, "--json"], &[]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &report["valid"], &report["findings"][0]["origin"]["line"]),
        (Some(1), &false.into(), &3.into())
    );
    assert_eq!(check_config(&["--listen", "here"], &[]).0, Some(2));
}
