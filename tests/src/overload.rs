//! A cloud is asked three times as much as it can answer, as by callers who do not wait for answers
//! before they ask again: what it answers stays as much and as quick as ever, what it refuses is
//! refused at once, in words that the standard knows; and one tenant's flood is not the other's.

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::callers::{Call, Https, KeyHolder, Reply};
use crate::fashion::Images;
use crate::statistics::percentile_ms;
use crate::world::World;
use anyhow::{Context, ensure};
use protocol::problem::ProblemCode;
use protocol::tensor::Tensor;
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How long each part takes.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Looking for what it can answer.
    pub peak: Duration,
    /// At 0.8 of that, and one tenant alone.
    pub quiet: Duration,
    /// At three times that.
    pub flood: Duration,
}

impl Effort {
    /// The whole proof.
    pub const WHOLE: Self = Self {
        peak: Duration::from_secs(8),
        quiet: Duration::from_secs(15),
        flood: Duration::from_secs(60),
    };
    /// Counts only: too short for times.
    pub const SHORT: Self = Self {
        peak: Duration::from_secs(1),
        quiet: Duration::from_secs(1),
        flood: Duration::from_secs(2),
    };
}

/// Pictures in a request: so many take long enough that a caller takes little beside them.
const ITEMS: usize = 16;
const DEADLINE_US: u64 = 2_000_000;
/// Requests under way that look for the peak: enough for every session, too few to be refused.
const PEAK_CALLERS: usize = 3;
/// Connections of one tenant; one more is a fault of this program.
const CONNECTIONS_MAX: usize = 512;

/// Callers of one tenant, who take whatever connection is free.
struct Tenant {
    who: KeyHolder,
    call: Call,
    free: Mutex<Vec<Https>>,
}

/// How calls ended.
#[derive(Debug, Default)]
struct Ended {
    answered: Vec<Duration>,
    refused: Vec<Duration>,
    untyped: usize,
    took: Duration,
}

