//! A cloud is asked three times as much as it can answer, as by callers who do not wait for answers
//! before they ask again: what it answers stays as much and as quick as ever, what it refuses is
//! refused at once, in words that the standard knows; and one tenant's flood is not the other's.
//!
//! In the whole proof the callers have a core of their own ([`Apart`]): the server's cores are the
//! server's in each part alike, so what a flood takes from its answers is what refusing costs it.

use crate::bench::{BenchReport, Goal, Row};
use crate::cores::Apart;
use crate::fashion::Images;
use crate::prometheus::Scrape;
use crate::statistics::percentile_ms;
use crate::world::{World, with_descendants};
use anyhow::{Context, ensure};
use serde_json::json;
use std::time::Duration;

mod tenant;

use tenant::{Ended, Tenant};

/// How long each part takes.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Looking for what it can answer.
    pub peak: Duration,
    /// At 0.8 of that, and one tenant alone.
    pub quiet: Duration,
    /// At three times that.
    pub flood: Duration,
    /// The same by devices.
    pub devices: Duration,
}

impl Effort {
    /// The whole proof.
    pub const WHOLE: Self = Self {
        peak: Duration::from_secs(6),
        quiet: Duration::from_secs(12),
        flood: Duration::from_secs(60),
        devices: Duration::from_secs(15),
    };
    /// Counts only: too short for times.
    pub const SHORT: Self = Self {
        peak: Duration::from_secs(1),
        quiet: Duration::from_secs(1),
        flood: Duration::from_secs(2),
        devices: Duration::from_secs(1),
    };
}

/// Requests under way that look for the peak: enough for every session.
const PEAK_CALLERS: usize = 4;
/// Programs of one tenant that ask in turn. All of their requests can be answered in time.
const CROWD_CALLERS: usize = 32;
/// Of the peak: below what makes a queue, below a tenant's share, and beyond everything.
const BUSY: f64 = 0.8;
const MODEST: f64 = 0.2;
const FLOOD: f64 = 3.0;
/// The last bound of a bucket below a millisecond.
const AT_ONCE_S: &str = "0.0008";

/// One way to the cloud.
struct Way {
    name: &'static str,
    /// Before the flood and after it: the machine itself is not always as fast.
    peaks: [Ended; 2],
    busy: Ended,
    flood: Ended,
    /// Of the refusals, as the server measured them: those that took no longer than [`AT_ONCE_S`].
    at_once: f64,
}

/// What was measured.
struct Measured {
    ways: [Way; 2],
    crowd: Ended,
    alone: Ended,
    beside: Ended,
    growth: f64,
}

/// How many refusals there were over this transport, and how many of them at once.
fn refusals(world: &World, transport: &str) -> anyhow::Result<[f64; 2]> {
    let authorization = world.cloud.admin()?;
    let headers = [("Authorization", authorization.as_str())];
    let response = world.cloud.client()?.send("GET", "/metrics", &headers, &[])?;
    let scrape = Scrape::parse(std::str::from_utf8(&response.body)?)?;
    let labels = [("transport", transport), ("le", AT_ONCE_S)];
    let name = "outrigger_cloud_refusal_seconds";
    let all = scrape.value(&format!("{name}_count"), &labels[..1]).context("no histogram")?;
    let soon = scrape.value(&format!("{name}_bucket"), &labels).context("no such bucket")?;
    Ok([all, soon])
}

async fn measure(world: &World, effort: Effort) -> anyhow::Result<Measured> {
    let images = Images::test()?;
    let flooding = Tenant::with_key(world, "flooding", &images)?;
    let modest = Tenant::with_key(world, "modest", &images)?;
    let crowd = flooding.clone().ask_in_turn(CROWD_CALLERS, effort.peak).await?;
    let first = flooding.clone().ask_in_turn(PEAK_CALLERS, effort.peak).await?;
    let per_s = first.per_s();
    let busy = flooding.clone().ask_at(BUSY * per_s, effort.quiet).await?;
    let alone = modest.clone().ask_at(MODEST * per_s, effort.quiet).await?;
    // Once, so that its connections and queues are there before memory is looked at.
    flooding.clone().ask_at(FLOOD * per_s, effort.flood / 10).await?;
    let before = (pss_kb(world)?, refusals(world, "https")?);
    let flood = flooding.clone().ask_at(FLOOD * per_s, effort.flood).await?;
    let growth = pss_kb(world)? as f64 / before.0 as f64;
    let at_once = share(before.1, refusals(world, "https")?);
    let last = flooding.clone().ask_in_turn(PEAK_CALLERS, effort.peak).await?;
    let https = Way { name: "key over HTTPS", peaks: [first, last], busy, flood, at_once };

    let others = flooding.ask_at(FLOOD * per_s, effort.quiet);
    let (other, beside) = tokio::join!(others, modest.ask_at(MODEST * per_s, effort.quiet));
    ensure!(!other?.refused.is_empty(), "a flood of which nothing is refused is none");
    let quic = by_devices(world, &images, effort).await?;
    Ok(Measured { ways: [https, quic], crowd, alone, beside: beside?, growth })
}

