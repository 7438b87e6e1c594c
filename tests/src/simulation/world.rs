//! The world: time, the links, and what must hold.

use super::cloud::{Cloud, Knock, Number, Reply, Step};
use super::device::{Device, Ended, Wanted};
use super::flight::Wish;
use super::{Random, Terms};
use edge::audit::CALLS_PER_CHECK;
use fleet::batch::SessionId;
use protocol::infer::{Placement, PlacementHint, Reason};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// A silent peer is given up after this.
const SILENCE: Duration = Duration::from_secs(10);
/// All that ask at once when the cloud is back have its answer after this.
const HERD_PATIENCE: Duration = Duration::from_secs(10);

/// What broke, and in which world.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}: {what}")]
pub struct Broken {
    /// The world.
    pub seed: u64,
    /// What does not hold.
    pub what: String,
}

/// What happened in worlds that held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Worlds.
    pub seeds: u64,
    /// Requests.
    pub requests: u64,
    /// Answers by placement and reason; failures under `deadline_exceeded`.
    pub ends: BTreeMap<String, u64>,
    /// Requests that the cloud never ran because they were given up.
    pub spared: u64,
    /// Checks that were asked.
    pub checks: u64,
    /// Alarms on devices.
    pub alarms: u64,
    /// Restarts of devices.
    pub restarts: u64,
    /// Requests that were asked again, because all devices asked at once.
    pub asked_again: u64,
    /// The longest time until each of those devices had its answer.
    pub herd: Duration,
}

impl Report {
    /// And what happened in others.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.requests += other.requests;
        other.ends.iter().for_each(|(end, n)| *self.ends.entry(end.clone()).or_default() += n);
        self.spared += other.spared;
        self.checks += other.checks;
        self.alarms += other.alarms;
        self.restarts += other.restarts;
        self.asked_again += other.asked_again;
        self.herd = self.herd.max(other.herd);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    Arrives(usize),
    EdgeRan(usize, Number, Duration),
    EdgeLate(usize, Number),
    AtCloud(usize, Knock),
    CancelAtCloud(Number),
    RunEnds(SessionId, u64),
    CloudTimeout,
    Reply(usize, Number, Reply),
    CloudLate(usize, Number),
    Restarts(usize),
    CloudCrashes,
    AsksAgain(usize),
}

/// A world.
pub struct World {
    seed: u64,
    terms: Terms,
    origin: Instant,
    now: Duration,
    random: Random,
    events: BinaryHeap<Reverse<(Duration, u64, Happens)>>,
    scheduled: u64,
    devices: Vec<Device>,
    cloud: Cloud,
    /// The cloud is away until then, and how often it was.
    cloud_back: Duration,
    cloud_lives: u64,
    asked_by: BTreeMap<Number, usize>,
    waiting: BTreeMap<Number, usize>,
    last: Number,
    left: Vec<u64>,
    /// Since when nothing is wrong any more.
    mended: Option<Duration>,
    report: Report,
}

