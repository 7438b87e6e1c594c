//! What a device records comes back whole, once and in order, to its operator and to nobody else.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use bytes::Bytes;
use link::connection::{Connection, RecvStream, SendStream};
use link::frames;
use link::pki::DeviceCertificate;
use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::raw_link::{RawLink, identity};
use outrigger_tests::small_disk::SmallDisk;
use outrigger_tests::telemetry::kills;
use outrigger_tests::telemetry::{
    EVERYTHING, acknowledged, holds, numbers, of_kind, records, wait_for,
};
use outrigger_tests::world::{Agent, AgentOptions, World};
use protocol::analytics::Statement;
use protocol::id::ContentHash;
use protocol::manifest::SigningKey;
use protocol::wire::{TelemetryOffer, TelemetrySegment, TelemetryTaken, TelemetryWanted};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use telemetry::Class;
use telemetry::key::PrivateKey;
use telemetry::seal::{Beginning, Sealer};
use telemetry::wire::record::What;
use telemetry::wire::{InferenceEvent, Record};

/// A fleet with the demo model, whose operator has an analytics key, and an agent that records everything.
fn fleet() -> (World, Agent) {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    world.operator.run(&["telemetry", "key"]).unwrap();
    let agent = world.agent("device", &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    knows_key(&agent);
    (world, agent)
}

/// It comes with the desired state, as the model does, but is taken beside it.
fn knows_key(agent: &Agent) {
    agent
        .wait_until("the analytics key", |status| {
            status["counters"]["telemetry"]["keys_believed"].as_u64() > Some(0)
        })
        .unwrap();
}

fn options() -> AgentOptions {
    AgentOptions { config: EVERYTHING.into() }
}

/// Asks for the images in this range, on the device alone.
fn ask_edge(agent: &Agent, images: &Images, range: std::ops::Range<usize>) {
    let mut client = agent.client().unwrap();
    for index in range {
        let parameters = json!({ "placement": "edge" });
        assert_eq!(ask(&mut client, images.pixels(index), &parameters).unwrap().status, 200);
    }
}

fn requests_in(counters: &[&Value]) -> u64 {
    let rows =
        counters.iter().flat_map(|record| record["attributes"]["models"].as_array().unwrap());
    rows.map(|row| row["requests"].as_u64().unwrap()).sum()
}

#[test]
fn records_come_back_once_and_in_order_over_kills_and_nobody_else_reads_them() {
    let (mut world, agent) = fleet();
    let images = Images::test().unwrap();
    ask_edge(&agent, &images, 0..40);
    let log = agent.process().output();
    let state_dir = agent.kill();
    let agent = Agent::start(&state_dir, &options()).unwrap();
    ask_edge(&agent, &images, 40..60);
    let mut log = log + &agent.process().output();
    world.cloud.kill();
    ask_edge(&agent, &images, 60..80);
    // In order: what was recorded is on the disk, where it has to wait.
    let marker = images.pixels(75);
    let state_dir = agent.stop().unwrap();
    log += &std::fs::read_to_string(state_dir.join("agent.log")).unwrap();
    let waiting = std::fs::read_dir(state_dir.join("telemetry")).unwrap().count();
    assert!(waiting > 1, "segments wait");
    assert!(!holds(&state_dir, marker).unwrap());
    let promised = acknowledged(&log);
    assert!(!promised.is_empty(), "{log}");
    world.cloud.restart().unwrap();
    let agent = Agent::start(&state_dir, &options()).unwrap();
    let all = wait_for(&world, "what was acknowledged", |all| {
        let here: BTreeSet<u64> = numbers(all).into_iter().collect();
        promised.is_subset(&here) && of_kind(all, "inference").len() >= 40
    });
    let all = all.unwrap();

    let unique: BTreeSet<u64> = numbers(&all).into_iter().collect();
    assert_eq!(unique.len(), all.len(), "no record twice");
    let mut events = of_kind(&all, "inference");
    events.sort_by_key(|event| event["number"].as_u64());
    assert!(events.is_sorted_by_key(|event| event["observed_unix_ms"].as_u64()), "in order");
    let event = &events[0]["attributes"];
    assert_eq!(event["outrigger.model.name"], "fashion");
    assert_eq!(event["outrigger.placement"], "edge");
    assert_eq!(event["outrigger.input_bytes"], 784);
    for kind in ["aggregate", "health", "resources", "sample"] {
        assert!(!of_kind(&all, kind).is_empty(), "no {kind}");
    }
    assert!(requests_in(&of_kind(&all, "counters")) >= 40);

    // What was an input is found by whoever has the key, and by nobody who has the disks.
    let kept = all.iter().any(|record| {
        let data = &record["attributes"]["inputs"][0]["data_hex"];
        data.as_str().is_some_and(|hex| hex.contains(&hex::encode(marker)))
    });
    assert!(kept, "the sample of the marker");
    assert!(!holds(world.cloud.data_dir(), marker).unwrap());
    drop(agent);
}

#[test]
fn without_a_key_nothing_but_counters_is_kept_and_a_forged_one_changes_nothing() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    ask_edge(&agent, &images, 0..10);
    let counted = |all: &[Value]| requests_in(&of_kind(all, "counters")) == 10;
    let all = wait_for(&world, "counters", counted).unwrap();
    assert_eq!(all.len(), of_kind(&all, "counters").len());

    // Whoever has taken over the cloud names a key of their own: no operator has signed it.
    let forger = SigningKey::from_seed(&[9; 32]);
    let forged = Statement { public_key: "ab".repeat(32), serial: 5 }.sign(&forger);
    let database = rusqlite::Connection::open(world.cloud.data_dir().join("cloud.db")).unwrap();
    let insert = "INSERT INTO analytics_keys VALUES (5, ?1, 0)";
    database.execute(insert, [forged.to_json()]).unwrap();
    database.execute("UPDATE desired_revision SET number = number + 1", []).unwrap();
    world.operator.run(&["model", "assign", "fashion", "--all"]).unwrap(); // devices are told
    agent
        .wait_until("a refusal", |status| {
            status["counters"]["telemetry"]["keys_refused"].as_u64() > Some(0)
        })
        .unwrap();
    ask_edge(&agent, &images, 10..20);
    let counted = |all: &[Value]| requests_in(&of_kind(all, "counters")) == 20;
    let all = wait_for(&world, "counters", counted).unwrap();
    assert_eq!(all.len(), of_kind(&all, "counters").len(), "still nothing else");
    drop(agent);
}

