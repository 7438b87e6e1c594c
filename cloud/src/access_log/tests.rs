use super::*;
use crate::access::Identity;
use crate::requests::Outcome;
use protocol::id::{TenantName, Version};
use protocol::problem::ProblemCode;
use std::time::Duration;

fn ended(outcome: Outcome) -> Ended {
    let identity = Identity { tenant: TenantName::default(), caller: "key k1".into() };
    Ended {
        identity,
        background: false,
        model: Some("shoes".parse().unwrap()),
        version: Version::new(7),
        outcome,
        bytes_in: 1,
        bytes_out: 2,
        receive: Some(Duration::from_micros(3)),
        queue_us: 4,
        infer_us: 5,
        compute_us: 5,
        took: Duration::from_micros(20),
    }
}

fn write(format: LogFormat, max_bytes: u64, lines: usize) -> (tempfile::TempDir, AccessLog) {
    let folder = tempfile::tempdir().unwrap();
    let max_mb = u32::try_from(max_bytes >> 20).unwrap();
    let settings = settings::AccessLog { file: "access.log".into(), format, max_mb };
    let log = AccessLog::open(&settings, folder.path()).unwrap();
    for _ in 0..lines {
        log.write(&ended(Outcome::Failed(ProblemCode::Overloaded)));
    }
    log.finish();
    (folder, log)
}

#[test]
fn a_line_says_who_asked_what_and_what_became_of_it() {
    let (folder, log) = write(LogFormat::Json, 1 << 20, 2);
    assert_eq!(log.counts(), Counts { written: 2, dropped: 0 });
    let text = std::fs::read_to_string(folder.path().join("access.log")).unwrap();
    assert_eq!(text.lines().count(), 2);
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    for (key, value) in [
        ("tenant", json!("default")),
        ("caller", json!("key k1")),
        ("model", json!("shoes")),
        ("version", json!(7)),
        ("status", json!("overloaded")),
        ("queue_us", json!(4)),
        ("receive_us", json!(3)),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    let (folder, _) = write(LogFormat::Text, 1 << 20, 1);
    let text = std::fs::read_to_string(folder.path().join("access.log")).unwrap();
    assert!(text.contains("default \"key k1\" shoes@7 cloud overloaded in=1 out=2"), "{text}");
}

#[test]
fn it_takes_a_bounded_room() {
    let (folder, log) = write(LogFormat::Json, 1 << 20, LINES_MAX);
    let counts = log.counts();
    assert_eq!(counts.written + counts.dropped, LINES_MAX as u64);
    let size = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
    let (now, before) = (size("access.log"), size("access.log.1"));
    assert!(now <= 1 << 20 && before <= 1 << 20, "{now} and {before} bytes");
}

#[test]
fn without_a_file_there_is_no_log() {
    let log = AccessLog::open(&settings::AccessLog::default(), Path::new("/nonexistent")).unwrap();
    log.write(&ended(Outcome::Answered));
    assert_eq!(log.counts(), Counts { written: 0, dropped: 0 });
}
