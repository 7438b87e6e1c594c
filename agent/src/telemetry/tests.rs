//! The spool on a real disk: what a crash, rotten bits, a key that changes and a lack of room leave of it.

use super::spool::{Parts, Spool};
use super::sums::{Key, Sums};
use super::{recorder, vitals};
use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::state::{DroppedRow, State};
use edge::spool::SpoolPolicy;
use edge::spool::sampling::{Kind, Sampler};
use edge::spool::shelf::{Cause, Entry, ShelfPolicy};
use protocol::id::ContentHash;
use protocol::infer::{Placement, Reason, Timing, Verdict};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use telemetry::Class;
use telemetry::key::PrivateKey;
use telemetry::open::Opener;
use telemetry::seal::{Beginning, Sealer};
use telemetry::segment::Segment;
use telemetry::wire::record::What;
use telemetry::wire::{InferenceEvent, Record, Sample};

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_entropy(&[seed; 32])
}

fn open_with(folder: &Path, room: ShelfPolicy) -> Spool {
    let counters = Arc::new(Counters::default());
    let parts = Parts {
        device: "d-1".parse().unwrap(),
        state: Arc::new(State::open(folder).unwrap()),
        clock: Arc::new(Clock::open(folder, ContentHash::of(b"ca"), counters.clone())),
        counters,
        policy: SpoolPolicy::default(),
        room,
    };
    let spool = Spool::open(folder.join("telemetry"), parts).unwrap();
    spool.set_key(Some(key(1).public().clone()));
    spool
}

fn open(folder: &Path) -> Spool {
    open_with(folder, ShelfPolicy::default())
}

fn event() -> Record {
    let what = Some(What::Inference(InferenceEvent::default()));
    Record { number: 0, observed_unix_ms: 1, what }
}

fn sample(bytes: usize) -> Record {
    let data: Vec<u8> = (0..bytes)
        .flat_map(|i| ContentHash::of(&i.to_le_bytes()).as_bytes()[..1].to_vec())
        .collect();
    let input = telemetry::wire::SampleTensor { data, ..Default::default() };
    let what = Some(What::Sample(Sample { inputs: vec![input], ..Default::default() }));
    Record { number: 0, observed_unix_ms: 1, what }
}

/// Three groups of two events.
fn record(spool: &Spool) {
    for _ in 0..3 {
        spool.commit(vec![event(), event()], Instant::now());
    }
}

fn waiting(spool: &Spool) -> Vec<Entry> {
    spool.with_shelf(|shelf| shelf.in_order().cloned().collect())
}

fn file(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("telemetry/{segment:012}.seg"))
}