#[test]
fn an_older_key_opens_what_is_older_and_deletion_leaves_nothing() {
    let (world, agent) = fleet();
    let images = Images::test().unwrap();
    ask_edge(&agent, &images, 0..5);
    wait_for(&world, "samples", |all| of_kind(all, "sample").len() >= 5).unwrap();
    let before = records(&world.operator, &world.folder().join("pulled")).unwrap().len();
    world.operator.run(&["telemetry", "key", "--rotate"]).unwrap();
    let told = world.operator.json(&["telemetry", "key", "--show"]).unwrap();
    assert_eq!(told["at_hand"].as_array().unwrap().len(), 2);
    let new_key = told["devices_seal_for"]["public_key"].as_str().unwrap().to_owned();
    let key_id = ContentHash::of(&hex::decode(new_key).unwrap()).to_string();
    let listed = || {
        let authorization = world.cloud.admin().unwrap();
        let headers = [("authorization", authorization.as_str())];
        let mut client = world.cloud.client().unwrap();
        let list = client.get_with("/v1/telemetry/segments", &headers).unwrap();
        list.json().unwrap()["segments"].as_array().unwrap().clone()
    };
    outrigger_tests::world::eventually("the new key", std::time::Duration::from_secs(60), || {
        ask_edge(&agent, &images, 5..6);
        listed().iter().any(|segment| segment["key_id"] == key_id.as_str()).then_some(())
    })
    .unwrap();
    // Both keys are at hand, so everything opens.
    let all = wait_for(&world, "records of both keys", |all| all.len() > before).unwrap();
    assert!(all.len() > before);

    let device = agent.status().unwrap()["device"].as_str().unwrap().to_owned();
    let state_dir = agent.stop().unwrap();
    let keys =
        rusqlite::Connection::open(world.cloud.data_dir().join("telemetry/keys.db")).unwrap();
    let secret: Vec<u8> =
        keys.query_row("SELECT encapsulated FROM detached LIMIT 1", [], |row| row.get(0)).unwrap();
    drop(keys);
    assert!(holds(world.cloud.data_dir(), &secret).unwrap());
    world.operator.run(&["telemetry", "delete", "--device", &device]).unwrap();
    assert!(listed().is_empty());
    assert!(!holds(world.cloud.data_dir(), &secret).unwrap(), "the key of a sample is shredded");
    let fresh: PathBuf = world.folder().join("fresh");
    assert_eq!(records(&world.operator, &fresh).unwrap_or_default().len(), 0);
    drop(state_dir);
}

