//! One caller: local calls over HTTP and deferrals over QUIC, beside the same models called in this
//! process. Rounds alternate, medians over rounds are reported.

use super::super::{Goal, Row, rounded};
use super::Part;
use crate::fashion::{Images, ask};
use crate::http::HttpClient;
use crate::statistics::{median, percentile_ms};
use crate::world::{self, Agent, CpuMeter, World};
use anyhow::{Context, ensure};
use models::backend::{Backend, Session, SessionOptions};
use models::ort_backend::{OrtBackend, find_library};
use protocol::tensor::Tensor;
use serde_json::json;
use std::time::{Duration, Instant};

/// One way to get an answer, over all rounds.
#[derive(Default)]
struct Way {
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

impl Way {
    fn add(&mut self, round: &Round) {
        self.p50_ms.push(percentile_ms(&round.latencies, 50.0));
        self.p99_ms.push(percentile_ms(&round.latencies, 99.0));
        self.cpu_ms.push(round.cpu_s * 1000.0 / round.latencies.len() as f64);
    }

    fn p50(&self) -> f64 {
        median(&self.p50_ms)
    }

    fn row(&self, name: &str, yardstick: Option<&Way>) -> Row {
        let added = yardstick.map(|y| rounded(self.p50() - y.p50()));
        Row(vec![
            ("way", json!(name)),
            ("p50_ms", json!(rounded(self.p50()))),
            ("p99_ms", json!(rounded(median(&self.p99_ms)))),
            ("added_p50_ms", json!(added)),
            ("cpu_ms_per_call", json!(rounded(median(&self.cpu_ms)))),
        ])
    }
}

/// The calls of one round.
struct Round {
    latencies: Vec<Duration>,
    cpu_s: f64,
}

/// Measures.
pub(super) fn measure(world: &World, agent: &Agent, short: bool) -> anyhow::Result<Part> {
    let (rounds, calls) = if short { (5, 400) } else { (15, 1000) };
    let images = Images::test()?;
    let mut client = agent.client()?;
    let mut sessions = Sessions::load()?;

    let [mut raw_edge, mut local, mut raw_cloud, mut deferral] = <[Way; 4]>::default();
    let warm_up = 50;
    for round in 0..=rounds {
        let calls = if round == 0 { warm_up } else { calls };
        let measured = [
            sessions.edge(&images, calls)?,
            calls_through(&mut client, &images, calls, agent, None, "edge")?,
            sessions.cloud(&images, calls)?,
            calls_through(&mut client, &images, calls, agent, Some(world), "cloud")?,
        ];
        if round > 0 {
            let ways = [&mut raw_edge, &mut local, &mut raw_cloud, &mut deferral];
            ways.into_iter().zip(&measured).for_each(|(way, round)| way.add(round));
        }
    }
    let pss_mb = agent.process().pss_kb()? as f64 / 1000.0;
    Ok(Part {
        rows: vec![
            raw_edge.row("edge model, in this process", None),
            local.row("edge model, through the agent", Some(&raw_edge)),
            raw_cloud.row("cloud model, in this process", None),
            deferral.row("cloud model, deferred by the agent", Some(&raw_cloud)),
        ],
        goals: vec![
            Goal::at_most("local call, added p50 (ms)", 0.30, local.p50() - raw_edge.p50()),
            Goal::at_most("local call, p50 (ms)", 0.25, local.p50()),
            Goal::at_most("deferral, added p50 (ms)", 1.0, deferral.p50() - raw_cloud.p50()),
            Goal::at_most("agent with the edge model, PSS (MB)", 45.0, pss_mb),
        ],
    })
}

/// The same models, called directly.
struct Sessions {
    edge: Box<dyn Session>,
    cloud: Box<dyn Session>,
}

impl Sessions {
    fn load() -> anyhow::Result<Self> {
        let backend = OrtBackend::open(&find_library(None)?)?;
        let options = SessionOptions::default();
        let load = |name: &str| backend.load(&world::fashion().join(name), &options);
        Ok(Self { edge: load("edge.onnx")?, cloud: load("cloud.onnx")? })
    }

    fn edge(&mut self, images: &Images, calls: usize) -> anyhow::Result<Round> {
        calls_in_process(self.edge.as_mut(), images, calls)
    }

    fn cloud(&mut self, images: &Images, calls: usize) -> anyhow::Result<Round> {
        calls_in_process(self.cloud.as_mut(), images, calls)
    }
}

fn calls_in_process(
    session: &mut dyn Session,
    images: &Images,
    calls: usize,
) -> anyhow::Result<Round> {
    let cpu = CpuMeter::start(&[std::process::id()])?;
    let mut latencies = Vec::with_capacity(calls);
    for call in 0..calls {
        let pixels = images.pixels(call % images.len());
        let values: Vec<f32> = pixels.iter().map(|p| f32::from(*p) / 255.0).collect();
        let started = Instant::now();
        let input = Tensor::from_f32("image", vec![1, 1, 28, 28], &values)?;
        let outputs = session.run(&[input], &[])?;
        latencies.push(started.elapsed());
        ensure!(outputs.len() == 1, "one output");
    }
    Ok(Round { latencies, cpu_s: cpu.seconds()? })
}

fn calls_through(
    client: &mut HttpClient,
    images: &Images,
    calls: usize,
    agent: &Agent,
    world: Option<&World>,
    placement: &str,
) -> anyhow::Result<Round> {
    let cloud = world.and_then(|w| w.cloud.process()).map(world::Process::id);
    let ids: Vec<u32> = [agent.process().id()].into_iter().chain(cloud).collect();
    let parameters = json!({ "placement": placement });
    let cpu = CpuMeter::start(&ids)?;
    let mut latencies = Vec::with_capacity(calls);
    for call in 0..calls {
        let started = Instant::now();
        let response = ask(client, images.pixels(call % images.len()), &parameters)?;
        latencies.push(started.elapsed());
        let (body, _) = response.split()?;
        let came_from = body["parameters"]["placement"].as_str().context("no placement")?;
        ensure!(came_from == placement, "asked for {placement}, got {body}");
    }
    Ok(Round { latencies, cpu_s: cpu.seconds()? })
}
