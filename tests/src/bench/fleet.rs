//! One node of the cloud and a fleet of simulated devices on the same machine: what a connected device costs in memory, what
//! it costs while nothing happens, how long it takes until all are back after the cloud was restarted, and until all of them
//! have a new version (`stages`).

mod stages;

use super::{BenchReport, Goal, Row, rounded};
use crate::world::{CpuMeter, World};
use anyhow::{Context, ensure};
use fleet_sim::behaviour::{Behaviour, Behaviours};
use fleet_sim::{Fleet, Nature, Place};
use serde_json::json;
use std::ffi::OsString;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

/// How much is measured.
struct Amount {
    devices: usize,
    idle: Duration,
    /// For what was freed to be given back, and timers of handshakes to pass.
    settling: Duration,
    plan: stages::Plan,
    /// Requests that the median device is asked in a minute.
    per_min: f64,
    /// How both versions behave.
    behaviour: fn() -> Behaviour,
    /// Seconds between two looks of the cloud at its roll-outs.
    look_s: u32,
}

const SHORT: Amount = Amount {
    devices: 300,
    idle: Duration::from_secs(5),
    settling: Duration::from_secs(2),
    plan: stages::Plan {
        stages: "10:1s,all:1s",
        requests: "20",
        deadline: "30s",
        more: &["--rate", "6000"],
    },
    per_min: 6000.0, // a version is judged in seconds
    behaviour: Behaviour::quick,
    look_s: 1,
};
const WHOLE: Amount = Amount {
    devices: 10_000,
    idle: Duration::from_secs(60),
    settling: Duration::from_secs(15),
    plan: stages::Plan {
        stages: "20:30s,10%:30s,all:30s",
        requests: "100",
        deadline: "2m",
        more: &[],
    },
    per_min: 600.0, // a camera that looks ten times a second
    behaviour: Behaviour::default,
    look_s: 5,
};

impl Amount {
    fn nature(&self) -> Nature {
        let mut behaviours = Behaviours::default();
        (1..=2).for_each(|version| behaviours.set(version, (self.behaviour)()));
        let behaviours = Arc::new(behaviours);
        Nature { behaviours, per_min: self.per_min, ..Nature::default() }
    }
}

/// A connected device, in KiB of the cloud's memory.
const MEMORY_GOAL_KIB: f64 = 48.0;
/// All devices, from the moment at which the restarted cloud listens.
const STORM_GOAL_S: f64 = 60.0;
/// Devices that begin in one second, where they do not all come at once.
const ARRIVALS_PER_S: usize = 500;
/// How long a device may take to connect before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(300);
/// A version that is published, until it has served on every device.
const ROLLOUT_GOAL_MIN: f64 = 10.0;

/// Measures.
///
/// # Errors
/// Programs that do not start, or devices that do not connect.
pub fn run(short: bool) -> anyhow::Result<BenchReport> {
    let amount = if short { SHORT } else { WHOLE };
    let mut bench = Bench::start(&amount)?;
    let (memory_kib, after_kib) = bench.connect(&amount)?;
    bench.idle(&amount)?;
    let (storm_s, lost) = bench.storm(&amount)?;
    let stormed_kib = bench.memory_kib()?;
    let (rollout_min, is_done) = stages::roll_out(&mut bench, &amount.plan)?;
    bench.rows.push(Row(vec![
        ("connected", json!(bench.fleet.counts().connected)),
        ("one_after_the_other_kib", json!(rounded(memory_kib))),
        ("and_settled_kib", json!(rounded(after_kib))),
        ("after_the_storm_kib", json!(rounded(stormed_kib))),
    ]));
    let goals = vec![
        Goal::at_most(
            "memory of a connected device, KiB",
            MEMORY_GOAL_KIB,
            stormed_kib.max(memory_kib),
        ),
        Goal::at_most("all are back after a restart, s", STORM_GOAL_S, storm_s),
        Goal::at_most("devices lost in it", 0.0, lost as f64),
        Goal::at_most("a roll-out to all of them, min", ROLLOUT_GOAL_MIN, rollout_min),
        Goal::at_least("roll-outs that reached their end", 1.0, f64::from(u8::from(is_done))),
    ];
    Ok(BenchReport { name: "fleet", rows: bench.rows, goals })
}

