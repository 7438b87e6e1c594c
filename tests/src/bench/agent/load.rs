//! CPU per call under load, of the agent beside others.

use super::super::Goal;
use super::super::beside::groups::{self, Group};
use super::super::beside::peers::{Batching, Peers};
use super::super::beside::servers::Server;
use super::super::beside::subjects::Subject;
use super::Part;
use crate::statistics::median;
use crate::world::{Agent, World};
use std::time::Duration;

/// Measures.
pub(super) fn measure(world: &World, agent: &Agent, short: bool) -> anyhow::Result<Part> {
    let (rounds, time) = if short { (3, 200) } else { (9, 1000) };
    let subjects = Subject::both(world)?;
    for subject in &subjects {
        subject.ship(world)?;
        agent.wait_active(subject.model, 1)?;
    }
    let peers = Peers::start(world.folder(), &subjects, &[Batching::Off])?;
    let servers: Vec<Server> = Server::of_agent(agent).into_iter().chain(peers.servers()).collect();
    let groups = groups::measure(&subjects, &servers, rounds, Duration::from_millis(time))?;
    let rows = groups.iter().flat_map(Group::rows).collect();
    Ok(Part { rows, goals: goals(&groups)? })
}

/// What is to be reached over HTTP, and by nobody but the agent.
fn goals(groups: &[Group]) -> anyhow::Result<Vec<Goal>> {
    let found = |request, in_flight| groups::found(groups, "agent, HTTP", request, in_flight);
    let added = median(&found("256 B", 32)?.added_ms);
    let alone = median(&found("256 B", 1)?.p50_ms);
    let efficiency = |n| anyhow::Ok(median(&found("600 kB", n)?.efficiency));
    Ok(vec![
        Goal::at_most("256 B, 32 in flight: added CPU per call (ms)", 0.03, added),
        Goal::at_most("256 B, 1 in flight: p50 (ms)", 0.25, alone),
        Goal::at_least("600 kB, 1 in flight: CPU efficiency", 0.97, efficiency(1)?),
        Goal::at_least("600 kB, 8 in flight: CPU efficiency", 0.97, efficiency(8)?),
        Goal::at_least("600 kB, 32 in flight: CPU efficiency", 0.97, efficiency(32)?),
    ])
}
