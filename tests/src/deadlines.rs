//! Every answer inside its deadline: in virtual time, where nothing but the decisions counts, and in
//! real time, with the real agent and cloud, over six links made by a [`Relay`].
//!
//! In real time the clock of a busy machine counts too. So threads that only sleep until random
//! deadlines run beside the callers, and how late they wake is shown in the same table.

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::fashion::{Images, ask};
use crate::http::HttpClient;
use crate::network::{PROFILES, Profile, Random};
use crate::relay::Relay;
use crate::simulation::{Terms, World as Simulated};
use crate::statistics::percentile_ms;
use crate::world::{Agent, AgentOptions, CpuMeter, World};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

/// An answer that comes later than this after its deadline is late.
const LATE: Duration = Duration::from_millis(5);
const CALLERS: u64 = 6;
/// The mean pause of a caller, which keeps the machine below 60 %.
const PAUSE: Duration = Duration::from_millis(20);

/// How much is asked.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Requests in virtual time.
    pub virtual_requests: u64,
    /// Requests over each link in real time.
    pub real_requests: u64,
}

impl Amount {
    /// The whole proof.
    pub const WHOLE: Self = Self { virtual_requests: 100_000, real_requests: 2_000 };
    /// To see that it holds.
    pub const SHORT: Self = Self { virtual_requests: 10_000, real_requests: 120 };
}

/// Runs the proof.
///
/// # Errors
/// A program that does not start, a request that was lost, or an answer too many.
pub fn run(amount: Amount) -> anyhow::Result<BenchReport> {
    let simulated = Simulated::new(&Terms::deadlines(amount.virtual_requests), 1).run()?;
    let mut rows = vec![Row(vec![
        ("virtual time: requests", json!(simulated.requests)),
        ("late", json!(0)), // or the world had broken
        ("answered twice", json!(0)),
        ("lost", json!(0)),
        ("never run in the cloud", json!(simulated.spared)),
    ])];
    let real = Real::start()?;
    let mut late = (0, 0);
    for (index, profile) in PROFILES.into_iter().enumerate() {
        let measured = real.measure(profile, amount.real_requests, index as u64)?;
        late.0 += measured.late();
        late.1 += measured.calls.len();
        rows.push(measured.row(profile));
    }
    let share = 100.0 * late.0 as f64 / late.1.max(1) as f64;
    let goals = vec![
        Goal::at_most("answers later than 5 ms, in percent", 0.1, share),
        Goal::at_most("answers more or fewer than requests", 0.0, real.miscounted()?),
    ];
    Ok(BenchReport { name: "deadlines", rows, goals })
}

/// The real programs, with a relay between them.
struct Real {
    // In this order they end.
    agent: Agent,
    relay: Relay,
    images: Images,
    world: World,
}

/// What one link showed.
struct Measured {
    /// By how much each answer missed its deadline; zero for those in time.
    calls: Vec<Duration>,
    /// The same of the bare timers.
    timers: Vec<Duration>,
    ends: BTreeMap<String, u64>,
    cpu_percent: f64,
    packets: (u64, u64),
}

impl Real {
    fn start() -> anyhow::Result<Self> {
        let world = World::start()?;
        world.ship_fashion()?;
        let relay = Relay::start(world.cloud.address().parse()?, PROFILES[0], 6)?;
        let state_dir = world.folder().join("device");
        Agent::enrol(&state_dir, &relay.address().to_string(), &world.token()?)?;
        // Reconnects soon, so that a link that is up is used.
        let options = AgentOptions { config: "[link]\nreconnect_max_s = 1\n".into() };
        let agent = Agent::start(&state_dir, &options)?;
        agent.wait_active("fashion", 1)?;
        Ok(Self { agent, relay, images: Images::test()?, world })
    }

    fn measure(&self, profile: Profile, requests: u64, seed: u64) -> anyhow::Result<Measured> {
        if !profile.blocked {
            self.relay.set(PROFILES[0]);
            self.agent.wait_until("the link", |status| status["connected"] == true)?;
        }
        self.relay.set(profile);
        let before = self.relay.counts();
        let mut processes = vec![std::process::id(), self.agent.process().id()];
        processes.extend(self.world.cloud.process().map(crate::world::Process::id));
        let (cpu, start) = (CpuMeter::start(&processes)?, Instant::now());
        let stop = AtomicBool::new(false);
        let (outcomes, timers) = std::thread::scope(|scope| {
            let stop = &stop;
            let timer = |n| scope.spawn(move || bare_timer(seed * 10 + n, stop));
            let timers: Vec<_> = (0..2).map(timer).collect();
            let callers: Vec<_> = (0..CALLERS)
                .map(|n| scope.spawn(move || self.call(seed * 100 + n, requests / CALLERS)))
                .collect();
            let outcomes: Vec<_> = callers.into_iter().map(ScopedJoinHandle::join).collect();
            stop.store(true, Relaxed);
            let timers: Vec<_> = timers.into_iter().flat_map(ScopedJoinHandle::join).collect();
            (outcomes, timers.concat())
        });
        let cores = std::thread::available_parallelism()?.get() as f64;
        let cpu_percent = 100.0 * cpu.seconds()? / start.elapsed().as_secs_f64() / cores;
        let (mut calls, mut ends) = (Vec::new(), BTreeMap::new());
        for outcome in outcomes {
            let outcome = outcome.ok().context("a caller panicked")??;
            for (over, end) in outcome {
                calls.push(over);
                *ends.entry(end).or_default() += 1;
            }
        }
        let after = self.relay.counts();
        let packets = (after.0 - before.0, after.1 - before.1);
        Ok(Measured { calls, timers, ends, cpu_percent, packets })
    }