struct Bench {
    world: World,
    /// The cloud's, at each start.
    environment: Vec<(&'static str, OsString)>,
    runtime: Runtime,
    fleet: Fleet,
    /// The cloud's memory before any device was connected.
    empty_kb: u64,
    rows: Vec<Row>,
}

impl Bench {
    /// Enrols the devices, and starts the cloud anew, so that nothing of that is in its memory.
    fn start(amount: &Amount) -> anyhow::Result<Self> {
        let environment = [("OUTRIGGER_CLOUD_ROLLOUTS_LOOK_S", amount.look_s.to_string().into())];
        let mut world = World::start_in(&environment)?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let token = world.fleet_token(amount.devices, &[])?;
        let place = Place::at(world.cloud.address().parse()?);
        let began = Instant::now();
        let mut fleet = runtime.block_on(Fleet::enrol(place, &token, amount.devices))?;
        fleet.set_nature(amount.nature());
        let took_s = began.elapsed().as_secs_f64();
        let rows = vec![Row(vec![
            ("enrolled", json!(amount.devices)),
            ("enrolments_per_s", json!(rounded(amount.devices as f64 / took_s))),
        ])];
        world.ship_fashion()?; // each device fetches it when it connects for the first time
        world.cloud.stop()?;
        world.cloud.restart_in(&environment)?;
        sleep(Duration::from_secs(1));
        let environment = environment.to_vec();
        let mut bench = Self { world, environment, runtime, fleet, empty_kb: 0, rows };
        bench.empty_kb = bench.pss_kb()?;
        Ok(bench)
    }

    fn pss_kb(&self) -> anyhow::Result<u64> {
        self.world.cloud.process().context("no cloud")?.pss_kb()
    }

    fn cloud_cpu(&self) -> anyhow::Result<CpuMeter> {
        CpuMeter::start(&[self.world.cloud.process().context("no cloud")?.id()])
    }

    /// What a connected device takes, beyond what the cloud takes without one.
    fn memory_kib(&self) -> anyhow::Result<f64> {
        let grown = self.pss_kb()?.saturating_sub(self.empty_kb);
        Ok(grown as f64 / self.fleet.counts().connected as f64)
    }

    /// One after the other; what one takes then, at once and when all has settled.
    fn connect(&mut self, amount: &Amount) -> anyhow::Result<(f64, f64)> {
        let step = ARRIVALS_PER_S / 20;
        for _ in 0..self.fleet.len().div_ceil(step) {
            let _inside = self.runtime.enter();
            self.fleet.start(step);
            sleep(Duration::from_millis(50));
        }
        self.all_connected()?;
        let at_once = self.memory_kib()?;
        sleep(amount.settling);
        Ok((at_once, self.memory_kib()?))
    }

    /// Waits until every device is connected; how long that took.
    fn all_connected(&self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        loop {
            let counts = self.fleet.counts();
            if counts.connected == self.fleet.len() as u64 {
                return Ok(began.elapsed());
            }
            ensure!(began.elapsed() < PATIENCE, "not connected in time: {counts:?}");
            sleep(Duration::from_millis(20));
        }
    }

    /// Nothing happens but signs of life.
    fn idle(&mut self, amount: &Amount) -> anyhow::Result<()> {
        let (before, cpu, began) = (self.fleet.counts(), self.cloud_cpu()?, Instant::now());
        sleep(amount.idle);
        let (cpu_s, hours) = (cpu.seconds()?, began.elapsed().as_secs_f64() / 3600.0);
        let devices = self.fleet.len() as f64;
        self.rows.push(Row(vec![
            ("idle_devices", json!(devices)),
            ("cloud_cpu_ms_per_device_hour", json!(rounded(cpu_s * 1e3 / hours / devices))),
            ("cloud_cores", json!(rounded(cpu_s / began.elapsed().as_secs_f64()))),
            ("connections_lost", json!(self.fleet.counts().losses - before.losses)),
        ]));
        Ok(())
    }

    /// The cloud says goodbye to all at once, and is started anew; how long it takes until all are back, and who is not.
    fn storm(&mut self, amount: &Amount) -> anyhow::Result<(f64, u64)> {
        let before = self.fleet.counts();
        self.world.cloud.stop()?;
        self.world.cloud.restart_in(&self.environment)?;
        let (cpu, began) = (self.cloud_cpu()?, Instant::now());
        let took = self.all_connected();
        let took_s = took.as_ref().unwrap_or(&began.elapsed()).as_secs_f64();
        let (counts, cpu_s) = (self.fleet.counts(), cpu.seconds()?);
        let lost = self.fleet.len() as u64 - counts.connected;
        let tries = (counts.losses - before.losses) as f64 / self.fleet.len() as f64;
        self.rows.push(Row(vec![
            ("storm_of", json!(self.fleet.len())),
            ("all_back_s", json!(rounded(took_s))),
            ("cloud_cpu_ms_each", json!(rounded(cpu_s * 1e3 / self.fleet.len() as f64))),
            ("failed_attempts_each", json!(rounded(tries - 1.0))),
            ("lost", json!(lost)),
        ]));
        eprintln!("why connections ended: {:#?}", counts.reasons);
        sleep(amount.settling);
        Ok((took_s, lost))
    }
}
