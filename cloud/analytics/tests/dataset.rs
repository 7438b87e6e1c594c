//! From sealed segments to answers: each record once, whatever comes twice, grows, is forged or was cut short.
#![allow(clippy::unwrap_used)] // steps beside the tests

use outrigger_analytics::anonymity::{GroupBy, export};
use outrigger_analytics::dataset::Dataset;
use outrigger_analytics::import::{Import, Report, Sealed, SegmentError};
use outrigger_analytics::query::Query;
use outrigger_analytics::{AnalyticsError, tables::Table};
use std::path::Path;
use telemetry::Class;
use telemetry::histogram::Histogram;
use telemetry::key::PrivateKey;
use telemetry::open::OpenError;
use telemetry::seal::{Beginning, Sealer};
use telemetry::wire::record::What;
use telemetry::wire::{Aggregate, Counters, InferenceEvent, ModelCounters, Record, Sample};
use tempfile::TempDir;

const NOW_MS: u64 = 1_795_700_000_000; // 2026-11-26
const DAY_MS: u64 = 86_400_000;

fn key() -> PrivateKey {
    PrivateKey::from_entropy(&[7; 32])
}

fn event(number: u64, total_us: u64) -> What {
    let (model, placement) = ("fashion".to_owned(), "edge".to_owned());
    What::Inference(InferenceEvent {
        model,
        version: number,
        placement,
        total_us,
        ..Default::default()
    })
}

fn records(what: Vec<What>) -> Vec<Record> {
    let numbered = (1..).zip(what);
    let record = |(number, what)| Record {
        number,
        observed_unix_ms: NOW_MS - DAY_MS * (number % 2),
        what: Some(what),
    };
    numbered.map(record).collect()
}

/// A segment with a frame for each list, and its key where that is kept apart.
fn sealed(
    device: &str,
    segment: u64,
    class: Class,
    frames: Vec<Vec<What>>,
) -> (Vec<u8>, Option<[u8; 32]>) {
    let device = device.parse().unwrap();
    let beginning = Beginning { device, segment, class, now_unix_ms: NOW_MS, previous: (0, 0) };
    let (mut sealer, begun) =
        Sealer::begin(beginning, Some(key().public()), [u8::try_from(segment).unwrap(); 32])
            .unwrap();
    let mut bytes = begun.head;
    for frame in frames {
        bytes.extend(sealer.frame(records(frame)).unwrap());
    }
    (bytes, begun.detached_key)
}

fn events(device: &str, segment: u64, frames: u64) -> Vec<u8> {
    let frame = |number| vec![event(number, 1000 * number), event(number, 3000)];
    sealed(device, segment, Class::Events, (1..=frames).map(frame).collect()).0
}

fn import(folder: &Path, segments: &[Vec<u8>]) -> Report {
    let mut dataset = Dataset::open(folder).unwrap();
    let keys = [PrivateKey::from_entropy(&[1; 32]), key()];
    let mut import = Import::begin(&mut dataset, &keys, NOW_MS);
    for bytes in segments {
        import.add(Sealed { bytes, detached_key: None }).unwrap();
    }
    import.finish().unwrap()
}

