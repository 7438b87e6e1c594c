//! Telemetry beside its limits, in one run: how fast records are sealed and written beside plain appends and SQLite
//! under the same syncs; how fast the cloud takes them; what recording costs a request; and how fast many are asked, beside
//! DuckDB.

mod query;

use super::{BenchReport, Goal, Row, rounded};
use crate::callers::Device;
use crate::fashion::{Images, ask};
use crate::statistics::{median, percentile_ms};
use crate::telemetry::EVERYTHING;
use crate::world::{Agent, AgentOptions, CpuMeter, World};
use anyhow::{Context, ensure};
use bytes::Bytes;
use edge::spool::SpoolPolicy;
use link::frames;
use prost::Message;
use protocol::carrier::Wanted;
use protocol::id::{ContentHash, DeviceId};
use protocol::limits::TELEMETRY_BATCH_SEGMENTS;
use protocol::wire::{TelemetryOffer, TelemetrySegment, TelemetryTaken, TelemetryWanted};
use serde_json::json;
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};
use telemetry::Class;
use telemetry::key::PrivateKey;
use telemetry::seal::{Beginning, Sealer};
use telemetry::wire::record::What;
use telemetry::wire::{InferenceEvent, Record};

/// Records of one group: about 64 KiB of them, as the agent commits at most.
const GROUP_RECORDS: u64 = 700;
/// Frames of a segment that is sent to the cloud.
const SEGMENT_FRAMES: u64 = 8;

/// Measures.
///
/// # Errors
/// Programs that do not start, or do not take what they should.
pub fn run(short: bool) -> anyhow::Result<BenchReport> {
    let (mut rows, mut goals) = (Vec::new(), Vec::new());
    spool(if short { 40 } else { 400 }, &mut rows, &mut goals)?;
    let world = World::start()?;
    ingest(&world, if short { 4 } else { 40 }, &mut rows, &mut goals)?;
    overhead(&world, if short { 3 } else { 15 }, &mut rows, &mut goals)?;
    query::run(if short { 300_000 } else { 10_000_000 }, &mut rows, &mut goals)?;
    Ok(BenchReport { name: "telemetry", rows, goals })
}

/// An event as a busy device records it.
fn event(number: u64) -> Record {
    let varied = ContentHash::of(&number.to_le_bytes());
    let byte = |at: usize| u64::from(varied.as_bytes()[at]);
    let event = InferenceEvent {
        model: "fashion".into(),
        version: 3,
        placement: if byte(0) < 32 { "cloud" } else { "edge" }.into(),
        reason: if byte(0) < 32 { "deferred" } else { "confident" }.into(),
        #[allow(clippy::cast_precision_loss)] // a byte
        confidence: Some(0.5 + byte(1) as f32 / 512.0),
        total_us: 200 + byte(2) * 4 + byte(3),
        queue_us: byte(4) / 4,
        infer_us: 150 + byte(5),
        network_us: if byte(0) < 32 { 2_000 + byte(6) * 8 } else { 0 },
        input_bytes: 784,
        output_bytes: 40,
        execution_provider: "cpu".into(),
        sampled: "random".into(),
        weight: 1.0,
        ..Default::default()
    };
    let observed_unix_ms = 1_700_000_000_000 + number * 3 + byte(7) % 3;
    Record { number, observed_unix_ms, what: Some(What::Inference(event)) }
}

fn group(index: u64) -> Vec<Record> {
    (index * GROUP_RECORDS..(index + 1) * GROUP_RECORDS).map(event).collect()
}

fn sealer(device: &DeviceId, key: &PrivateKey, segment: u64) -> anyhow::Result<(Sealer, Vec<u8>)> {
    let beginning = Beginning {
        device: device.clone(),
        segment,
        class: Class::Events,
        now_unix_ms: 1_700_000_000_000,
        previous: (segment - 1, 1),
    };
    let (sealer, begun) = Sealer::begin(beginning, Some(key.public()), link::entropy())?;
    Ok((sealer, begun.head))
}

