//! A device whose address changes under load, as when it goes from one network to another: whether any
//! request is lost, and for how long nothing is answered.

use super::ways::{agent, deferral, degraded};
use super::{IN_FLIGHT, LINKS, ms};
use crate::bench::beside::subjects::Subject;
use crate::bench::{Goal, Row, rounded};
use crate::lab::{DEVICE, DEVICE_ELSEWHERE, Lab};
use crate::load::Callers;
use crate::statistics::percentile_ms;
use crate::world::World;
use serde_json::json;
use std::time::Duration;

/// Between two changes.
const EVERY: Duration = ms(2000);
/// Longer than a lost connection would take to be noticed.
const TIMEOUT_US: u64 = 30_000_000;

pub(super) fn measure(
    lab: &Lab,
    world: &World,
    subject: &Subject,
    moves: usize,
) -> anyhow::Result<(Vec<Row>, Vec<Goal>)> {
    let agent = agent(lab, world, "moving", "[link]\ncarrier = \"quic\"\n", subject.model)?;
    let target = deferral(&agent, subject, TIMEOUT_US);
    let mut callers = lab.device.inside(|| Callers::connect(&target, IN_FLIGHT))??;
    let time = EVERY * u32::try_from(moves + 1)?;
    let (asked, moved) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| callers.call_for(time, IN_FLIGHT));
        let mut places = (DEVICE, DEVICE_ELSEWHERE);
        let mut moved = Ok(());
        for _ in 0..moves {
            std::thread::sleep(EVERY);
            moved = moved.and_then(|()| lab.move_device(places.0, places.1));
            places = (places.1, places.0);
        }
        (asking.join(), moved)
    });
    moved?;
    let asked = asked.map_err(|_| anyhow::anyhow!("the callers panicked"))?;
    let lost = asked.as_ref().err().map(|error| format!("{error:#}")).unwrap_or_default();
    let took = asked.unwrap_or_default();
    let degraded = degraded(lab, &agent)?;
    let status = lab.device.inside(|| agent.status())??;
    let connects = status["counters"]["link"]["connects"].as_u64().unwrap_or(0);
    let longest_ms = percentile_ms(&took, 100.0);
    let row = Row(vec![
        ("changes of address", json!(moves)),
        ("answers", json!(took.len())),
        ("lost", json!(lost)),
        ("answered by the device", json!(degraded)),
        ("connections", json!(connects)),
        ("longest_ms", json!(rounded(longest_ms))),
    ]);
    let round_trip_ms = LINKS[0].1.one_way.as_secs_f64() * 2000.0;
    let lost = f64::from(u8::from(!lost.is_empty() || degraded > 0 || connects != 1));
    let longest = "longest answer over a change of address, ms";
    let goals = vec![
        Goal::at_most("requests, or connections, lost by a change of address", 0.0, lost),
        Goal::at_most(longest, round_trip_ms + 1000.0, longest_ms),
    ];
    Ok((vec![row], goals))
}