fn ask(folder: &Path, sql: &str) -> Vec<String> {
    let answer = async { Query::open(folder).await?.ask(sql, 1000).await };
    runtime().block_on(answer).unwrap().rows.into_iter().map(|row| row.join(" ")).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn every_record_is_there_once_by_day_and_model() {
    let folder = TempDir::new().unwrap();
    let report = import(folder.path(), &[events("d1", 1, 2), events("d2", 1, 1)]);
    assert_eq!(report, Report { segments: 2, known: 0, rows: 6 });
    let sql = "SELECT day, model, count(*), max(total_us) FROM inference GROUP BY day, model ORDER BY day";
    assert_eq!(ask(folder.path(), sql), ["2026-11-25 fashion 3 2000", "2026-11-26 fashion 3 3000"]);

    let again = import(folder.path(), &[events("d1", 1, 2), events("d2", 1, 3)]);
    assert_eq!(again, Report { segments: 1, known: 1, rows: 4 }, "d2's segment has grown");
    assert_eq!(ask(folder.path(), "SELECT count(*) FROM inference"), ["10"]);
    assert_eq!(Dataset::open(folder.path()).unwrap().rows().unwrap(), 10);
}

#[test]
fn a_segment_that_does_not_open_adds_nothing_and_hinders_nobody() {
    let folder = TempDir::new().unwrap();
    let mut dataset = Dataset::open(folder.path()).unwrap();
    let keys = [PrivateKey::from_entropy(&[1; 32]), key()];
    let mut import = Import::begin(&mut dataset, &keys, NOW_MS);
    let good = events("d1", 1, 2);
    let mut cut = good.clone();
    cut.truncate(good.len() - 1);
    let cut = import.add(Sealed { bytes: &cut, detached_key: None }).unwrap_err();
    assert!(matches!(cut, SegmentError::Invalid(_)), "{cut}");
    let (samples, apart) =
        sealed("d1", 2, Class::Samples, vec![vec![What::Sample(Sample::default())]]);
    let destroyed = import.add(Sealed { bytes: &samples, detached_key: None }).unwrap_err();
    assert!(matches!(destroyed, SegmentError::Closed(OpenError::NoEncapsulatedKey)), "{destroyed}");
    import.add(Sealed { bytes: &samples, detached_key: apart }).unwrap();
    import.add(Sealed { bytes: &good, detached_key: None }).unwrap();
    assert_eq!(import.finish().unwrap(), Report { segments: 2, known: 0, rows: 5 });
}

#[test]
fn what_a_crash_has_left_is_put_in_order() {
    let folder = TempDir::new().unwrap();
    import(folder.path(), &[events("d1", 1, 1)]);
    // Written, and not named by the journal: the crash came before.
    std::fs::write(folder.path().join("staging/half.parquet"), b"PAR1").unwrap();
    // Named by the journal, and not in its place: the crash came after.
    let journal = rusqlite::Connection::open(folder.path().join("journal.sqlite3")).unwrap();
    let path: String =
        journal.query_row("SELECT min(path) FROM files", [], |row| row.get(0)).unwrap();
    journal.execute("UPDATE files SET placed = 0 WHERE path = ?", [&path]).unwrap();
    let place = folder.path().join(&path);
    let staged = folder.path().join("staging").join(place.file_name().unwrap());
    std::fs::rename(&place, &staged).unwrap();
    assert_eq!(ask(folder.path(), "SELECT count(*) FROM inference"), ["1"]);
    drop(Dataset::open(folder.path()).unwrap());
    assert_eq!(ask(folder.path(), "SELECT count(*) FROM inference"), ["2"]);
    assert_eq!(std::fs::read_dir(folder.path().join("staging")).unwrap().count(), 0);
}

#[test]
fn a_device_can_be_forgotten_and_does_not_come_back() {
    let folder = TempDir::new().unwrap();
    let segments = [events("d1", 1, 2), events("d2", 1, 1)];
    import(folder.path(), &segments);
    import(folder.path(), &[events("d2", 2, 1)]);
    let mut dataset = Dataset::open(folder.path()).unwrap();
    assert_eq!(dataset.forget_device(&"d2".parse().unwrap()).unwrap(), 4);
    drop(dataset);
    assert_eq!(ask(folder.path(), "SELECT DISTINCT device FROM inference"), ["d1"]);
    assert_eq!(import(folder.path(), &segments).known, 2);
    assert_eq!(ask(folder.path(), "SELECT count(*) FROM inference"), ["4"]);
}

#[test]
fn two_do_not_write_at_once() {
    let folder = TempDir::new().unwrap();
    let _held = Dataset::open(folder.path()).unwrap();
    assert!(matches!(Dataset::open(folder.path()), Err(AnalyticsError::Busy(_))));
}

#[test]
fn quantiles_are_those_of_all_histograms_together() {
    let folder = TempDir::new().unwrap();
    let aggregate = |from: u32| {
        let mut total = Histogram::default();
        (from..from + 100).for_each(|us| total.record(f64::from(us)));
        let (model, total) = ("fashion".to_owned(), total.to_wire());
        What::Aggregate(Aggregate { model, total, ..Default::default() })
    };
    let of = |device, from| sealed(device, 1, Class::Aggregates, vec![vec![aggregate(from)]]).0;
    import(folder.path(), &[of("d1", 1000), of("d2", 2000)]);
    let sql = "SELECT sum(requests), histogram_quantile(total_us, 0.99) FROM aggregates";
    let answer = ask(folder.path(), sql).remove(0);
    let (requests, p99) = answer.split_once(' ').unwrap();
    let p99: f64 = p99.parse().unwrap();
    assert_eq!(requests, "200");
    assert!((2097.0..=2099.0).contains(&p99), "{p99}");
}

#[test]
fn a_question_changes_nothing_and_an_empty_dataset_answers() {
    let folder = TempDir::new().unwrap();
    assert_eq!(ask(folder.path(), "SELECT count(*) FROM health WHERE day > '2026'"), ["0"]);
    let refused = |sql: &'static str| {
        let asked = async { Query::open(folder.path()).await?.ask(sql, 10).await };
        runtime().block_on(asked).unwrap_err().to_string()
    };
    assert!(refused("DROP TABLE inference").contains("DDL"), "{}", refused("DROP TABLE inference"));
    assert!(refused("COPY inference TO '/tmp/x.csv'").contains("not supported"));
    assert!(refused("SELECT nothing FROM inference").contains("nothing"));
    assert!(refused("SELECT * FROM generate_series(1, 100)").contains("more than 10 rows"));
    for table in Table::ALL {
        ask(folder.path(), &format!("SELECT * FROM {} LIMIT 1", table.as_str()));
    }
}