/// The same groups, each synced, three ways.
fn spool(groups: u64, rows: &mut Vec<Row>, goals: &mut Vec<Goal>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let key = PrivateKey::from_entropy(&link::entropy());
    let device: DeviceId = "d-12345678".parse()?;
    let all: Vec<Vec<Record>> = (0..groups).map(group).collect();
    let plain = |records: &[Record]| -> Vec<u8> {
        records.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
    };
    let raw: Vec<Vec<u8>> = all.iter().map(|records| plain(records)).collect();
    let bytes: usize = raw.iter().map(Vec::len).sum();

    let begun = Instant::now();
    let mut file = File::create(folder.path().join("raw"))?;
    for group in &raw {
        file.write_all(group)?;
        file.sync_data()?;
    }
    let appended = begun.elapsed();

    let begun = Instant::now();
    let database = rusqlite::Connection::open(folder.path().join("raw.db"))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute_batch("CREATE TABLE groups (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")?;
    for group in &raw {
        database.execute("INSERT INTO groups (body) VALUES (?)", [group])?;
    }
    let inserted = begun.elapsed();

    let begun = Instant::now();
    let policy = SpoolPolicy::default(); // a segment ends where the agent's would
    let mut open: Option<(Sealer, File)> = None;
    let mut sealed_bytes = 0;
    for (index, records) in all.into_iter().enumerate() {
        let index = index as u64;
        let closes = |sealer: &Sealer| policy.closes(Duration::ZERO, sealer.size_bytes());
        if open.as_ref().is_none_or(|(sealer, _)| closes(sealer)) {
            let (sealer, head) = sealer(&device, &key, index + 1)?;
            let mut file = File::create(folder.path().join(format!("{index}.seg")))?;
            file.write_all(&head)?;
            link::durable::sync_folder(folder.path())?;
            open = Some((sealer, file));
        }
        let (sealer, file) = open.as_mut().context("it was opened")?;
        let frame = sealer.frame(records)?;
        sealed_bytes += frame.len();
        file.write_all(&frame)?;
        file.sync_data()?;
    }
    let sealed = begun.elapsed();
    #[allow(clippy::cast_precision_loss)] // some millions
    let rate = |took: Duration| (groups * GROUP_RECORDS) as f64 / took.as_secs_f64();
    for (what, took, written) in [
        ("appended as they are", appended, bytes),
        ("inserted into SQLite (WAL, FULL)", inserted, bytes),
        ("packed, sealed, appended", sealed, sealed_bytes),
    ] {
        rows.push(Row(vec![
            ("records, a sync for each 64 KiB", json!(what)),
            ("records_per_s", json!(rate(took).round())),
            ("bytes_per_record", json!(rounded(written as f64 / (groups * GROUP_RECORDS) as f64))),
        ]));
    }
    let best = rate(appended).max(rate(inserted));
    goals.push(Goal::at_least("spool beside the faster of both", 0.5, rate(sealed) / best));
    Ok(())
}

/// A segment that is ready to be sent.
struct Ready {
    offer: TelemetrySegment,
    bytes: Bytes,
}

fn ready(device: &DeviceId, key: &PrivateKey, segment: u64) -> anyhow::Result<Ready> {
    let (mut sealer, mut bytes) = sealer(device, key, segment)?;
    for frame in 0..SEGMENT_FRAMES {
        bytes.extend(sealer.frame(group(segment * SEGMENT_FRAMES + frame))?);
    }
    let sha256 = Bytes::copy_from_slice(ContentHash::of(&bytes).as_bytes());
    let offer = TelemetrySegment {
        segment,
        size_bytes: bytes.len() as u64,
        sha256,
        detached_key: Bytes::new(),
    };
    Ok(Ready { offer, bytes: bytes.into() })
}

/// A device sends batches as fast as the cloud takes them.
fn ingest(
    world: &World,
    batches: u64,
    rows: &mut Vec<Row>,
    goals: &mut Vec<Goal>,
) -> anyhow::Result<()> {
    let folder = world.folder().join("sender");
    Agent::enrol(&folder, &world.cloud.address(), &world.token()?)?;
    let id = super::revocation::device_of(&folder)?;
    let key = PrivateKey::from_entropy(&link::entropy());
    let in_batch = 16.min(TELEMETRY_BATCH_SEGMENTS as u64);
    let runtime = tokio::runtime::Runtime::new()?;
    let device =
        runtime.block_on(Device::connect(Wanted::Quic, &folder, &world.cloud.address()))?;
    let batch = |number: u64| -> anyhow::Result<Vec<Ready>> {
        (0..in_batch).map(|index| ready(&id, &key, number * in_batch + index + 1)).collect()
    };
    runtime.block_on(send(&device, batch(0)?))?; // caches are warm
    let cloud = world.cloud.process().context("no cloud")?.id();
    let meter = CpuMeter::start(&[cloud])?;
    let (mut took, mut bytes) = (Duration::ZERO, 0);
    for number in 1..=batches {
        let batch = batch(number)?; // sealing is the devices' work, of which there are many
        bytes += batch.iter().map(|ready| ready.bytes.len()).sum::<usize>();
        let begun = Instant::now();
        runtime.block_on(send(&device, batch))?;
        took += begun.elapsed();
    }
    let cpu = meter.seconds()?;
    #[allow(clippy::cast_precision_loss)] // some millions
    let records = (batches * in_batch * SEGMENT_FRAMES * GROUP_RECORDS) as f64;
    let rate = records / took.as_secs_f64();
    rows.push(Row(vec![
        ("the cloud takes, from one device over QUIC", json!("events, durable")),
        ("records_per_s", json!(rate.round())),
        ("cpu_us_per_record", json!(rounded(cpu * 1e6 / records))),
        ("mb_per_s", json!(rounded(bytes as f64 / took.as_secs_f64() / 1e6))),
    ]));
    goals.push(Goal::at_least("records taken per second", 100_000.0, rate));
    Ok(())
}

