//! The same for the cloud's data folder: what the operator or a device was told is done, is done.

use super::Report;
use super::disk::{Disk, Room, write_sparse};
use super::judge::Verdict;
use crate::world::{Agent, AgentOptions, Cloud, Operator, Process, fashion, model_status};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest that the cloud runs between two points, in microseconds.
const STEP_MAX_US: u16 = 20_000;

/// What had been acknowledged when the power went.
#[derive(Debug, Clone, Default)]
struct Facts {
    /// Devices that got their certificate.
    devices: usize,
    /// The newest version that was pushed, of both variants.
    pushed: u64,
    /// The version that was assigned.
    assigned: u64,
    /// A token that nobody used yet.
    token: Option<PathBuf>,
}

struct Point {
    image: PathBuf,
    facts: Facts,
}

struct Life<'a> {
    room: &'a Room,
    disk: Disk,
    cloud: Cloud,
    operator: Operator,
    points: Vec<Point>,
    facts: Facts,
}

pub(super) fn live(room: &Room, rounds: u64, report: &mut Report) -> anyhow::Result<()> {
    let disk = room.disk("cloud-disk")?;
    let cloud = Cloud::start(&disk.folder().join("cloud"))?;
    let operator = Operator::new(&room.path("operator"));
    operator.login(&cloud)?;
    let (points, facts) = (Vec::new(), Facts::default());
    let mut life = Life { room, disk, cloud, operator, points, facts };
    for round in 1..=rounds {
        life.round(round)?;
    }
    let points = std::mem::take(&mut life.points);
    drop(life);
    let judged = points.into_iter().enumerate().map(|(index, point)| {
        let verdict = judge(room, index, &point);
        let _ = std::fs::remove_file(&point.image); // only memory
        verdict
    });
    report.add("the cloud is told things", judged.collect());
    Ok(())
}

impl Life<'_> {
    fn round(&mut self, round: u64) -> anyhow::Result<()> {
        let token = self.room.path(&format!("cloud-token-{round}"));
        let told = token.to_string_lossy().into_owned();
        self.during(|operator| operator.run(&["device", "token", "-o", &told]).map(drop))?;
        self.facts.token = Some(token.clone());
        self.point()?;

        let (state_dir, address) =
            (self.room.path(&format!("device-{round}")), self.cloud.address());
        self.facts.token = None;
        self.during(|_| Agent::enrol(&state_dir, &address, &token))?;
        self.facts.devices += 1;
        self.point()?;

        let folder = fashion().to_string_lossy().into_owned();
        self.during(|operator| operator.run(&["model", "push", &folder]).map(drop))?;
        self.facts.pushed = round;
        self.point()?;

        self.during(|o| o.run(&["model", "assign", "fashion", "--all"]).map(drop))?;
        self.facts.assigned = round;
        self.point()
    }

    /// Points while somebody else tells the cloud something.
    fn during(
        &mut self,
        told: impl FnOnce(&Operator) -> anyhow::Result<()> + Send,
    ) -> anyhow::Result<()> {
        let Self { room, disk, cloud, operator, points, facts } = self;
        let process = cloud.process().context("no cloud")?;
        std::thread::scope(|scope| {
            let telling = scope.spawn(|| told(operator));
            while !telling.is_finished() {
                let moment_us = u16::from_le_bytes(link::entropy()) % STEP_MAX_US;
                std::thread::sleep(Duration::from_micros(moment_us.into()));
                take(room, disk, process, points, facts)?;
            }
            telling.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")))
        })
    }

    /// A point after something was acknowledged.
    fn point(&mut self) -> anyhow::Result<()> {
        let process = self.cloud.process().context("no cloud")?;
        take(self.room, &self.disk, process, &mut self.points, &self.facts)
    }
}

fn take(
    room: &Room,
    disk: &Disk,
    process: &Process,
    points: &mut Vec<Point>,
    facts: &Facts,
) -> anyhow::Result<()> {
    let image = room.path(&format!("cloud-point-{}.img", points.len()));
    process.pause()?;
    let copied = disk.copy();
    process.resume()?;
    write_sparse(&copied?, &image)?;
    points.push(Point { image, facts: facts.clone() });
    Ok(())
}

fn judge(room: &Room, index: usize, point: &Point) -> Verdict {
    let mut verdict = Verdict { acknowledged: point.facts.assigned, ..Verdict::default() };
    if let Err(error) = judge_into(room, index, point, &mut verdict) {
        verdict.failures.push(format!("the cloud, point {index}: {error:#}"));
    }
    verdict
}

fn judge_into(
    room: &Room,
    index: usize,
    point: &Point,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let Facts { devices, pushed, assigned, token } = &point.facts;
    let mount = room.mount_after_cut(&point.image)?;
    let cloud = Cloud::start(&mount.folder().join("cloud"))?;
    verdict.started = true;
    let operator = Operator::new(&room.path(&format!("judge-{index}")));
    operator.login(&cloud)?;
    let known = operator.json(&["device", "list"])?.as_array().map_or(0, Vec::len);
    ensure!(known >= *devices, "{known} of {devices} devices are known");
    let listed = operator.json(&["model", "list"])?;
    let version = |bundle: &serde_json::Value| bundle["version"].as_u64();
    let kept = listed.as_array().into_iter().flatten().filter(|b| version(b) == Some(*pushed));
    let kept = kept.count();
    ensure!(*pushed == 0 || kept == 2, "{kept} variants of version {pushed} are kept: {listed}");
    let token = match token {
        Some(token) => token.clone(),
        None => fresh_token(room, index, &operator)?,
    };
    verdict.served = serve(room, index, &cloud, &token, *assigned)?;
    Ok(())
}

fn fresh_token(room: &Room, index: usize, operator: &Operator) -> anyhow::Result<PathBuf> {
    let token = room.path(&format!("judge-token-{index}"));
    operator.run(&["device", "token", "-o", &token.to_string_lossy()])?;
    Ok(token)
}

/// A new device gets what was assigned, so that every blob of it is there and whole.
fn serve(
    room: &Room,
    index: usize,
    cloud: &Cloud,
    token: &Path,
    assigned: u64,
) -> anyhow::Result<u64> {
    let state_dir = room.path(&format!("judge-device-{index}"));
    Agent::enrol(&state_dir, &cloud.address(), token).context("an acknowledged token")?;
    if assigned == 0 {
        return Ok(0);
    }
    let agent = Agent::start(&state_dir, &AgentOptions::default())?;
    let active =
        |status: &serde_json::Value| model_status(status, "fashion")["active_version"].as_u64();
    let status = agent.wait_until("the assigned version", |s| active(s) >= Some(assigned))?;
    agent.stop()?;
    Ok(active(&status).unwrap_or(0))
}