fn flip(path: &Path, from_end: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

fn numbers(spool: &Spool, entry: &Entry) -> Vec<u64> {
    let ready = spool.read(entry).unwrap();
    let segment = Segment::parse(&ready.bytes).unwrap();
    let opener = Opener::begin(&ready.bytes, &segment, &key(1), ready.detached_key).unwrap();
    opener.records().unwrap().iter().map(|record| record.number).collect()
}

#[test]
fn a_crash_in_the_middle_of_a_frame_costs_that_frame() {
    let folder = tempfile::tempdir().unwrap();
    record(&open(folder.path())); // the process ends with the segment open
    let path = file(folder.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [whole.as_slice(), &whole[whole.len() - 40..]].concat()).unwrap();
    let spool = open(folder.path());
    let entries = waiting(&spool);
    assert_eq!((entries.len(), entries[0].records), (1, 6));
    assert_eq!(numbers(&spool, &entries[0]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    assert_eq!(spool.dropped(), []);
    // The next segment has another number, and its records go on behind all that may have been given out.
    record(&spool);
    spool.close_all();
    let entries = waiting(&spool);
    assert_eq!(entries[1].segment, 2);
    assert!(numbers(&spool, &entries[1])[0] > 6);
}

#[test]
fn rotten_bits_cost_one_segment_and_are_counted_to_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    for _ in 0..3 {
        record(&spool);
        spool.close_all();
    }
    let lost =
        |records, bytes| DroppedRow { class: Class::Events, cause: Cause::Damage, records, bytes };
    let bytes = waiting(&spool)[0].bytes;
    flip(&file(folder.path(), 1), 10);
    assert!(spool.read(&waiting(&spool)[0]).is_none(), "it is seen before it is sent");
    assert_eq!(spool.dropped(), [lost(6, bytes)]);
    assert!(!file(folder.path(), 1).exists());
    drop(spool);
    // At a start the good front of a segment is kept.
    flip(&file(folder.path(), 2), 10);
    let spool = open(folder.path());
    let entries = waiting(&spool);
    let kept: Vec<_> = entries.iter().map(|entry| (entry.segment, entry.records)).collect();
    assert_eq!(kept, [(2, 4), (3, 6)]);
    assert_eq!(spool.dropped()[0].records, 8);
    assert_eq!(numbers(&spool, &entries[0]).len() + numbers(&spool, &entries[1]).len(), 10);
    drop(spool);
    std::fs::remove_file(file(folder.path(), 3)).unwrap();
    assert_eq!(open(folder.path()).dropped()[0].records, 14);
}

#[test]
fn a_sample_without_its_key_is_worth_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    spool.commit(vec![sample(100)], Instant::now());
    spool.commit(vec![sample(100)], Instant::now());
    spool.close_all();
    let entry = waiting(&spool).remove(0);
    assert_eq!(numbers(&spool, &entry).len(), 2);
    std::fs::remove_file(folder.path().join("telemetry/000000000001.key")).unwrap();
    assert!(spool.read(&entry).is_none());
    assert_eq!((spool.dropped()[0].class, spool.dropped()[0].records), (Class::Samples, 2));
}

#[test]
fn another_key_begins_another_segment_and_what_was_taken_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    record(&spool);
    spool.set_key(Some(key(1).public().clone())); // the same
    assert!(waiting(&spool).is_empty());
    spool.set_key(Some(key(2).public().clone()));
    record(&spool);
    spool.close_all();
    let entries = waiting(&spool);
    let key_of = |entry: &Entry| {
        let ready = spool.read(entry).unwrap();
        Segment::parse(&ready.bytes).unwrap().header
    };
    assert_eq!(key_of(&entries[0]).key_id, Some(key(1).public().id()));
    let second = key_of(&entries[1]);
    assert_eq!((second.key_id, second.previous), (Some(key(2).public().id()), (1, 3)));
    spool.forget(&entries[0], None);
    assert!(!file(folder.path(), 1).exists());
    drop(spool);
    let spool = open(folder.path());
    assert_eq!(waiting(&spool).len(), 1);
    assert_eq!(spool.dropped(), []);
}

#[test]
fn where_there_is_no_room_samples_go_first_and_the_oldest_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let room = ShelfPolicy { bytes: 6_000, sample_bytes: 5_000, hours: 10 };
    let spool = open_with(folder.path(), room);
    for _ in 0..4 {
        spool.commit(vec![sample(2_000), event()], Instant::now());
        spool.close_all();
    }
    let kept: Vec<_> = waiting(&spool).iter().map(|entry| entry.class).collect();
    assert_eq!(kept, [[Class::Events; 4].as_slice(), &[Class::Samples; 2]].concat());
    let dropped = spool.dropped();
    assert_eq!(
        (dropped[0].class, dropped[0].cause, dropped[0].records),
        (Class::Samples, Cause::Room, 2)
    );
    for _ in 0..11 {
        spool.hour();
    }
    spool.tick(Instant::now());
    assert!(waiting(&spool).is_empty());
    assert_eq!(spool.dropped().iter().map(|row| row.records).sum::<u64>(), 8);
}

#[test]
fn a_disk_that_takes_nothing_costs_what_is_new_and_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(folder.path());
    record(&spool);
    spool.close_all();
    // No segment can be begun where its folder is gone: any write fails.
    let (own, away) = (folder.path().join("telemetry"), folder.path().join("away"));
    std::fs::rename(&own, &away).unwrap();
    record(&spool);
    let dropped = spool.dropped();
    assert_eq!((dropped[0].cause, dropped[0].records), (Cause::Disk, 6));
    std::fs::rename(&away, &own).unwrap();
    record(&spool);
    spool.close_all();
    let records: u64 = waiting(&spool).iter().map(|entry| entry.records).sum();
    assert_eq!(records, 12);
    assert!(waiting(&spool).iter().all(|entry| !numbers(&spool, entry).is_empty()));
}

/// What the default configuration seals in an hour, for a device that answers a request a second, an eighth of which the
/// cloud answers. Hours differ; after some days they come again.
pub(crate) struct Hours {
    sealed: Vec<Vec<Vec<u8>>>,
    next: usize,
}

