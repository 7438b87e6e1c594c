//! What the agent does while the power is cut: it enrols, installs version after version, renews its
//! certificate, and leaves the fleet.

use super::disk::{Disk, Room, write_sparse};
use super::judge::{Point, Promise, judge};
use super::{Effort, Report};
use crate::http::HttpClient;
use crate::world::{Agent, AgentOptions, Process, World, fashion, model_status, program};
use anyhow::{Context, ensure};
use link::pki::{DeviceCertificate, chain_from_pem};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// More points than any stage has; one that goes on for longer is stuck.
const POINTS_MAX: usize = 2000;
/// The longest that a short command runs between two points.
const COMMAND_STEP_MAX_US: u16 = 1500;
/// Slow enough that a download has a middle.
const CONFIG: &str = "[link]\ndownload_bytes_per_s = 500000\nreconnect_max_s = 1\n";

struct Life<'a> {
    room: &'a Room,
    disk: Disk,
    world: World,
    step_max_us: u16,
    points: Vec<Point>,
    promise: Promise,
}

/// Lives, and has every point judged.
pub(super) fn live(room: &Room, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let world = World::start()?;
    let promise = Promise { enrolled: None, version: 0, not_after_s: 0, token: PathBuf::new() };
    let (disk, step_max_us) = (room.disk("disk")?, effort.step_max_us);
    let mut life = Life { room, disk, world, step_max_us, points: Vec::new(), promise };
    for _ in 0..effort.enrolments {
        life.enrol()?;
    }
    report.add("enrols", life.judged("enrols"));
    let agent = life.start()?;
    for version in 1..=effort.versions {
        life.install(&agent, version)?;
    }
    report.add("installs versions", life.judged("installs versions"));
    agent.stop()?;
    for _ in 0..effort.renewals {
        life.renew()?;
    }
    report.add("renews", life.judged("renews"));
    for _ in 0..effort.departures {
        life.unenrol()?;
    }
    report.add("leaves the fleet", life.judged("leaves the fleet"));
    Ok(())
}

impl Life<'_> {
    fn state_dir(&self) -> PathBuf {
        self.disk.folder().join("device")
    }

    fn judged(&mut self, stage: &str) -> Vec<super::Verdict> {
        let points = std::mem::take(&mut self.points);
        let judged = |point: Point| {
            let verdict = judge(self.room, &self.world, stage, &point);
            let _ = std::fs::remove_file(&point.image); // only memory
            verdict
        };
        points.into_iter().map(judged).collect()
    }

    /// A point now. Whoever writes must stand still.
    fn point(&mut self) -> anyhow::Result<()> {
        ensure!(self.points.len() < POINTS_MAX, "{POINTS_MAX} points, and no end");
        let image = self.room.path(&format!("point-{}.img", self.points.len()));
        write_sparse(&self.disk.copy()?, &image)?;
        self.points.push(Point { image, promise: self.promise.clone() });
        Ok(())
    }

    /// Lets a program run for a moment, and has it stand still at a point.
    fn step(&mut self, process: &Process, max_us: u16) -> anyhow::Result<()> {
        let moment_us = u16::from_le_bytes(link::entropy()) % max_us;
        std::thread::sleep(Duration::from_micros(moment_us.into()));
        process.pause()?;
        let point = self.point();
        process.resume()?;
        point
    }

    /// Runs a command to its end, with points on its way.
    fn command(&mut self, mut command: Command) -> anyhow::Result<()> {
        command.arg("--state-dir").arg(self.state_dir());
        let mut process = Process::start(command, &self.room.path("command.log"))?;
        let status = loop {
            if let Some(status) = process.ended()? {
                break status;
            }
            self.step(&process, COMMAND_STEP_MAX_US)?;
        };
        ensure!(status.success(), "{status}: {}", process.output());
        Ok(())
    }

    fn enrol(&mut self) -> anyhow::Result<()> {
        if self.state_dir().exists() {
            std::fs::remove_dir_all(self.state_dir())?;
            self.disk.sync()?;
        }
        let token = self.world.token()?;
        self.promise = Promise { enrolled: None, version: 0, not_after_s: 0, token };
        let mut command = Command::new(program("outrigger-agent")?);
        command.args(["enrol", "--cloud", &self.world.cloud.address(), "--token-file"]);
        command.arg(&self.promise.token);
        self.command(command)?;
        self.promise.enrolled = Some(true);
        self.point()
    }

    fn start(&self) -> anyhow::Result<Agent> {
        Agent::start(&self.state_dir(), &AgentOptions { config: CONFIG.into() })
    }

    fn install(&mut self, agent: &Agent, version: u64) -> anyhow::Result<()> {
        let operator = &self.world.operator;
        operator.run(&["model", "push", &fashion().to_string_lossy()])?;
        operator.run(&["model", "assign", "fashion", "--all"])?;
        let max_us = self.step_max_us;
        self.step_until(agent.process(), max_us, |life| {
            let status = agent.status()?;
            let active = model_status(&status, "fashion")["active_version"].as_u64();
            life.promise.version = active.unwrap_or(life.promise.version);
            Ok(life.promise.version >= version)
        })
    }

    /// From the first system call of the agent's start to the renewed certificate.
    fn renew(&mut self) -> anyhow::Result<()> {
        self.world.age_certificate(&self.state_dir(), 30)?;
        let listening = self.state_dir().join("listening");
        let _ = std::fs::remove_file(&listening);
        self.disk.sync()?;
        self.promise.not_after_s = 0;
        let mut command = Command::new(program("outrigger-agent")?);
        command.args(["run", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
        command.args(["--metrics", "127.0.0.1:0", "--state-dir"]).arg(self.state_dir());
        let process = Process::start(command, &self.room.path("agent.log"))?;
        let max_us = self.step_max_us;
        self.step_until(&process, max_us, |life| {
            let renewed = status(&listening)
                .is_some_and(|status| status["counters"]["link"]["renewals"] == 1);
            if renewed {
                life.promise.not_after_s = end_of_certificate(&life.state_dir())?;
            }
            Ok(renewed)
        })?;
        process.stop()?;
        Ok(())
    }

    /// Points until `done`, and one after it: it was said, so it must be kept.
    fn step_until(
        &mut self,
        process: &Process,
        max_us: u16,
        mut done: impl FnMut(&mut Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(120);
        while !done(self)? {
            ensure!(Instant::now() < end, "not done; {}", process.output());
            self.step(process, max_us)?;
        }
        self.step(process, max_us)
    }

    fn unenrol(&mut self) -> anyhow::Result<()> {
        if self.promise.enrolled == Some(false) {
            let token = self.world.token()?;
            Agent::enrol(&self.state_dir(), &self.world.cloud.address(), &token)?;
            self.disk.sync()?;
        }
        self.promise.enrolled = None;
        self.promise.token = PathBuf::new();
        let mut command = Command::new(program("outrigger-agent")?);
        command.args(["unenrol", "--yes"]);
        self.command(command)?;
        self.promise.enrolled = Some(false);
        self.point()
    }
}

/// What the agent says of itself, once it does.
fn status(listening: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(listening).ok()?;
    let address = text.lines().next()?.strip_prefix("http://")?.parse().ok()?;
    HttpClient::connect(address).ok()?.get("/outrigger/status").ok()?.json().ok()
}

fn end_of_certificate(state_dir: &Path) -> anyhow::Result<i64> {
    let chain = chain_from_pem(&std::fs::read(state_dir.join("device.pem"))?)?;
    Ok(DeviceCertificate::parse(chain.first().context("an empty chain")?)?.not_after_s)
}