impl World {
    /// A world of this seed.
    pub fn new(terms: &Terms, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0xA5A5_A5A5_A5A5_A5A5);
        #[allow(clippy::disallowed_methods)] // the origin of the world's own time line
        let origin = Instant::now();
        let device = |n: usize| {
            let link = terms.links[n % terms.links.len()];
            Device::new(terms, link, Random::new(seed.wrapping_mul(31) ^ n as u64), origin)
        };
        let mut world = Self {
            seed,
            terms: terms.clone(),
            origin,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            scheduled: 0,
            devices: (0..terms.devices).map(device).collect(),
            cloud: Cloud::new(Random::new(random.bits()), terms.cloud_run),
            cloud_back: Duration::ZERO,
            cloud_lives: 0,
            asked_by: BTreeMap::new(),
            waiting: BTreeMap::new(),
            last: 0,
            left: vec![terms.requests; terms.devices],
            mended: None,
            report: Report { seeds: 1, ..Report::default() },
            random,
        };
        for device in 0..terms.devices {
            world.next_arrival(device);
        }
        if terms.faults {
            world.plan_faults();
        }
        world
    }

    fn plan_faults(&mut self) {
        let span = self.terms.pace.mul_f64(self.terms.requests as f64);
        for device in 0..self.devices.len() {
            if self.random.chance(0.5) {
                let at = span.mul_f64(self.random.share());
                self.at(at, Happens::Restarts(device));
            }
        }
        let at = span.mul_f64(self.random.share());
        self.at(at, Happens::CloudCrashes);
    }

    fn at(&mut self, time: Duration, happens: Happens) {
        self.scheduled += 1;
        self.events.push(Reverse((time.max(self.now), self.scheduled, happens)));
    }

    fn instant(&self) -> Instant {
        self.origin + self.now
    }

    fn broken(&self, what: &str) -> Broken {
        Broken { seed: self.seed, what: format!("at {:?}: {what}", self.now) }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// What does not hold.
    pub fn run(mut self) -> Result<Report, Broken> {
        self.play()?;
        self.mend();
        self.play()?;
        self.judge()?;
        self.report.spared = self.cloud.spared;
        for device in &self.devices {
            self.report.checks += device.checks_asked;
            self.report.alarms += u64::from(device.audit.level());
            self.report.restarts += device.restarts;
        }
        Ok(self.report)
    }

    fn play(&mut self) -> Result<(), Broken> {
        while let Some(Reverse((time, _, happens))) = self.events.pop() {
            self.now = time;
            self.happen(happens)?;
            self.drive_cloud()?;
        }
        if let Some((number, device)) = self.waiting.first_key_value() {
            return Err(self.broken(&format!("request {number} of device {device} never ended")));
        }
        Ok(())
    }

    fn next_arrival(&mut self, device: usize) {
        if self.left[device] > 0 {
            self.left[device] -= 1;
            // Bursts too: half of the requests come right after each other.
            let burst = if self.random.chance(0.5) { 0.01 } else { 2.0 };
            let wait = self.terms.pace.mul_f64(self.random.exponential(burst));
            self.at(self.now + wait, Happens::Arrives(device));
        }
    }

    fn happen(&mut self, happens: Happens) -> Result<(), Broken> {
        let now = self.instant();
        match happens {
            Happens::Arrives(device) => {
                self.next_arrival(device);
                let wish = self.wish();
                self.ask(device, wish);
                return self.serve(device);
            }
            Happens::EdgeRan(device, number, took) => {
                let connected = self.is_connected(device);
                self.devices[device].edge_ran(number, took, connected, now);
                return self.serve(device);
            }
            Happens::EdgeLate(device, number) => {
                let connected = self.is_connected(device);
                self.devices[device].edge_late(number, connected, now);
                return self.serve(device);
            }
            Happens::AtCloud(device, knock) => {
                let here = self.now >= self.cloud_back;
                if let Some(reply) = here.then(|| self.cloud.take(knock, now)).flatten() {
                    self.reply(device, knock.number, reply);
                }
            }
            Happens::CancelAtCloud(number) => self.cloud.cancel(number),
            Happens::RunEnds(session, life) if life == self.cloud_lives => {
                for number in self.cloud.finished(session, now) {
                    if let Some(device) = self.asked_by.get(&number).copied() {
                        self.reply(device, number, Reply::Answered);
                    }
                }
            }
            Happens::RunEnds(..) | Happens::CloudTimeout => {}
            Happens::Reply(device, number, reply) => {
                let connected = self.is_connected(device);
                self.devices[device].cloud_ended(number, reply, connected, now);
                return self.serve(device);
            }
            Happens::CloudLate(device, number) => {
                let connected = self.is_connected(device);
                self.devices[device].cloud_late(number, connected, now);
                return self.serve(device);
            }
            Happens::Restarts(device) => {
                self.waiting.retain(|_, of| *of != device); // their applications saw it end
                let now_s = self.seconds(device);
                self.devices[device].restart(now, now_s);
                return self.serve(device);
            }
            Happens::CloudCrashes => {
                self.cloud.crash();
                self.cloud_lives += 1;
                self.cloud_back = self.now + Duration::from_secs(1 + self.random.below(60));
            }
            Happens::AsksAgain(device) => {
                self.ask(device, self.insistent());
                return self.serve(device);
            }
        }
        Ok(())
    }

    /// What the device's clock says; the same seconds as it wrote down.
    fn seconds(&self, device: usize) -> i64 {
        let first = self.devices[device].spent.first();
        let since = first.map_or(0, |(at, _)| self.instant().duration_since(*at).as_secs());
        i64::try_from(since).unwrap_or(0)
    }

    fn wish(&mut self) -> Wish {
        let random = &mut self.random;
        let drifted = self.report.requests > self.terms.requests * self.terms.devices as u64 / 2;
        let rate = if drifted { self.terms.wrong.1 } else { self.terms.wrong.0 };
        let sure = random.chance(0.85);
        #[allow(clippy::cast_possible_truncation)] // a score
        let score =
            if sure { 0.74 + 0.26 * random.share() } else { 0.2 + 0.53 * random.share() } as f32;
        let hint = match random.below(20) {
            0 => PlacementHint::Cloud,
            1 => PlacementHint::Edge,
            _ => PlacementHint::Auto,
        };
        Wish {
            arrived: self.origin + self.now,
            allowed: Duration::from_secs_f64(random.log_uniform(0.005, 2.0)),
            bytes: if random.chance(0.1) { 40_000 } else { 784 },
            priority: u8::try_from(random.below(3)).unwrap_or(0),
            hint,
            score,
            wrong: random.chance(rate),
        }
    }

    fn ask(&mut self, device: usize, wish: Wish) {
        self.last += 1;
        self.report.requests += 1;
        self.waiting.insert(self.last, device);
        let (connected, now) = (self.is_connected(device), self.instant());
        self.devices[device].arrive(self.last, wish, connected, now);
    }

    /// A connection stands until its peer was silent for long, and is back a round trip later.
    fn is_connected(&self, device: usize) -> bool {
        let link = &self.devices[device].link;
        let cloud_known_gone =
            self.now < self.cloud_back && self.cloud_back.saturating_sub(self.now) < SILENCE;
        !link.blocked && !cloud_known_gone
    }

    fn reply(&mut self, device: usize, number: Number, reply: Reply) {
        let link = self.devices[device].link;
        let Some(took) = link.message(self.now, &mut self.random) else { return };
        self.at(self.now + took, Happens::Reply(device, number, reply));
        if self.random.chance(link.duplicate) {
            self.at(self.now + took * 2, Happens::Reply(device, number, reply));
        }
    }

    fn drive_cloud(&mut self) -> Result<(), Broken> {
        let now = self.instant();
        loop {
            let step = self.cloud.poll(now);
            let gone = |number| self.broken(&format!("{number} runs although it was given up"));
            match step.map_err(gone)? {
                None => break,
                Some(Step::Runs(session, until)) => {
                    let life = self.cloud_lives;
                    self.at(until - self.origin, Happens::RunEnds(session, life));
                }
                Some(Step::Ended(number, reply)) => {
                    if let Some(device) = self.asked_by.get(&number).copied() {
                        self.reply(device, number, reply);
                    }
                }
            }
        }
        if let Some(timeout) = self.cloud.timeout() {
            self.at(timeout - self.origin, Happens::CloudTimeout);
        }
        Ok(())
    }

    /// Does what a device wants.
    fn serve(&mut self, device: usize) -> Result<(), Broken> {
        while let Some(wanted) = self.devices[device].wanted.pop_front() {
            let link = self.devices[device].link;
            match wanted {
                Wanted::EdgeRuns(number, took) => {
                    self.at(self.now + took, Happens::EdgeRan(device, number, took));
                }
                Wanted::EdgeUntil(number, until) => {
                    self.at(until - self.origin, Happens::EdgeLate(device, number));
                }
                Wanted::Cloud(knock, until) => {
                    self.asked_by.insert(knock.number, device);
                    self.at(until - self.origin, Happens::CloudLate(device, knock.number));
                    let windows = u32::try_from(knock.bytes / 14_720).unwrap_or(0);
                    if let Some(took) = link.message(self.now, &mut self.random) {
                        let took = took + link.one_way * 2 * windows;
                        self.at(self.now + took, Happens::AtCloud(device, knock));
                    }
                }
                Wanted::Cancel(number) => {
                    if let Some(took) = link.message(self.now, &mut self.random) {
                        self.at(self.now + took, Happens::CancelAtCloud(number));
                    }
                }
                Wanted::Ended(ended) => self.ended(device, &ended)?,
            }
        }
        Ok(())
    }

    fn ended(&mut self, device: usize, ended: &Ended) -> Result<(), Broken> {
        let Ended { number, wish, answer, .. } = ended;
        if self.waiting.remove(number).is_none() {
            return Err(self.broken(&format!("request {number} was answered twice")));
        }
        let took = self.instant() - wish.arrived;
        if took > wish.allowed {
            let allowed = wish.allowed;
            return Err(self.broken(&format!("request {number} took {took:?} of {allowed:?}")));
        }
        let end = match answer {
            Some((placement, reason)) => format!("{} {}", placement.as_str(), reason.as_str()),
            None => "deadline_exceeded".to_owned(),
        };
        if self.mended.is_some() {
            self.ended_in_order(device, ended, &end)?;
        }
        *self.report.ends.entry(end).or_default() += 1;
        Ok(())
    }

    /// All that was wrong is put right, and everybody asks for the cloud in one moment.
    fn mend(&mut self) {
        self.now = self.now.max(self.cloud_back) + SILENCE + Duration::from_secs(10);
        self.mended = Some(self.now);
        for device in 0..self.devices.len() {
            self.devices[device].link = crate::network::PROFILES[0];
            self.at(self.now, Happens::AsksAgain(device));
        }
    }

    /// A request for the cloud, and nobody else.
    fn insistent(&self) -> Wish {
        Wish {
            arrived: self.instant(),
            allowed: Duration::from_secs(2),
            bytes: 784,
            priority: 3,
            hint: PlacementHint::Cloud,
            score: 0.9,
            wrong: false,
        }
    }

    /// Where nothing is wrong any more, whoever asks for the cloud gets its answer, unless the budget
    /// forbids. So many at once that the cloud says no, which it does at once, ask again when it told
    /// them to; before long each of them has its answer.
    fn ended_in_order(&mut self, device: usize, ended: &Ended, end: &str) -> Result<(), Broken> {
        let since = self.now - self.mended.unwrap_or(self.now);
        match (ended.answer, ended.retry_after) {
            (Some((Placement::Cloud, _) | (_, Reason::Budget)), _) => {
                self.report.herd = since; // time only goes on
            }
            (Some((_, Reason::CloudBusy)), Some(wait)) if since < HERD_PATIENCE => {
                self.report.asked_again += 1;
                self.at(self.now + wait, Happens::AsksAgain(device));
            }
            _ => return Err(self.broken(&format!("mended {since:?} ago, and yet: {end}"))),
        }
        Ok(())
    }

    /// What must hold over the whole time.
    fn judge(&self) -> Result<(), Broken> {
        for (number, device) in self.devices.iter().enumerate() {
            let most = device.calls / u64::from(CALLS_PER_CHECK) + 1 + device.restarts;
            if device.checks_asked > most {
                return Err(
                    self.broken(&format!("device {number} checked {}", device.checks_asked))
                );
            }
            if let Some(what) = overspent(&device.spent, &self.terms) {
                return Err(self.broken(&format!("device {number}: {what}")));
            }
        }
        Ok(())
    }
}

/// What any 24 hours cost beyond the budget.
fn overspent(spent: &[(Instant, u64)], terms: &Terms) -> Option<String> {
    let (mut begin, mut bytes) = (0, 0);
    for (index, (at, size)) in spent.iter().enumerate() {
        bytes += size;
        while *at - spent[begin].0 >= DAY {
            bytes -= spent[begin].1;
            begin += 1;
        }
        let calls = (index - begin + 1) as u64;
        let within = |limit: u64, used: u64| limit == 0 || used <= limit;
        if !within(terms.budget.calls_per_day, calls) || !within(terms.budget.bytes_per_day, bytes)
        {
            return Some(format!("{calls} calls, {bytes} bytes in a day of {:?}", terms.budget));
        }
    }
    None
}
