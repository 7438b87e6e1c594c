//! One tenant's callers, who ask in turn or at a rate of their own, and how their calls ended.

use crate::bench::{Row, rounded};
use crate::callers::{Call, Device, Https, KeyHolder, Said};
use crate::fashion::Images;
use crate::statistics::percentile_ms;
use crate::world::World;
use anyhow::ensure;
use protocol::id::Version;
use protocol::infer::{InferRequest, PlacementHint};
use protocol::problem::ProblemCode;
use protocol::tensor::Tensor;
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Pictures in a request: so many take long enough that a caller takes little beside them.
const ITEMS: usize = 16;
const DEADLINE_MS: u32 = 2000;
/// Calls of one tenant under way; one more is a fault of this program.
const CALLS_MAX: usize = 512;

/// Callers of one tenant.
pub(super) struct Tenant(Way);

enum Way {
    /// They take whatever connection is free.
    Https { who: KeyHolder, call: Call, free: Mutex<Vec<Https>> },
    /// They share one connection, with a stream for each call.
    Quic { device: Device, request: Box<InferRequest> },
}

/// How calls ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) answered: Vec<Duration>,
    pub(super) refused: Vec<Duration>,
    /// Refusals that the standard does not know, or not as one for too much load.
    pub(super) untyped: usize,
    pub(super) took: Duration,
}

impl Ended {
    fn add(&mut self, said: &Said, took: Duration) {
        match said {
            Ok(_) => self.answered.push(took),
            Err(problem) => {
                let known = [ProblemCode::Overloaded, ProblemCode::DeadlineExceeded];
                if !known.contains(&problem.code) {
                    eprintln!("{problem}");
                    self.untyped += 1;
                }
                self.refused.push(took);
            }
        }
    }

    pub(super) fn per_s(&self) -> f64 {
        self.answered.len() as f64 / self.took.as_secs_f64()
    }

    pub(super) fn row(&self, when: &str) -> Row {
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
        ])
    }
}

fn input(images: &Images) -> anyhow::Result<Tensor> {
    let pixels = (0..ITEMS).flat_map(|at| images.pixels(at));
    let values: Vec<f32> = pixels.map(|pixel| f32::from(*pixel) / 255.0).collect();
    Ok(Tensor::from_f32("image", vec![i64::try_from(ITEMS)?, 1, 28, 28], &values)?)
}

impl Tenant {
    /// Programs with a key, over HTTPS.
    pub(super) fn with_key(
        world: &World,
        name: &str,
        images: &Images,
    ) -> anyhow::Result<Arc<Self>> {
        let who = KeyHolder::new(world, name)?;
        let parameters = json!({ "timeout": DEADLINE_MS * 1000 });
        let call = Call::new(&who, "fashion", (&[input(images)?], &["logits".into()]), &parameters);
        Ok(Arc::new(Self(Way::Https { who, call, free: Mutex::default() })))
    }

    /// A device, over QUIC.
    pub(super) async fn device(
        world: &World,
        name: &str,
        images: &Images,
    ) -> anyhow::Result<Arc<Self>> {
        let device = Device::enrol(world, name).await?;
        let request = InferRequest {
            model: "fashion".parse()?,
            version: None,
            id: String::new(),
            inputs: vec![input(images)?],
            outputs: vec!["logits".into()],
            deadline_ms: None,
            priority: 0,
            hint: PlacementHint::Auto,
            sequence: None,
        };
        Ok(Arc::new(Self(Way::Quic { device, request: Box::new(request) })))
    }

    async fn call(&self, due: Instant) -> anyhow::Result<(Said, Duration)> {
        match &self.0 {
            Way::Quic { device, request } => {
                let said = device.ask(request, Version::FIRST, DEADLINE_MS).await?;
                Ok((said, due.elapsed()))
            }
            Way::Https { who, call, free } => {
                let free = || -> MutexGuard<'_, Vec<Https>> {
                    free.lock().unwrap_or_else(PoisonError::into_inner)
                };
                let found = free().pop();
                let (mut https, since) = match found {
                    Some(https) => (https, due),
                    // Opening a connection is not what is measured here.
                    None => (Https::connect(who).await?, Instant::now()),
                };
                let reply = https.call(call).await?;
                let took = since.elapsed();
                free().push(https);
                Ok((reply.said()?, took))
            }
        }
    }

    /// One request after the other, by so many callers.
    pub(super) async fn ask_in_turn(
        self: Arc<Self>,
        callers: usize,
        time: Duration,
    ) -> anyhow::Result<Ended> {
        let began = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..callers {
            let tenant = self.clone();
            running.spawn(async move {
                let mut ended = Ended::default();
                while began.elapsed() < time {
                    let (said, took) = tenant.call(Instant::now()).await?;
                    ended.add(&said, took);
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
    pub(super) async fn ask_at(
        self: Arc<Self>,
        per_s: f64,
        time: Duration,
    ) -> anyhow::Result<Ended> {
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
            ensure!(running.len() < CALLS_MAX, "{CALLS_MAX} calls without an end");
            let tenant = self.clone();
            running.spawn(async move { tenant.call(Instant::now()).await });
            while let Some(ended) = running.try_join_next() {
                let (said, took) = ended??;
                all.add(&said, took);
            }
        }
        all.took = began.elapsed();
        while let Some(ended) = running.join_next().await {
            let (said, took) = ended??;
            all.add(&said, took);
        }
        Ok(all)
    }
}
