//! Disks that fail under the spool of a running agent, and clocks that jump: it goes on answering, counts what
//! it could not keep and tells so later, and loses nothing that it had said to be durable.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::failing_disk::FailingDisk;
use outrigger_tests::faketime::FakeTime;
use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::telemetry::kills::log_of;
use outrigger_tests::telemetry::{EVERYTHING, numbers, of_kind, wait_for};
use outrigger_tests::world::{Agent, AgentOptions, World, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn options() -> AgentOptions {
    AgentOptions { config: EVERYTHING.into() }
}

/// A fleet that wants everything recorded, and an enrolled device.
fn fleet() -> (World, PathBuf) {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    world.operator.run(&["telemetry", "key"]).unwrap();
    let state_dir = world.folder().join("device");
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token().unwrap()).unwrap();
    (world, state_dir)
}

fn ready(agent: &Agent) {
    agent.wait_active("fashion", 1).unwrap();
    let believed =
        |status: &Value| status["counters"]["telemetry"]["keys_believed"].as_u64() > Some(0);
    agent.wait_until("the analytics key", believed).unwrap();
}

/// Asks for the images in this range, on the device alone.
fn ask_edge(agent: &Agent, images: &Images, range: Range<usize>) {
    let mut client = agent.client().unwrap();
    for index in range {
        let parameters = json!({ "placement": "edge" });
        assert_eq!(ask(&mut client, images.pixels(index), &parameters).unwrap().status, 200);
    }
}

/// Waits until all that the agents in this folder have said to be durable is in the cloud; each once.
fn nothing_is_lost(world: &World, state_dir: &Path) -> Vec<Value> {
    let promised = log_of(state_dir);
    assert!(promised.len() > 20, "too little to lose: {promised:?}");
    let all = wait_for(world, "what was acknowledged", |all| {
        promised.is_subset(&numbers(all).into_iter().collect())
    });
    let all = all.unwrap();
    let unique: BTreeSet<u64> = numbers(&all).into_iter().collect();
    assert_eq!(unique.len(), all.len(), "none is there twice");
    all
}

/// The spool's disk fails with this error between `begin` and the end of what that gives.
fn check_disk<F>(world: &World, state_dir: &Path, error: &str, begin: impl FnOnce() -> F) {
    let images = Images::test().unwrap();
    let agent = Agent::start(state_dir, &options()).unwrap();
    ready(&agent);
    ask_edge(&agent, &images, 0..20);
    wait_for(world, "records", |all| !of_kind(all, "inference").is_empty()).unwrap();

    let fault = begin();
    ask_edge(&agent, &images, 20..60);
    let status = agent.wait_until("drops that are counted", |status| {
        status["counters"]["telemetry"]["dropped_disk"].as_u64() > Some(0)
    });
    assert!(status.unwrap()["counters"]["telemetry"]["write_failures"].as_u64() > Some(0));
    assert!(agent.process().output().contains(error), "{error}");
    ask_edge(&agent, &images, 60..80);
    drop(fault);

    ask_edge(&agent, &images, 80..100);
    let dropped = |all: &[Value]| {
        let rows = of_kind(all, "counters").into_iter();
        let mut rows =
            rows.filter_map(|record| record["attributes"]["dropped"].as_array()).flatten();
        rows.any(|row| row["reason"] == "disk" && row["records"].as_u64() > Some(0))
    };
    wait_for(world, "a report of what was dropped", dropped).unwrap();
    let wanted = images.pixels(99);
    let last = |all: &[Value]| sampled(all).iter().any(|(_, pixels)| pixels == wanted);
    wait_for(world, "the last one", last).unwrap();
    nothing_is_lost(world, state_dir);
    drop(agent);
}

#[test]
fn input_output_errors_cost_what_was_not_acknowledged() {
    let (world, state_dir) = fleet();
    let spool = state_dir.join("telemetry");
    let beside = world.folder().join("disks");
    let Some(disk) = FailingDisk::mount(&spool, &beside).unwrap() else { return };
    check_disk(&world, &state_dir, "Input/output error", || disk.fail().unwrap());
}

/// A part of the tree that is mounted once more, by itself; read-only while the other lives.
struct Apart(PathBuf);
struct ReadOnly<'a>(&'a Path);

impl Apart {
    fn mount(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let bound = Command::new("mount").arg("--bind").args([folder, folder]).output();
        match bound {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            _ => {
                println!("SKIPPED: only root can mount a folder by itself");
                None
            }
        }
    }

    /// As soon as no file is open to be written to: the system does not take that away.
    fn read_only(&self) -> ReadOnly<'_> {
        eventually("a moment without an open file", Duration::from_secs(60), || {
            remount(&self.0, "ro").then_some(ReadOnly(&self.0))
        })
        .unwrap()
    }
}

fn remount(folder: &Path, how: &str) -> bool {
    let mut mount = Command::new("mount");
    let output = mount.args(["-o", &format!("remount,bind,{how}")]).arg(folder).output();
    output.is_ok_and(|output| output.status.success())
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        assert!(remount(self.0, "rw"));
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_read_only_disk_costs_what_was_not_acknowledged() {
    let (world, state_dir) = fleet();
    let Some(disk) = Apart::mount(&state_dir.join("telemetry")) else { return };
    check_disk(&world, &state_dir, "Read-only file system", || disk.read_only());
}

/// Numbers of samples, and their images.
fn sampled(all: &[Value]) -> Vec<(u64, Vec<u8>)> {
    let read = |record: &&Value| {
        let data = record["attributes"]["inputs"][0]["data_hex"].as_str()?;
        Some((record["number"].as_u64()?, hex::decode(data).ok()?))
    };
    let mut samples: Vec<_> = of_kind(all, "sample").iter().filter_map(read).collect();
    samples.sort_unstable();
    samples
}

#[test]
fn a_clock_that_jumps_by_years_shuffles_nothing() {
    let Some(faketime) = FakeTime::bring().unwrap() else { return };
    let (world, state_dir) = fleet();
    let clock = faketime.clock(&world.folder().join("clock"), "+0").unwrap();
    let agent = Agent::start_in(&state_dir, &options(), &clock.environment()).unwrap();
    ready(&agent);
    let images = Images::test().unwrap();
    let mut asked = 0..0;
    for off in ["+0", "+5y", "-6y", "+40y", "@1970-01-01 00:00:10", "+0"] {
        clock.set(off).unwrap();
        asked = asked.end..asked.end + 10;
        ask_edge(&agent, &images, asked.clone());
        let wanted = images.pixels(asked.end - 1);
        let arrived = |all: &[Value]| sampled(all).iter().any(|(_, pixels)| pixels == wanted);
        wait_for(&world, off, arrived).unwrap();
    }
    let all = nothing_is_lost(&world, &state_dir);
    // By their numbers they are in the order in which they were asked, whatever the clock said.
    let images: Vec<Vec<u8>> = (0..asked.end).map(|index| images.pixels(index).to_vec()).collect();
    let samples: Vec<Vec<u8>> = sampled(&all).into_iter().map(|(_, pixels)| pixels).collect();
    assert!(samples == images, "{} samples of {} images", samples.len(), images.len());
    drop(agent);
}