impl Hours {
    pub(crate) fn new(days: u64) -> Self {
        let start = Instant::now();
        let mut sampler = Sampler::new(config::Telemetry::default().wanted().events, 7, start);
        let mut sums = Sums::default();
        let hour = |hour| an_hour(hour, &mut sums, &mut sampler, start);
        Self { sealed: (0..24 * days).map(hour).collect(), next: 0 }
    }

    /// The segments of the next hour.
    pub(crate) fn segments(&mut self) -> Vec<Vec<u8>> {
        self.next += 1;
        self.sealed[(self.next - 1) % self.sealed.len()].clone()
    }
}

fn an_hour(hour: u64, sums: &mut Sums, sampler: &mut Sampler, start: Instant) -> Vec<Vec<u8>> {
    let model: protocol::id::ModelName = "fashion".parse().unwrap();
    let mut events = Vec::new();
    for at in hour * 3600..(hour + 1) * 3600 {
        let verdict = verdict(at);
        let (placement, reason) = (verdict.placement, verdict.reason);
        let key = Key::new(&model, Some(verdict.version), placement.as_str(), reason.as_str());
        let took = Duration::from_micros(verdict.timing.infer_us + verdict.timing.network_us);
        sums.answered(key, &verdict, took, true);
        let kind = recorder::kind_of(placement);
        if let Some(weight) = sampler.draw(kind, start + Duration::from_secs(at)) {
            events.push(vec![sampled(&verdict, kind, weight)]);
        }
    }
    let span = (hour * 3_600_000, (hour + 1) * 3_600_000);
    let (counters, aggregates) = sums.take(span, &[]);
    let record = |what| Record { number: hour * 100, observed_unix_ms: span.1, what: Some(what) };
    let health = telemetry::wire::Health { uptime_s: hour * 3600, ..Default::default() };
    events.push(vec![
        record(What::Health(health)),
        record(What::Resources(vitals::resources(Path::new("/")))),
    ]);
    let sums = aggregates.into_iter().map(|sums| record(What::Aggregate(sums))).collect();
    let groups = [
        (Class::Counters, vec![vec![record(What::Counters(counters))]]),
        (Class::Aggregates, vec![sums]),
        (Class::Events, events),
    ];
    let numbered = groups.into_iter().zip(3 * hour + 1..);
    numbered.map(|((class, groups), segment)| sealed(class, segment, groups)).collect()
}

fn verdict(at: u64) -> Verdict {
    let hash = ContentHash::of(&at.to_le_bytes());
    let byte = |index: usize| u64::from(hash.as_bytes()[index]);
    let deferred = byte(0) < 32;
    let timing = Timing {
        queue_us: byte(1) / 8,
        infer_us: 180 + byte(2),
        network_us: if deferred { 20_000 + 40 * byte(3) } else { 0 },
    };
    Verdict {
        placement: if deferred { Placement::Cloud } else { Placement::Edge },
        reason: if deferred { Reason::Deferred } else { Reason::Confident },
        plan: None,
        version: protocol::id::Version::FIRST,
        confidence: Some(0.5 + f32::from(hash.as_bytes()[4]) / 512.0),
        risk: None,
        label: None,
        timing,
        attempts: 1,
        saved_bytes: 0,
    }
}

fn sampled(verdict: &Verdict, kind: Kind, weight: f64) -> Record {
    let event = InferenceEvent {
        model: "fashion".into(),
        version: 1,
        placement: verdict.placement.as_str().into(),
        reason: verdict.reason.as_str().into(),
        confidence: verdict.confidence,
        total_us: verdict.timing.infer_us,
        infer_us: verdict.timing.infer_us,
        input_bytes: 784,
        output_bytes: 40,
        execution_provider: "cpu".into(),
        sampled: kind.as_str().into(),
        weight,
        ..Default::default()
    };
    Record {
        number: 1 << 24,
        observed_unix_ms: 1_700_000_000_000,
        what: Some(What::Inference(event)),
    }
}

fn sealed(class: Class, segment: u64, groups: Vec<Vec<Record>>) -> Vec<u8> {
    let beginning = Beginning {
        device: "d-12345678".parse().unwrap(),
        segment,
        class,
        now_unix_ms: 1_700_000_000_000,
        previous: (segment, 1),
    };
    let (mut sealer, begun) = Sealer::begin(beginning, Some(key(1).public()), [7; 32]).unwrap();
    let frames = groups.into_iter().flat_map(|group| sealer.frame(group).unwrap());
    begun.head.into_iter().chain(frames).collect()
}
