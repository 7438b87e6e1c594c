//! Children that do what a child must not, as shell scripts.

#![allow(clippy::unwrap_used)] // helpers beside the tests

use super::*;
use crate::sandbox::verdict::{Outcome, Work};
use confine::{Confinement, Layer, Limits};

/// Longer than any script here works, unless it works for ever.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

fn job(library: &str) -> Job {
    let limits = Limits { memory_bytes: 1 << 30, cpu_s: Some(10) };
    Job { library: library.into(), work: Work::Confine, limits, require_full: false }
}

fn shell(script: &str, time_limit: Duration) -> Launch {
    Launch { program: "/bin/sh".into(), arguments: vec!["-c".into(), script.into()], time_limit }
}

fn ending(script: &str, time_limit: Duration) -> Ending {
    run(&shell(script, time_limit), &job("lib.so"), &Stop::new().unwrap()).unwrap()
}

/// In a few words, so that a table can say what is expected.
fn words(ending: &Ending) -> String {
    match &ending.how {
        How::Verdict(verdict) => format!("verdict {:?}", verdict.outcome),
        How::Crashed(signal) => format!("crashed {signal}"),
        How::Ended(signal) => format!("ended {signal}"),
        How::Silent(status) => format!("silent {:?}", status.code()),
        How::TimedOut => "timed out".into(),
        How::Stopped => "stopped".into(),
    }
}

fn verdict_line() -> String {
    let confinement =
        Confinement { files: Layer::Full, system_calls: Layer::Full, resources: Layer::Full };
    let verdict = Verdict { confinement, outcome: Outcome::Confined };
    serde_json::to_string(&Message::Verdict(Box::new(verdict))).unwrap()
}

#[test]
fn every_end_is_told_apart() {
    let verdict = verdict_line();
    let flood = "head -c 9000000 /dev/zero; head -c 900000 /dev/zero >&2; exit 3";
    for (script, expected) in [
        ("kill -SEGV $$".to_owned(), "crashed 11"),
        ("kill -SYS $$".into(), "crashed 31"),
        ("kill -TERM $$".into(), "ended 15"),
        ("kill -KILL $$".into(), "ended 9"),
        ("kill -XCPU $$".into(), "timed out"),
        ("exit 7".into(), "silent Some(7)"),
        (flood.into(), "silent Some(3)"),
        ("echo junk".into(), "silent Some(0)"),
        (format!("cat > /dev/null; echo '{verdict}'"), "verdict Confined"),
        (format!("echo '{verdict}'; exit 1"), "silent Some(1)"),
        (format!("echo '{verdict}'; kill -ABRT $$"), "crashed 6"),
        (format!("echo junk; echo '{verdict}'"), "silent Some(0)"),
        ("test -z \"$HOME$CARGO\" && test $PWD = / && exit 5".into(), "silent Some(5)"),
    ] {
        assert_eq!(words(&ending(&script, LONG)), expected, "{script}");
    }
    for script in ["exec sleep 600", "exec >&- 2>&-; exec sleep 600", "yes"] {
        assert_eq!(words(&ending(script, SHORT)), "timed out", "{script}");
    }
}

#[test]
fn stage_and_last_words_are_kept() {
    let stage = serde_json::to_string(&Message::Stage(Stage::Loading)).unwrap();
    let script = format!("echo '{stage}'; printf 'one\\ntwo\\033[31m\\n\\n' >&2; kill -SEGV $$");
    let ending = ending(&script, LONG);
    assert_eq!((ending.stage, ending.said.as_str()), (Stage::Loading, "two[31m..."));
}

#[test]
fn nothing_is_left_of_a_child_that_was_killed() {
    let id = ending("echo $$ >&2; exec sleep 600", SHORT).said;
    assert!(id.parse::<u32>().is_ok(), "{id}");
    let proc = std::path::Path::new("/proc");
    if proc.join("self").exists() {
        assert!(!proc.join(id).exists(), "neither running nor a zombie");
    }
}

#[test]
fn a_child_that_reads_nothing_blocks_nobody() {
    let long = "x".repeat(1 << 20); // more than a pipe holds
    let ended = run(&shell("exec sleep 600", SHORT), &job(&long), &Stop::new().unwrap()).unwrap();
    assert_eq!(words(&ended), "timed out");
    let all = format!("test $(wc -c) -gt {} && exit 4", 1 << 20);
    let ended = run(&shell(&all, LONG), &job(&long), &Stop::new().unwrap()).unwrap();
    assert_eq!(words(&ended), "silent Some(4)");
}

#[test]
fn stopping_ends_the_child_at_once_and_every_later_one() {
    let stop = Stop::new().unwrap();
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| run(&shell("exec sleep 600", LONG), &job("l"), &stop).unwrap());
        stop.stop();
        assert_eq!(words(&ended.join().unwrap()), "stopped");
    });
    let ended = run(&shell("exec sleep 600", LONG), &job("l"), &stop).unwrap();
    assert_eq!(words(&ended), "stopped");
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let launch = Launch { program: "/absent".into(), arguments: vec![], time_limit: LONG };
    assert!(run(&launch, &job("l"), &Stop::new().unwrap()).is_err());
}