#[test]
fn rows_come_as_json_too() {
    let folder = TempDir::new().unwrap();
    import(folder.path(), &[events("d1", 1, 1)]);
    let mut json = Vec::new();
    let sql = "SELECT device, number, observed FROM inference ORDER BY number LIMIT 1";
    let asked = async { Query::open(folder.path()).await?.write_json(sql, &mut json).await };
    runtime().block_on(asked).unwrap();
    let row: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((row["device"].as_str(), row["number"].as_u64()), (Some("d1"), Some(1)), "{row}");
}

fn counters(device: &str, model: &str, requests: u64) -> Vec<u8> {
    let of = ModelCounters { model: model.to_owned(), version: 1, requests, ..Default::default() };
    let counters = What::Counters(Counters { models: vec![of], ..Default::default() });
    sealed(device, model.len() as u64, Class::Counters, vec![vec![counters]]).0
}

#[test]
fn small_groups_are_not_shown_and_cannot_be_computed() {
    let folder = TempDir::new().unwrap();
    let device = |i: u32| format!("d{i}");
    let mut segments: Vec<_> = (0..5).map(|i| counters(&device(i), "big", 10)).collect();
    segments.extend((0..3).map(|i| counters(&device(i), "small", 10)));
    import(folder.path(), &segments);
    let shown = |by: &[GroupBy]| {
        let asked = async { export(&Query::open(folder.path()).await?, by, 5).await };
        let answer = runtime().block_on(asked).unwrap();
        let mut rows: Vec<_> = answer.rows.iter().map(|row| row.join(" ")).collect();
        rows.sort();
        rows
    };
    assert_eq!(shown(&[GroupBy::Model]), ["big 5 50 0"], "three devices are shown nowhere");
    assert_eq!(shown(&[]), ["5 80 0"]);
    import(folder.path(), &[counters("d7", "smaller", 1), counters("d8", "smaller", 1)]);
    assert_eq!(shown(&[GroupBy::Model]), ["big 5 50 0", "other 5 32 0"]);
}
