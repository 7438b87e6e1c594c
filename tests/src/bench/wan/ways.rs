//! Four ways to ask the same cloud for the same model.

use super::{IN_FLIGHT, Rounds};
use crate::bench::beside::servers::Server;
use crate::bench::beside::subjects::Subject;
use crate::lab::Lab;
use crate::load::{Ask, Callers, Target};
use crate::world::{Agent, AgentOptions, World};
use anyhow::Context;
use serde_json::{Value, json};
use std::time::Duration;

/// What TCP does about congestion, as Linux comes.
pub(super) const TCP: &str = "cubic";

/// How the cloud is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Through an agent, over QUIC.
    Quic,
    /// Through an agent, over its fallback.
    Tcp,
    /// All callers over one TCP connection.
    Grpc,
    /// The same, with BBR in the place of Cubic at both ends.
    GrpcBbr,
    /// Each caller over a TCP connection of its own.
    Https,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Quic => "deferral, QUIC",
            Self::Tcp => "deferral, fallback to TCP",
            Self::Grpc => "gRPC, one TCP connection",
            Self::GrpcBbr => "gRPC, one TCP connection, BBR",
            Self::Https => "HTTPS, 64 TCP connections",
        }
    }
}

/// Callers that are connected.
pub(super) struct Ways {
    callers: Vec<(Way, Callers)>,
    agents: [Agent; 2],
}

/// A deferral that is asked of the cloud at once.
pub(super) fn deferral(agent: &Agent, subject: &Subject, timeout_us: u64) -> Target {
    let (len, body) = subject.http_body();
    let mut head: Value = serde_json::from_slice(&body[..len]).expect("it was just written");
    head["parameters"] = json!({ "timeout": timeout_us, "placement": "cloud" });
    let mut whole = head.to_string().into_bytes();
    let len = whole.len().to_string();
    whole.extend_from_slice(subject.input.data());
    let headers = [("Inference-Header-Content-Length", len.as_str())];
    let path = format!("/v2/models/{}/infer", subject.model);
    let address = agent.address();
    let ask = Ask::post(address, &path, &headers, &whole);
    Target { address, ask, expected: subject.expected.clone(), tls: None }
}

/// Answers that this agent gave itself.
pub(super) fn degraded(lab: &Lab, agent: &Agent) -> anyhow::Result<u64> {
    let status = lab.device.inside(|| agent.status())??;
    let answers = &status["counters"]["answers"];
    let count = |name: &str| answers[name].as_u64().context("no counters");
    Ok(count("edge_degraded")? + count("edge")?)
}

/// An agent on the device's side.
pub(super) fn agent(
    lab: &Lab,
    world: &World,
    name: &str,
    config: &str,
    model: &str,
) -> anyhow::Result<Agent> {
    let token = lab.cloud.inside(|| world.token())??;
    let (folder, cloud) = (world.folder().join(name), world.cloud.address());
    let options = AgentOptions { config: config.to_owned() };
    lab.device.inside(|| {
        Agent::enrol(&folder, &cloud, &token)?;
        let agent = Agent::start(&folder, &options)?;
        agent.wait_active(model, 1)?;
        anyhow::Ok(agent)
    })?
}

impl Ways {
    pub(super) fn open(lab: &Lab, world: &World, subject: &Subject) -> anyhow::Result<Self> {
        let agent = |name: &str| {
            agent(lab, world, name, &format!("[link]\ncarrier = \"{name}\"\n"), subject.model)
        };
        let (quic, tcp) = (agent("quic")?, agent("tcp")?);
        let [https, grpc] = lab.cloud.inside(|| Server::of_cloud(world))??;
        let targets = [
            (Way::Quic, deferral(&quic, subject, 60_000_000)),
            (Way::Tcp, deferral(&tcp, subject, 60_000_000)),
            (Way::Grpc, grpc.target(subject)),
            (Way::Https, https.target(subject)),
        ];
        let connect =
            |target: &Target| lab.device.inside(|| Callers::connect(target, IN_FLIGHT))?;
        let mut callers = Vec::new();
        for (way, target) in &targets {
            callers.push((*way, connect(target)?));
        }
        if lab.set_tcp(TCP) && lab.set_tcp("bbr") {
            callers.push((Way::GrpcBbr, connect(&grpc.target(subject))?));
            lab.set_tcp(TCP); // as before
        }
        Ok(Self { callers, agents: [quic, tcp] })
    }

    /// Answers that the agents gave themselves, because the cloud's did not come.
    pub(super) fn degraded(&self, lab: &Lab) -> anyhow::Result<u64> {
        self.agents.iter().map(|agent| degraded(lab, agent)).sum()
    }

    /// All ways in turn, round by round.
    pub(super) fn measure(
        &mut self,
        rounds: usize,
        time: Duration,
    ) -> anyhow::Result<Vec<(Way, Rounds)>> {
        let mut measured: Vec<(Way, Rounds)> =
            self.callers.iter().map(|(way, _)| (*way, Rounds::new())).collect();
        for (_, callers) in &mut self.callers {
            callers.call_for(time / 4, IN_FLIGHT)?; // the congestion windows get to know the link
        }
        for _ in 0..rounds {
            for ((_, rounds), (_, callers)) in measured.iter_mut().zip(&mut self.callers) {
                rounds.push(callers.call_for(time, IN_FLIGHT)?);
            }
        }
        Ok(measured)
    }
}