#[test]
fn a_full_disk_costs_what_was_not_acknowledged_and_is_reported_later() {
    let world = World::start().unwrap();
    let state_dir = world.folder().join("device");
    let Some(disk) = SmallDisk::mount(&state_dir) else { return };
    world.ship_fashion().unwrap();
    world.operator.run(&["telemetry", "key"]).unwrap();
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token().unwrap()).unwrap();
    let quiet =
        AgentOptions { config: EVERYTHING.replace("level = \"debug\"", "level = \"error\"") };
    let agent = Agent::start(&state_dir, &quiet).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let images = Images::test().unwrap();
    knows_key(&agent);
    ask_edge(&agent, &images, 0..5);
    wait_for(&world, "records", |all| !of_kind(all, "inference").is_empty()).unwrap();

    let filler = disk.fill().unwrap();
    ask_edge(&agent, &images, 5..50);
    agent
        .wait_until("drops that are counted", |status| {
            status["counters"]["telemetry"]["dropped_disk"].as_u64() > Some(0)
        })
        .unwrap();
    ask_edge(&agent, &images, 50..60);
    std::fs::remove_file(filler).unwrap();
    let dropped = |all: &[Value]| {
        let rows = of_kind(all, "counters").into_iter();
        let mut rows =
            rows.filter_map(|record| record["attributes"]["dropped"].as_array()).flatten();
        rows.any(|row| row["reason"] == "disk" && row["records"].as_u64() > Some(0))
    };
    let all = wait_for(&world, "a report of what was dropped", dropped).unwrap();
    let unique: BTreeSet<u64> = numbers(&all).into_iter().collect();
    assert_eq!(unique.len(), all.len());
    ask_edge(&agent, &images, 60..70);
    drop(agent);
    drop(disk);
}

#[test]
fn where_there_is_a_repository_targets_must_name_the_key_too() {
    let world = World::start().unwrap();
    world.operator.run(&["repo", "init"]).unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &options()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    // An operator's signature alone is not enough: whoever has stolen that key as well as the cloud gets nothing.
    let stolen = std::fs::read_to_string(world.operator.config_dir().join("signing.key")).unwrap();
    let seed: [u8; 32] = hex::decode(stolen.trim()).unwrap().try_into().unwrap();
    let statement = Statement { public_key: "ab".repeat(32), serial: 5 };
    let signed = statement.sign(&SigningKey::from_seed(&seed)).to_json();
    let authorization = world.cloud.admin().unwrap();
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let mut client = world.cloud.client().unwrap();
    let put = client.send("PUT", "/v1/telemetry/key", &headers, &signed).unwrap();
    assert_eq!(put.status, 200, "the cloud takes an operator's word");
    agent
        .wait_until("a refusal", |status| {
            status["counters"]["telemetry"]["keys_refused"].as_u64() > Some(0)
        })
        .unwrap();
    assert_eq!(agent.status().unwrap()["counters"]["telemetry"]["keys_believed"], 0);

    world.operator.run(&["telemetry", "key"]).unwrap();
    knows_key(&agent);
}

/// A segment of some 100 kB, as the device of this folder would have sealed it.
struct Parcel {
    offer: TelemetrySegment,
    bytes: Bytes,
}

