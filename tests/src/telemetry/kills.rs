//! Agent and cloud are killed while records are written, sent and stored, again and again: what the agent had said to
//! be durable is in the store at the end, once, and in order.

use super::{EVERYTHING, acknowledged, numbers, records, wait_for};
use crate::fashion::{Images, ask};
use crate::world::{Agent, AgentOptions, World};
use anyhow::ensure;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The longest that an agent lives, in milliseconds: some commits, and some uploads.
const LIFE_MAX_MS: u64 = 2_500;

/// What became of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Agents that were killed.
    pub kills: usize,
    /// Clouds that were killed.
    pub cloud_kills: usize,
    /// Networks that were lived through.
    pub networks: usize,
    /// Records that were said to be durable.
    pub acknowledged: usize,
    /// Of them, those that are not in the store.
    pub lost: usize,
    /// Records in the store.
    pub stored: usize,
    /// Of them, those that are there twice.
    pub twice: usize,
    /// Records that come before an older one of their class.
    pub out_of_order: usize,
}

impl Report {
    /// Waits until all that was promised has arrived, or the time for that is over, and judges what is there.
    ///
    /// # Errors
    /// What the operator's command printed.
    pub fn judge_arrived(
        &mut self,
        world: &World,
        agent: Agent,
        promised: &BTreeSet<u64>,
    ) -> anyhow::Result<()> {
        let arrived = wait_for(world, "what was acknowledged", |all| {
            promised.is_subset(&numbers(all).into_iter().collect())
        });
        drop(agent);
        let all = match arrived {
            Ok(all) => all,
            Err(_) => records(&world.operator, &world.folder().join("pulled"))?,
        };
        judge(self, promised, &all);
        Ok(())
    }

    /// The same in another fleet.
    pub fn add(&mut self, other: &Self) {
        self.kills += other.kills;
        self.cloud_kills += other.cloud_kills;
        self.networks += other.networks;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.stored += other.stored;
        self.twice += other.twice;
        self.out_of_order += other.out_of_order;
    }

    /// Whether nothing was lost, doubled or shuffled.
    ///
    /// # Errors
    /// Something was, or there was nothing to lose.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.acknowledged > (self.kills + self.networks) / 4, "too little to lose: {self}");
        ensure!(self.lost == 0 && self.twice == 0 && self.out_of_order == 0, "{self}");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, cloud_kills, networks, .. } = self;
        let Self { acknowledged, lost, stored, twice, out_of_order, .. } = self;
        write!(
            f,
            "{kills} agents and {cloud_kills} clouds killed, {networks} networks; {acknowledged} records acknowledged, {lost} lost; \
             {stored} stored, {twice} twice, {out_of_order} out of order"
        )
    }
}

/// Kills that many agents, in so many fleets side by side, for each of them mostly waits.
///
/// # Errors
/// A program that does not start.
pub fn kill_in(fleets: usize, kills: usize) -> anyhow::Result<Report> {
    side_by_side(fleets, |_| kill(kills.div_ceil(fleets)))
}

/// Runs that many fleets at once; what became of all.
///
/// # Errors
/// The first that fails.
pub fn side_by_side(
    fleets: usize,
    live: impl Fn(usize) -> anyhow::Result<Report> + Sync,
) -> anyhow::Result<Report> {
    let mut all = Report::default();
    std::thread::scope(|scope| {
        let live = &live;
        let running: Vec<_> = (0..fleets).map(|fleet| scope.spawn(move || live(fleet))).collect();
        for fleet in running {
            let report = fleet.join().map_err(|_| anyhow::anyhow!("a fleet's thread panicked"))?;
            all.add(&report?);
        }
        Ok(all)
    })
}

/// Kills that many agents, and now and then the cloud.
///
/// # Errors
/// A program that does not start.
pub fn kill(kills: usize) -> anyhow::Result<Report> {
    let mut world = World::start()?;
    world.ship_fashion()?;
    world.operator.run(&["telemetry", "key"])?;
    let options = AgentOptions { config: EVERYTHING.into() };
    let agent = world.agent("device", &options)?;
    agent.wait_active("fashion", 1)?;
    let images = Images::test()?;
    let mut report = Report::default();
    let mut promised = BTreeSet::new();
    let mut state_dir = agent.stop()?;
    promised.extend(log_of(&state_dir));
    for number in 0..kills {
        let agent = Agent::start(&state_dir, &options)?;
        let kills_cloud = draw(8) == 0;
        ask_some(&agent, &images, number)?;
        if kills_cloud {
            report.cloud_kills += 1;
            std::thread::sleep(Duration::from_millis(draw(LIFE_MAX_MS / 2)));
            world.cloud.restart()?; // it is killed first
        }
        std::thread::sleep(Duration::from_millis(draw(LIFE_MAX_MS)));
        state_dir = agent.kill();
        promised.extend(log_of(&state_dir));
        report.kills += 1;
    }
    let agent = Agent::start(&state_dir, &options)?;
    report.judge_arrived(&world, agent, &promised)?;
    Ok(report)
}

/// A random number below this: when the fault comes, and how much there is to lose.
pub fn draw(below: u64) -> u64 {
    u64::from_le_bytes(link::entropy()) % below.max(1)
}

/// Asks a few times, on the device alone.
///
/// # Errors
/// It does not answer.
pub fn ask_some(agent: &Agent, images: &Images, number: usize) -> anyhow::Result<()> {
    let mut client = agent.client()?;
    for index in 0..draw(8) {
        let image = (number * 8 + usize::try_from(index)?) % images.len();
        ask(&mut client, images.pixels(image), &json!({ "placement": "edge" }))?;
    }
    Ok(())
}

/// The numbers of what the agent in this folder has said to be durable since its start.
pub fn log_of(state_dir: &Path) -> BTreeSet<u64> {
    acknowledged(&std::fs::read_to_string(state_dir.join("agent.log")).unwrap_or_default())
}

/// Holds what was promised against what is in the store.
fn judge(report: &mut Report, promised: &BTreeSet<u64>, all: &[Value]) {
    let stored: BTreeSet<u64> = numbers(all).into_iter().collect();
    report.acknowledged = promised.len();
    report.lost = promised.difference(&stored).count();
    report.stored = all.len();
    report.twice = all.len() - stored.len();
    for class in telemetry::Class::ALL {
        let mut own: Vec<(u64, u64)> = all
            .iter()
            .filter(|record| record["class"] == class.as_str())
            .filter_map(|r| Some((r["number"].as_u64()?, r["observed_unix_ms"].as_u64()?)))
            .collect();
        own.sort_unstable();
        report.out_of_order += own.windows(2).filter(|pair| pair[0].1 > pair[1].1).count();
    }
}