    /// Calls with random deadlines; by how much each answer missed its own, and what it was.
    fn call(&self, seed: u64, requests: u64) -> anyhow::Result<Vec<(Duration, String)>> {
        let mut client = self.agent.client()?;
        let mut random = Random::new(seed);
        let mut outcomes = Vec::new();
        for _ in 0..requests {
            std::thread::sleep(PAUSE.mul_f64(random.exponential(1.0)));
            let allowed = Duration::from_secs_f64(random.log_uniform(0.005, 2.0));
            let index = usize::try_from(random.below(self.images.len() as u64))?;
            outcomes.push(self.one(&mut client, index, allowed)?);
        }
        Ok(outcomes)
    }

    fn one(
        &self,
        client: &mut HttpClient,
        index: usize,
        allowed: Duration,
    ) -> anyhow::Result<(Duration, String)> {
        // The agent counts whole milliseconds.
        let allowed = Duration::from_millis(u64::try_from(allowed.as_millis())?);
        let parameters = json!({ "timeout": allowed.as_micros() });
        let start = Instant::now();
        let response = ask(client, self.images.pixels(index), &parameters)?;
        let over = start.elapsed().saturating_sub(allowed);
        let end = match response.status {
            200 => {
                let (body, _) = response.split()?;
                let verdict = &body["parameters"];
                let word = |name: &str| verdict[name].as_str().unwrap_or("?").to_owned();
                format!("{} {}", word("placement"), word("reason"))
            }
            504 => "deadline_exceeded".to_owned(),
            status => anyhow::bail!("HTTP {status}: {:?}", response.json()),
        };
        Ok((over, end))
    }

    /// How far the agent's own count of answers is from the number of requests.
    fn miscounted(&self) -> anyhow::Result<f64> {
        let status = self.agent.status()?;
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let answers = &status["counters"]["answers"];
        let ends = number(&answers["edge"])
            + number(&answers["cloud"])
            + number(&answers["edge_degraded"])
            + number(&status["counters"]["refusals"]["deadline_exceeded"]);
        let client = self.agent.client()?.get("/v2/models/fashion/stats")?.json()?;
        let counts = &client["model_stats"][0]["inference_stats"];
        let asked = number(&counts["success"]["count"]) + number(&counts["fail"]["count"]);
        ensure!(asked > 0.0, "no statistics: {client}");
        Ok((ends - asked).abs())
    }
}

/// Sleeps until random deadlines; by how much it woke late.
fn bare_timer(seed: u64, stop: &AtomicBool) -> Vec<Duration> {
    let mut random = Random::new(!seed);
    let mut late = Vec::new();
    while !stop.load(Relaxed) {
        let wait = Duration::from_secs_f64(random.log_uniform(0.005, 0.2));
        let until = Instant::now() + wait;
        std::thread::sleep(wait);
        late.push(Instant::now().saturating_duration_since(until));
    }
    late
}

impl Measured {
    fn late(&self) -> usize {
        self.calls.iter().filter(|over| **over > LATE).count()
    }

    fn row(&self, profile: Profile) -> Row {
        let placed = |placement: &str| {
            let of = self.ends.iter().filter(|(end, _)| end.split(' ').next() == Some(placement));
            of.map(|(_, count)| count).sum::<u64>()
        };
        let late_timers = self.timers.iter().filter(|over| **over > LATE).count();
        Row(vec![
            ("real time: link", json!(profile.name)),
            ("requests", json!(self.calls.len())),
            ("later than 5 ms", json!(self.late())),
            ("over, p99 ms", json!(rounded(percentile_ms(&self.calls, 99.0)))),
            ("timers", json!(self.timers.len())),
            ("timers late", json!(late_timers)),
            ("edge", json!(placed("edge"))),
            ("cloud", json!(placed("cloud"))),
            ("edge-degraded", json!(placed("edge-degraded"))),
            ("504", json!(placed("deadline_exceeded"))),
            ("hedged", json!(self.ends.get("cloud hedged").copied().unwrap_or(0))),
            ("packets lost", json!(self.packets.1)),
            ("of", json!(self.packets.0 + self.packets.1)),
            ("CPU, %", json!(self.cpu_percent.round())),
        ])
    }
}