/// Of the cloud with its workers.
fn pss_kb(world: &World) -> anyhow::Result<u64> {
    let process = world.cloud.process().context("no cloud")?.id();
    with_descendants(&[process])?.into_iter().map(crate::world::pss_kb).sum()
}

async fn by_devices(world: &World, images: &Images, effort: Effort) -> anyhow::Result<Way> {
    let device = Tenant::device(world, "device", images).await?;
    let first = device.clone().ask_in_turn(PEAK_CALLERS, effort.peak).await?;
    let per_s = first.per_s();
    let busy = device.clone().ask_at(BUSY * per_s, effort.quiet).await?;
    device.clone().ask_at(FLOOD * per_s, effort.devices / 10).await?;
    let before = refusals(world, "quic")?;
    let flood = device.clone().ask_at(FLOOD * per_s, effort.devices).await?;
    let at_once = share(before, refusals(world, "quic")?);
    let last = device.ask_in_turn(PEAK_CALLERS, effort.peak).await?;
    Ok(Way { name: "device over QUIC", peaks: [first, last], busy, flood, at_once })
}

/// How many of those that came in between were at once.
fn share(before: [f64; 2], after: [f64; 2]) -> f64 {
    let [all, soon] = [after[0] - before[0], after[1] - before[1]];
    soon / all.max(1.0)
}

/// Floods a cloud. Times are goals of the whole proof only.
///
/// # Errors
/// A call that got no answer.
pub fn run(effort: Effort, timed: bool) -> anyhow::Result<BenchReport> {
    // Connections that have nothing to do for a while are not what is measured.
    let start = || World::start_in(&[("OUTRIGGER_CLOUD_SERVER_HEAD_S", "600".into())]);
    let world = if timed { Apart::new()?.start(start)? } else { start()? };
    world.ship_fashion()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(&world, effort))?;
    let Measured { ways, crowd, alone, beside, growth } = &measured;
    let mut rows: Vec<Row> = ways.iter().flat_map(Way::rows).collect();
    rows.push(crowd.row("32 callers of one tenant, in turn"));
    rows.push(alone.row("a tenant at 0.2, alone"));
    rows.push(beside.row("the same beside a flood"));
    let all = ways.iter().flat_map(|way| way.peaks.iter().chain([&way.busy, &way.flood]));
    let untyped: usize = all.chain([crowd, alone, beside]).map(|ended| ended.untyped).sum();
    let mut goals = vec![
        Goal::at_most("refusals that the standard does not know", 0.0, untyped as f64),
        Goal::at_most("refused of a lone tenant's callers", 0.0, crowd.refused.len() as f64),
        Goal::at_most("refused of a tenant below its share", 0.0, beside.refused.len() as f64),
    ];
    for way in ways {
        let (refused, answered) = (way.flood.refused.len(), way.flood.answered.len());
        goals.push(Goal::at_least("refused of the flood", 1.0, refused as f64));
        goals.push(Goal::at_least("answered of the flood", 1.0, answered as f64));
    }
    if timed {
        goals.extend(ways.iter().flat_map(Way::goals));
        let p99 = |ended: &Ended| percentile_ms(&ended.answered, 99.0);
        goals.push(Goal::at_most("PSS after the flood over that before", 1.1, *growth));
        goals.push(Goal::at_most("p99 beside a flood over alone", 1.3, p99(beside) / p99(alone)));
    }
    Ok(BenchReport { name: "overload", rows, goals })
}

impl Way {
    fn rows(&self) -> [Row; 4] {
        let [first, last] = &self.peaks;
        let parts = [
            (first, "peak"),
            (&self.busy, "0.8 of it"),
            (&self.flood, "3 times it"),
            (last, "peak, afterwards"),
        ];
        parts.map(|(ended, when)| {
            let mut row = ended.row(&format!("{}: {when}", self.name));
            let at_once = if ended.refused.is_empty() { json!(null) } else { json!(self.at_once) };
            row.0.push(("refused_within_0.8_ms", at_once));
            row
        })
    }

    fn goals(&self) -> [Goal; 3] {
        let p99 = |ended: &Ended| percentile_ms(&ended.answered, 99.0);
        let peak = self.peaks.iter().map(Ended::per_s).sum::<f64>() / 2.0;
        let peak = peak.max(self.busy.per_s());
        [
            Goal::at_least("goodput of the flood over the peak", 0.95, self.flood.per_s() / peak),
            Goal::at_most(
                "p99 in the flood over that at 0.8",
                2.0,
                p99(&self.flood) / p99(&self.busy),
            ),
            Goal::at_least("refused within 0.8 ms, at the server", 0.99, self.at_once),
        ]
    }
}