async fn send(device: &Device, batch: Vec<Ready>) -> anyhow::Result<()> {
    let (mut send, mut receive) = device.connection().open_bi().await?;
    let segments = batch.iter().map(|ready| ready.offer.clone()).collect();
    frames::send(&mut send, &TelemetryOffer { segments }).await?;
    let wanted: TelemetryWanted = frames::receive(&mut receive).await?;
    ensure!(wanted.wants.len() == batch.len(), "wanted {wanted:?}");
    let count = batch.len();
    for ready in batch {
        send.write_chunk(ready.bytes).await?;
    }
    send.finish()?;
    let taken: TelemetryTaken = frames::receive(&mut receive).await?;
    ensure!(taken.taken.len() == count, "taken {taken:?}");
    Ok(())
}

/// One caller, in turn with an agent that records everything and one that records nothing.
fn overhead(
    world: &World,
    rounds: usize,
    rows: &mut Vec<Row>,
    goals: &mut Vec<Goal>,
) -> anyhow::Result<()> {
    world.ship_fashion()?;
    world.operator.run(&["telemetry", "key"])?;
    let everything = EVERYTHING.replace("[log]\nlevel = \"debug\"\n", "");
    let everything = everything.split("[telemetry.samples]").next().unwrap_or_default().to_owned();
    let with = world.agent("with", &AgentOptions { config: everything })?;
    let nothing = "[telemetry]\nenabled = false\n".to_owned();
    let without = world.agent("without", &AgentOptions { config: nothing })?;
    for agent in [&with, &without] {
        agent.wait_active("fashion", 1)?;
        calls(agent, 500)?;
    }
    let mut figures: [Vec<(f64, f64)>; 2] = Default::default();
    for _ in 0..rounds {
        for (agent, figures) in [&with, &without].into_iter().zip(&mut figures) {
            figures.push(calls(agent, 1_000)?);
        }
    }
    let of = |index: usize, pick: fn(&(f64, f64)) -> f64| {
        median(&figures[index].iter().map(pick).collect::<Vec<_>>())
    };
    for (index, what) in ["everything recorded", "nothing recorded"].into_iter().enumerate() {
        rows.push(Row(vec![
            ("one caller of the agent, median of rounds", json!(what)),
            ("p50_us", json!(rounded(of(index, |f| f.0) * 1000.0))),
            ("cpu_us_per_call", json!(rounded(of(index, |f| f.1) * 1e6))),
        ]));
    }
    let added_us = (of(0, |f| f.0) - of(1, |f| f.0)) * 1000.0;
    // At 1,000 calls a second, a microsecond for each is a thousandth of a core.
    let added_cpu = (of(0, |f| f.1) - of(1, |f| f.1)) * 1e6 / 10.0;
    goals.push(Goal::at_most("added to a call's p50, us", 10.0, added_us));
    goals.push(Goal::at_most("added CPU at 1,000 calls a second, % of a core", 2.0, added_cpu));
    Ok(())
}

/// The median in milliseconds, and the agent's CPU seconds for each call.
fn calls(agent: &Agent, calls: usize) -> anyhow::Result<(f64, f64)> {
    let images = Images::test()?;
    let mut client = agent.client()?;
    let meter = CpuMeter::start(&[agent.process().id()])?;
    let mut took = Vec::with_capacity(calls);
    for call in 0..calls {
        let begun = Instant::now();
        let pixels = images.pixels(call % images.len());
        let answer = ask(&mut client, pixels, &json!({ "placement": "edge" }))?;
        took.push(begun.elapsed());
        ensure!(answer.status == 200, "{}", answer.status);
    }
    #[allow(clippy::cast_precision_loss)] // some thousands
    let cpu = meter.seconds()? / calls as f64;
    Ok((percentile_ms(&took, 50.0), cpu))
}