impl Ended {
    fn add(&mut self, reply: &Reply, took: Duration) -> anyhow::Result<()> {
        match reply.said() {
            Ok(Ok(_)) => self.answered.push(took),
            Ok(Err(problem)) => {
                let known = [ProblemCode::Overloaded, ProblemCode::DeadlineExceeded];
                self.untyped += usize::from(!known.contains(&problem.code));
                self.refused.push(took);
            }
            Err(error) if reply.status >= 400 => {
                self.untyped += 1;
                self.refused.push(took);
                eprintln!("{error:#}");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn per_s(&self) -> f64 {
        self.answered.len() as f64 / self.took.as_secs_f64()
    }

    fn refused_share(&self) -> f64 {
        let all = self.answered.len() + self.refused.len();
        self.refused.len() as f64 / all.max(1) as f64
    }

    fn row(&self, when: &str) -> Row {
        let of = |times: &[Duration], percent| json!(rounded(percentile_ms(times, percent)));
        Row(vec![
            ("when", json!(when)),
            ("answered", json!(self.answered.len())),
            ("per_s", json!(rounded(self.per_s()))),
            ("p50_ms", of(&self.answered, 50.0)),
            ("p99_ms", of(&self.answered, 99.0)),
            ("refused", json!(self.refused.len())),
            ("refused_p50_ms", of(&self.refused, 50.0)),
            ("refused_p99_ms", of(&self.refused, 99.0)),
            ("refused_max_ms", of(&self.refused, 100.0)),
        ])
    }
}

impl Tenant {
    fn new(world: &World, name: &str, images: &Images) -> anyhow::Result<Arc<Self>> {
        let who = KeyHolder::new(world, name)?;
        let pixels = (0..ITEMS).flat_map(|at| images.pixels(at));
        let values: Vec<f32> = pixels.map(|pixel| f32::from(*pixel) / 255.0).collect();
        let input = Tensor::from_f32("image", vec![i64::try_from(ITEMS)?, 1, 28, 28], &values)?;
        let outputs = ["logits".to_owned()];
        let parameters = json!({ "timeout": DEADLINE_US });
        let call = Call::new(&who, "fashion", (&[input], &outputs), &parameters);
        Ok(Arc::new(Self { who, call, free: Mutex::default() }))
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Https>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, due: Instant) -> anyhow::Result<(Reply, Duration)> {
        let free = self.free().pop();
        let (mut https, since) = match free {
            Some(https) => (https, due),
            // Opening a connection is not what is measured here.
            None => (Https::connect(&self.who).await?, Instant::now()),
        };
        let reply = https.call(&self.call).await?;
        let took = since.elapsed();
        self.free().push(https);
        Ok((reply, took))
    }

    /// One request after the other, by so many callers.
    async fn ask_in_turn(self: Arc<Self>, callers: usize, time: Duration) -> anyhow::Result<Ended> {
        let began = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..callers {
            let tenant = self.clone();
            running.spawn(async move {
                let mut ended = Ended::default();
                while began.elapsed() < time {
                    let (reply, took) = tenant.call(Instant::now()).await?;
                    ended.add(&reply, took)?;
                }
                anyhow::Ok(ended)
            });
        }
        let mut all = Ended::default();
        while let Some(ended) = running.join_next().await {
            let ended = ended??;
            all.answered.extend(ended.answered);
            all.refused.extend(ended.refused);
            all.untyped += ended.untyped;
        }
        all.took = began.elapsed();
        Ok(all)
    }

    /// So many requests a second, at random moments, whatever becomes of those before.
    async fn ask_at(self: Arc<Self>, per_s: f64, time: Duration) -> anyhow::Result<Ended> {
        let began = Instant::now();
        let mut due = began;
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let (mut running, mut all) = (JoinSet::new(), Ended::default());
        while due - began < time {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let share = ((state >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
            due += Duration::from_secs_f64(-share.ln() / per_s);
            tokio::time::sleep_until(due.into()).await;
            ensure!(running.len() < CONNECTIONS_MAX, "{CONNECTIONS_MAX} calls without an end");
            let tenant = self.clone();
            running.spawn(async move { tenant.call(Instant::now()).await });
            while let Some(ended) = running.try_join_next() {
                let (reply, took) = ended??;
                all.add(&reply, took)?;
            }
        }
        all.took = began.elapsed();
        while let Some(ended) = running.join_next().await {
            let (reply, took) = ended??;
            all.add(&reply, took)?;
        }
        Ok(all)
    }
}

/// What was measured.
struct Measured {
    peak: Ended,
    quiet: Ended,
    flood: Ended,
    alone: Ended,
    beside: Ended,
    other: Ended,
    growth: f64,
}

async fn measure(world: &World, effort: Effort) -> anyhow::Result<Measured> {
    let images = Images::test()?;
    let flooding = Tenant::new(world, "flooding", &images)?;
    let modest = Tenant::new(world, "modest", &images)?;
    let pss_kb = || world.cloud.process().context("no cloud")?.pss_kb();
    let peak = flooding.clone().ask_in_turn(PEAK_CALLERS, effort.peak).await?;
    let per_s = peak.per_s();
    let quiet = flooding.clone().ask_at(0.8 * per_s, effort.quiet).await?;
    let alone = modest.clone().ask_at(0.2 * per_s, effort.quiet).await?;
    // Once, so that its connections and queues are there before memory is looked at.
    flooding.clone().ask_at(3.0 * per_s, effort.flood / 10).await?;
    let before = pss_kb()?;
    let flood = flooding.clone().ask_at(3.0 * per_s, effort.flood).await?;
    let growth = pss_kb()? as f64 / before as f64;
    let others = flooding.ask_at(3.0 * per_s, effort.quiet);
    let (other, beside) = tokio::join!(others, modest.ask_at(0.2 * per_s, effort.quiet));
    Ok(Measured { peak, quiet, flood, alone, beside: beside?, other: other?, growth })
}

/// Floods a cloud. Times are goals of the whole proof only.
///
/// # Errors
/// A call that got no answer.
pub fn run(effort: Effort, timed: bool) -> anyhow::Result<BenchReport> {
    let world = World::start()?;
    world.ship_fashion()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(&world, effort))?;
    let Measured { peak, quiet, flood, alone, beside, other, growth } = &measured;
    let rows = [
        (peak, "peak"),
        (quiet, "0.8 of it"),
        (flood, "3 times it"),
        (alone, "a tenant at 0.2, alone"),
        (beside, "the same beside a flood"),
        (other, "the flood"),
    ];
    let all = rows.iter().map(|(ended, _)| *ended);
    let untyped: usize = all.map(|ended| ended.untyped).sum();
    let refused = flood.refused.len() as f64;
    let mut goals = vec![
        Goal::at_most("refusals that the standard does not know", 0.0, untyped as f64),
        Goal::at_least("refused of the flood", 1.0, refused),
        Goal::at_least("answered of the flood", 1.0, flood.answered.len() as f64),
        Goal::at_most(
            "refused share of the modest tenant over that of the flood beside it",
            0.25,
            beside.refused_share() / other.refused_share().max(f64::MIN_POSITIVE),
        ),
    ];
    if timed {
        let p99 = |ended: &Ended| percentile_ms(&ended.answered, 99.0);
        let best = peak.per_s().max(quiet.per_s());
        goals.extend([
            Goal::at_least("goodput of the flood over the peak", 0.95, flood.per_s() / best),
            Goal::at_most("p99 in the flood over that at 0.8", 2.0, p99(flood) / p99(quiet)),
            Goal::at_most("p99 of a refusal, ms", 1.0, percentile_ms(&flood.refused, 99.0)),
            Goal::at_most("PSS after the flood over that before", 1.1, *growth),
            Goal::at_most("p99 beside a flood over that alone", 1.3, p99(beside) / p99(alone)),
        ]);
    }
    let rows = rows.map(|(ended, when)| ended.row(when)).into();
    Ok(BenchReport { name: "overload", rows, goals })
}
