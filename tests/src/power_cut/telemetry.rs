//! The power is cut while records are written and sent, and the device goes on from what the cut has left: again and
//! again, on the same disk. What it had said to be durable is in the cloud at the end, once, and in order.

use super::disk::Room;
use super::judge::Verdict;
use super::{Effort, Report};
use crate::fashion::Images;
use crate::telemetry::kills::{self, ask_some, draw, judge, log_of};
use crate::telemetry::{EVERYTHING, numbers, records, wait_for};
use crate::world::{Agent, AgentOptions, World};
use anyhow::Context;
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest from a start to the cut, in milliseconds: some commits, and some uploads.
const LIFE_MAX_MS: u64 = 2_500;

/// Lives, is cut, and lives on.
pub(super) fn live(room: &Room, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    if effort.telemetry_cuts == 0 {
        return Ok(());
    }
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
    let (mut promised, mut verdicts) = (BTreeSet::new(), Vec::new());
    for cut in 0..effort.telemetry_cuts {
        ask_some(&agent, &images, cut)?;
        std::thread::sleep(Duration::from_millis(draw(LIFE_MAX_MS)));
        agent.process().pause()?;
        promised.extend(log_of(&state_dir));
        let left = disk.copy()?;
        agent.kill();
        disk = disk.go_on_from(room, &left)?;
        agent = Agent::start(&state_dir, &options).with_context(|| format!("after cut {cut}"))?;
        verdicts.push(Verdict { enrolled: true, started: true, ..Verdict::default() });
    }
    let all = wait_for(&world, "what was acknowledged", |all| {
        promised.is_subset(&numbers(all).into_iter().collect())
    });
    let all = all.or_else(|_| records(&world.operator, &world.folder().join("pulled")))?;
    agent.kill();
    let mut judged = kills::Report { kills: verdicts.len(), ..kills::Report::default() };
    judge(&mut judged, &promised, &all);
    eprintln!("telemetry: {judged}");
    if let Some(last) = verdicts.last_mut() {
        last.acknowledged = judged.acknowledged as u64;
        last.served = (judged.acknowledged - judged.lost) as u64;
        last.failures.extend(judged.check().err().map(|error| format!("telemetry: {error:#}")));
    }
    report.add("records telemetry", verdicts);
    Ok(())
}
