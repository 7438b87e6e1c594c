//! The power is cut while records are written and sent, and the device goes on from what the cut has left: again and
//! again, on the same disk. What it had said to be durable is in the cloud at the end, once, and in order.

use super::disk::Room;
use super::judge::Verdict;
use super::{Effort, Report};
use crate::fashion::Images;
use crate::telemetry::EVERYTHING;
use crate::telemetry::kills::{self, ask_some, draw, log_of};
use crate::world::{Agent, AgentOptions, World};
use anyhow::Context;
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest from a start to the cut, in milliseconds: some commits, and some uploads.
const LIFE_MAX_MS: u64 = 2_500;

/// Fleets that live side by side where there are many cuts: each of them mostly waits.
const FLEETS: usize = 5;

/// Lives, is cut, and lives on.
pub(super) fn live(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let fleets = if effort.telemetry_cuts < 100 { 1 } else { FLEETS };
    let cuts = effort.telemetry_cuts.div_ceil(fleets);
    let judged = kills::side_by_side(fleets, |_| live_in(&Room::new()?, cuts))?;
    eprintln!("telemetry: {judged}");
    let mut verdicts: Vec<Verdict> = Vec::new();
    verdicts.resize_with(judged.kills, || Verdict {
        enrolled: true,
        started: true,
        ..Verdict::default()
    });
    if let Some(last) = verdicts.last_mut() {
        last.acknowledged = judged.acknowledged as u64;
        last.served = (judged.acknowledged - judged.lost) as u64;
        last.failures.extend(judged.check().err().map(|error| format!("telemetry: {error:#}")));
    }
    report.add("records telemetry", verdicts);
    Ok(())
}

/// One fleet, whose device loses its power that many times.
fn live_in(room: &Room, cuts: usize) -> anyhow::Result<kills::Report> {
    let world = World::start()?;
    world.ship_fashion()?;
    world.operator.run(&["telemetry", "key"])?;
    let options = AgentOptions { config: EVERYTHING.into() };
    let mut disk = room.disk("telemetry")?;
    let state_dir = disk.folder().join("device");
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token()?)?;
    let mut agent = Agent::start(&state_dir, &options)?;
    agent.wait_active("fashion", 1)?;
    let images = Images::test()?;
    let mut promised = BTreeSet::new();
    for cut in 0..cuts {
        ask_some(&agent, &images, cut)?;
        std::thread::sleep(Duration::from_millis(draw(LIFE_MAX_MS)));
        agent.process().pause()?;
        promised.extend(log_of(&state_dir));
        let left = disk.copy()?;
        agent.kill();
        disk = disk.go_on_from(room, &left)?;
        agent = Agent::start(&state_dir, &options).with_context(|| format!("after cut {cut}"))?;
    }
    let mut judged = kills::Report { kills: cuts, ..kills::Report::default() };
    judged.judge_arrived(&world, agent, &promised)?;
    Ok(judged)
}