impl Parcel {
    const NUMBER: u64 = 1_000;

    fn of(state_dir: &Path) -> Self {
        let certificate = identity(state_dir).unwrap().1.chain.remove(0);
        let device = DeviceCertificate::parse(&certificate).unwrap().device;
        let (segment, class) = (Self::NUMBER, Class::Events);
        let beginning = Beginning { device, segment, class, now_unix_ms: 1, previous: (0, 0) };
        let key = PrivateKey::from_entropy(&[1; 32]);
        let (mut sealer, begun) = Sealer::begin(beginning, Some(key.public()), [2; 32]).unwrap();
        let event = |number: u64| {
            let model = ContentHash::of(&number.to_le_bytes()).to_string(); // hardly compressible
            let event = InferenceEvent { model, ..Default::default() };
            Record { number, observed_unix_ms: 1, what: Some(What::Inference(event)) }
        };
        let frame = sealer.frame((0..3_000).map(event).collect()).unwrap();
        let bytes = Bytes::from([begun.head, frame].concat());
        let sha256 = Bytes::copy_from_slice(ContentHash::of(&bytes).as_bytes());
        let size_bytes = bytes.len() as u64;
        let offer = TelemetrySegment { segment, size_bytes, sha256, ..Default::default() };
        Self { offer, bytes }
    }

    /// Offers it.
    async fn offer(&self, connection: &Connection) -> Upload {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let segments = vec![self.offer.clone()];
        frames::send(&mut send, &TelemetryOffer { segments }).await.unwrap();
        let wanted = frames::receive(&mut receive).await.unwrap();
        Upload { send, receive, wanted }
    }

    /// Sends so much of what is wanted, and no more; what the cloud has taken.
    async fn send(&self, mut upload: Upload, at_most: usize) -> Option<Vec<u64>> {
        let rest = self.bytes.slice(upload.wants_from()?..);
        upload.send.write_all(&rest[..at_most.min(rest.len())]).await.unwrap();
        upload.send.finish().unwrap();
        let taken: TelemetryTaken = frames::receive(&mut upload.receive).await.ok()?;
        Some(taken.taken)
    }
}

/// The cloud has said what it wants.
struct Upload {
    send: SendStream,
    receive: RecvStream,
    wanted: TelemetryWanted,
}

impl Upload {
    fn wants_from(&self) -> Option<usize> {
        self.wanted.wants.first().map(|want| usize::try_from(want.offset).unwrap())
    }
}

#[test]
fn what_broke_off_goes_on_where_it_was() {
    let (world, agent) = fleet();
    let state_dir = agent.kill();
    let parcel = Parcel::of(&state_dir);
    let connect = || RawLink::connect(&state_dir, &world.cloud.address()).unwrap();
    connect().talk(async |connection| {
        let (long, mut short) = (parcel.offer(&connection).await, parcel.offer(&connection).await);
        assert_eq!((long.wants_from(), short.wants_from()), (Some(0), Some(0)));
        short.send.write_all(&parcel.bytes[..10_000]).await.unwrap();
        // An end in the middle is against the protocol: the connection goes, and the other stream with it.
        assert_eq!(parcel.send(long, 40_000).await, None);
    });
    connect().talk(async |connection| {
        let upload = parcel.offer(&connection).await;
        assert_eq!(upload.wants_from(), Some(40_000), "the shorter one takes nothing away");
        assert_eq!(parcel.send(upload, 10_000).await, None);
    });
    connect().talk(async |connection| {
        let upload = parcel.offer(&connection).await;
        assert_eq!(upload.wants_from(), Some(50_000), "no byte comes twice");
        assert_eq!(parcel.send(upload, usize::MAX).await, Some(vec![Parcel::NUMBER]));
        let again = parcel.offer(&connection).await;
        assert_eq!((again.wants_from(), again.wanted.taken), (None, vec![Parcel::NUMBER]));
    });
}

/// The short form of `cargo xtask prove telemetry`.
#[test]
fn no_kill_costs_what_was_acknowledged() {
    let report = kills::kill(6).unwrap();
    println!("{report}");
    report.check().unwrap();
}
