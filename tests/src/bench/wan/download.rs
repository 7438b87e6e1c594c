//! Deferrals alone, and beside a download by the same device: on one connection over QUIC, where the
//! stream of the download steps back; over the fallback with a second connection, as the agent has it,
//! and on one, which is what that is for.

use super::{IN_FLIGHT, Rounds, p99_ms};
use crate::bench::beside::subjects::Subject;
use crate::bench::{Goal, Row, rounded};
use crate::callers::Device;
use crate::lab::Lab;
use crate::statistics::percentile_ms;
use crate::world::{Agent, World};
use anyhow::Context;
use link::frames;
use protocol::carrier::Wanted;
use protocol::id::{ContentHash, Version};
use protocol::infer::{InferRequest, PlacementHint};
use protocol::wire::{BlobHeader, BlobRequest};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const PIECE_BYTES: usize = 64 << 10;
const DEADLINE_MS: u32 = 60_000;
/// The goal of the issue.
const RISE_MAX: f64 = 1.1;

/// Three ways to do both.
#[derive(Clone, Copy)]
enum Beside {
    Quic,
    TcpOfItsOwn,
    SameTcp,
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Quic => "QUIC, one connection",
            Self::TcpOfItsOwn => "fallback, a second connection",
            Self::SameTcp => "fallback, were it one connection",
        }
    }
}

/// What devices do here.
struct Work {
    runtime: Runtime,
    request: Arc<InferRequest>,
    blob: ContentHash,
}

pub(super) fn measure(
    lab: &Lab,
    world: &World,
    subjects: &[Subject; 2],
    rounds: usize,
    time: Duration,
) -> anyhow::Result<(Vec<Row>, Vec<Goal>)> {
    let folder = world.folder().join("downloader");
    let cloud = world.cloud.address();
    let token = lab.cloud.inside(|| world.token())??;
    lab.device.inside(|| Agent::enrol(&folder, &cloud, &token))??;
    let work = Work {
        runtime: lab.device.runtime(2)?,
        request: Arc::new(request(&subjects[0])),
        blob: lab.cloud.inside(|| assigned(world, &subjects[1], &folder))??,
    };
    let connect = |wanted| {
        let (folder, cloud) = (folder.clone(), cloud.clone());
        let connecting = async move { Device::connect(wanted, &folder, &cloud).await };
        work.runtime.block_on(work.runtime.spawn(connecting))?
    };
    let quic = connect(Wanted::Quic)?;
    let (tcp, bulk) = (connect(Wanted::Tcp)?, connect(Wanted::Tcp)?);
    let ways = [
        (Beside::Quic, &quic, &quic),
        (Beside::TcpOfItsOwn, &tcp, &bulk),
        (Beside::SameTcp, &tcp, &tcp),
    ];
    let (mut rows, mut goals) = (Vec::new(), Vec::new());
    for (way, device, downloader) in ways {
        let (row, rise) = work.compare(way, device, downloader, rounds, time)?;
        rows.push(row);
        if matches!(way, Beside::Quic) {
            goals.push(Goal::at_most("p99 beside a download, over p99 without", RISE_MAX, rise));
        }
    }
    Ok((rows, goals))
}

fn request(subject: &Subject) -> InferRequest {
    InferRequest {
        model: subject.model.parse().expect("a name"),
        version: None,
        id: String::new(),
        inputs: vec![subject.input.clone()],
        outputs: vec![],
        deadline_ms: None,
        priority: 0,
        hint: PlacementHint::Cloud,
        sequence: None,
    }
}

/// Lets this device have a large model, and nobody else; its largest file.
fn assigned(
    world: &World,
    subject: &Subject,
    device: &std::path::Path,
) -> anyhow::Result<ContentHash> {
    let folder = subject.onnx.parent().context("a folder")?;
    world.operator.run(&["model", "push", &folder.to_string_lossy()])?;
    let enrolment: serde_json::Value =
        serde_json::from_slice(&std::fs::read(device.join("enrolment.json"))?)?;
    let id = enrolment["device"].as_str().context("no device")?;
    world.operator.run(&["model", "assign", subject.model, "--device", id])?;
    Ok(ContentHash::of(&std::fs::read(&subject.onnx)?))
}

impl Work {
    fn compare(
        &self,
        way: Beside,
        device: &Device,
        downloader: &Device,
        rounds: usize,
        time: Duration,
    ) -> anyhow::Result<(Row, f64)> {
        let (mut alone, mut beside) = (Rounds::new(), Rounds::new());
        let loaded = Arc::new(AtomicU64::new(0));
        self.ask_for(device, time / 4)?;
        for _ in 0..rounds {
            alone.push(self.ask_for(device, time)?);
            let loading = download(downloader.clone(), self.blob, loaded.clone());
            let loading = self.runtime.spawn(loading);
            let asked = self.ask_for(device, time);
            let failed = loading.is_finished();
            loading.abort();
            beside.push(asked?);
            anyhow::ensure!(!failed, "the download failed");
        }
        let rise = p99_ms(&beside) / p99_ms(&alone);
        let all: Vec<Duration> = beside.iter().flatten().copied().collect();
        let seconds = time.as_secs_f64() * rounds as f64;
        let row = Row(vec![
            ("beside a download", json!(way.name())),
            ("p50_ms", json!(rounded(percentile_ms(&all, 50.0)))),
            ("p99_ms", json!(rounded(p99_ms(&beside)))),
            ("p99_alone_ms", json!(rounded(p99_ms(&alone)))),
            ("download_mb_per_s", json!(rounded(loaded.load(Relaxed) as f64 / 1e6 / seconds))),
        ]);
        Ok((row, rise))
    }

    /// Keeps so many deferrals under way for so long.
    fn ask_for(&self, device: &Device, time: Duration) -> anyhow::Result<Vec<Duration>> {
        let (device, request) = (device.clone(), self.request.clone());
        let asking = async move {
            let end = Instant::now() + time;
            let mut callers = JoinSet::new();
            for _ in 0..IN_FLIGHT {
                let (device, request) = (device.clone(), request.clone());
                callers.spawn(async move {
                    let mut took = Vec::new();
                    while Instant::now() < end {
                        let began = Instant::now();
                        let said = device.ask(&request, Version::FIRST, DEADLINE_MS).await?;
                        said.map_err(|problem| anyhow::anyhow!("{problem}"))?;
                        took.push(began.elapsed());
                    }
                    anyhow::Ok(took)
                });
            }
            let mut all = Vec::new();
            while let Some(caller) = callers.join_next().await {
                all.extend(caller??);
            }
            anyhow::Ok(all)
        };
        self.runtime.block_on(self.runtime.spawn(asking))?
    }
}

/// Downloads the same file again and again.
async fn download(device: Device, blob: ContentHash, loaded: Arc<AtomicU64>) -> anyhow::Result<()> {
    loop {
        let (mut send, mut receive) = device.connection().open_bi().await?;
        let ask = BlobRequest { sha256: blob.to_string(), ..Default::default() };
        frames::send_last(&mut send, &ask, []).await?;
        let _: BlobHeader = frames::receive(&mut receive).await?;
        while let Some(piece) = receive.read_chunk(PIECE_BYTES).await? {
            loaded.fetch_add(piece.len() as u64, Relaxed);
        }
    }
}
