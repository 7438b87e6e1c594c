//! A confined process tries what it must not. This very test program is started again with one
//! attempt to make, so that the program that ships needs no door for it.

#![allow(clippy::unwrap_used)] // helpers beside the tests

use super::{Accelerator, Layer, Limits, Standing, confine, detach};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::Command;

const ATTEMPT: &str = "OUTRIGGER_TEST_ATTEMPT";
/// Before an attempt that is made with what an accelerator needs.
const ACCELERATED: &str = "accelerated ";
const FOLDER: &str = "OUTRIGGER_TEST_FOLDER";
const MEMORY_BYTES: u64 = 256 << 20;

fn told<T>(result: std::io::Result<T>) -> String {
    result.map_or_else(|e| format!("{:?} {:?}", e.kind(), e.raw_os_error()), |_| "done".into())
}

/// What the confined process does; most of it is refused.
fn make(attempt: &str, folder: &Path) -> String {
    let parent = rustix::process::getppid().unwrap();
    match attempt {
        "read-allowed" => told(std::fs::read(folder.join("a"))),
        "read-passwd" => told(std::fs::read("/etc/passwd")),
        "read-own-memory" => told(std::fs::File::open("/proc/self/mem")),
        "list-root" => told(std::fs::read_dir("/")),
        "write" => told(std::fs::write(folder.join("a"), "b")),
        "create" => told(std::fs::write(folder.join("b"), "b")),
        "remove" => told(std::fs::remove_file(folder.join("a"))),
        "tcp" => told(TcpStream::connect("127.0.0.1:9")),
        "udp" => told(UdpSocket::bind("127.0.0.1:0")),
        "unix" => told(std::os::unix::net::UnixStream::connect("/run/x")),
        "spawn" => told(Command::new("/bin/true").spawn()),
        "exec" => told(Err::<(), _>(Command::new("/bin/true").exec())),
        "signal" => told(rustix::process::test_kill_process(parent).map_err(std::io::Error::from)),
        "thread" => told(std::thread::Builder::new().spawn(|| ()).map(|t| t.join().unwrap())),
        "memory" => {
            let most = usize::try_from(MEMORY_BYTES).unwrap();
            let took = Vec::<u8>::new().try_reserve_exact(most);
            if took.is_ok() { "done".into() } else { "refused".into() }
        }
        "some-memory" => {
            format!("{}", vec![1u8; 64 << 20].iter().map(|b| usize::from(*b)).sum::<usize>())
        }
        "abort" => std::process::abort(),
        "ptrace" => {
            // SAFETY: asks for nothing but to be traced.
            #[allow(unsafe_code)]
            let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
            format!("{result}")
        }
        "raise-limit" => {
            let none = rustix::process::Rlimit { current: None, maximum: None };
            let raised = rustix::process::setrlimit(rustix::process::Resource::Data, none);
            told(raised.map_err(std::io::Error::from))
        }
        other => panic!("{other}"),
    }
}

/// The child's side; by itself it does nothing.
#[test]
fn attempt() {
    let Ok(attempt) = std::env::var(ATTEMPT) else { return };
    let folder = std::path::PathBuf::from(std::env::var_os(FOLDER).unwrap());
    detach(Standing { oom_score: 1000, niceness: 10 });
    let limits = Limits { memory_bytes: MEMORY_BYTES, cpu_s: Some(20) };
    let (attempt, accelerator) = match attempt.strip_prefix(ACCELERATED) {
        Some(attempt) => (attempt, Some(Accelerator::default())),
        None => (&*attempt, None),
    };
    let confinement = confine(std::slice::from_ref(&folder), accelerator.as_ref(), limits);
    println!("confinement={}", serde_json::to_string(&confinement).unwrap());
    println!("outcome={}", make(attempt, &folder));
}

/// What came of it: the words, or the signal.
fn outcome(attempt: &str, folder: &Path) -> (super::Confinement, String) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::attempt", "--nocapture", "--test-threads=1"])
        .env(ATTEMPT, attempt)
        .env(FOLDER, folder)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let field = |name: &str| {
        // libtest writes the name of the test first, on the same line
        text.split(name).nth(1).and_then(|rest| rest.lines().next()).map(str::to_owned)
    };
    let confinement = field("confinement=").unwrap_or_else(|| panic!("{attempt}: {output:?}"));
    let confinement = serde_json::from_str(&confinement).unwrap();
    let killed = || format!("signal {}", output.status.signal().unwrap_or(0));
    (confinement, field("outcome=").unwrap_or_else(killed))
}

/// Where a system lacks a layer, there is nothing to test, and the confinement must say so.
fn check(cases: &[(&str, &str)], layer: fn(&super::Confinement) -> &Layer) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "a").unwrap();
    for (attempt, expected) in cases {
        let (confinement, outcome) = outcome(attempt, folder.path());
        match layer(&confinement) {
            Layer::None(why) => println!("SKIPPED: {attempt}: {why}"),
            _ => assert!(outcome.starts_with(expected), "{attempt}: {outcome}, not {expected}"),
        }
    }
    assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"a");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn files_are_what_it_was_told() {
    let denied = "PermissionDenied";
    let cases = [
        ("read-allowed", "done"),
        ("read-passwd", denied),
        ("read-own-memory", denied),
        ("list-root", denied),
        ("write", denied),
        ("create", denied),
    ];
    check(&cases, |c| &c.files);
}

#[test]
fn the_kernel_answers_no_more_than_needed() {
    let unknown = "Unsupported Some(38)"; // ENOSYS
    let cases = [
        ("thread", "done"),
        ("remove", unknown),
        ("tcp", unknown),
        ("udp", unknown),
        ("unix", unknown),
        ("spawn", unknown),
        ("signal", unknown),
        ("raise-limit", unknown),
        ("exec", "signal 31"),
        ("ptrace", "signal 31"),
        ("abort", "signal 6"),
    ];
    check(&cases, |c| &c.system_calls);
}

#[test]
fn an_accelerator_opens_no_other_door() {
    let (denied, unknown) = ("PermissionDenied", "Unsupported");
    let cases = [
        ("accelerated read-allowed", "done"),
        ("accelerated read-passwd", denied),
        ("accelerated write", denied),
    ];
    check(&cases, |c| &c.files);
    let cases = [
        ("accelerated remove", "NotFound"),
        ("accelerated tcp", unknown),
        ("accelerated udp", unknown),
        ("accelerated unix", unknown),
        ("accelerated spawn", unknown),
        ("accelerated exec", "signal 31"),
    ];
    check(&cases, |c| &c.system_calls);
}

#[test]
fn memory_ends_at_its_limit() {
    check(&[("some-memory", "67108864"), ("memory", "refused")], |c| &c.resources);
}
