//! Versions take over, good ones and bad ones: through the candidate's slot, the shadow and the trial, and
//! back. At whatever point the power goes, the agent starts with a version that was verified and is not
//! known to be bad, and that version answers as it should.

use super::disk::{Disk, Room, write_sparse};
use super::judge::{Verdict, go_offline, leftovers};
use super::{Effort, Report};
use crate::bad::ask_http;
use crate::hostile::versions;
use crate::world::{Agent, AgentOptions, Edge, Publisher, World, model_status};
use anyhow::{Context, ensure};
use protocol::tensor::Tensor;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MODEL: &str = "negates";
const PROBES: [([f32; 3], [f32; 3]); 2] =
    [([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]), ([0.0, -5.0, 9.0], [0.0, 5.0, -9.0])];
/// Few requests decide, and nothing is over by itself.
const CONFIG: &str = "[link]\nreconnect_max_s = 1\n[update]\nshadow_requests = 8\n\
                      shadow_quiet_s = 600\nshadow_cpu = 1.0\ntrial_requests = 8\n";
/// What a good version takes; every version answers it alike.
const HARMLESS: f32 = 7.0;
/// One for each fate.
const VERSIONS_MIN: u64 = 3;
/// The longest for one version.
const PATIENCE: Duration = Duration::from_secs(120);

/// What becomes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Holds,
    /// It answers large numbers differently, which the shadow shows.
    FailsInItsShadow,
    /// Small numbers are NaN to it, which nobody asks before its trial.
    FailsInItsTrial,
}

impl Fate {
    fn of(version: u64) -> Self {
        match version % 3 {
            1 => Self::Holds,
            2 => Self::FailsInItsTrial,
            _ => Self::FailsInItsShadow,
        }
    }

    fn onnx(self, version: u64) -> Vec<u8> {
        match self {
            Self::Holds => versions::negates(1.0 + version as f32 * 1e-6),
            Self::FailsInItsShadow => versions::forgets_large_numbers(10.0 + version as f32),
            Self::FailsInItsTrial => versions::loses_small_numbers(50.0 + version as f32),
        }
    }

    /// What is asked while the agent stands so.
    fn question(self, on_trial: bool) -> f32 {
        match self {
            Self::FailsInItsShadow => 1e6,
            Self::FailsInItsTrial if on_trial => -1e6,
            _ => HARMLESS,
        }
    }
}

/// What may answer after a power cut.
#[derive(Debug, Clone, Default)]
struct Promise {
    versions: BTreeSet<u64>,
}

struct Point {
    image: PathBuf,
    promise: Promise,
}

struct Life<'a> {
    room: &'a Room,
    disk: Disk,
    world: World,
    agent: Agent,
    effort: Effort,
    /// The last version that has passed its trial.
    trusted: Option<u64>,
    points: Vec<Point>,
}

/// Lives, and has every point judged.
pub(super) fn live(room: &Room, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let world = World::start()?;
    let disk = room.disk("updates-disk")?;
    let state_dir = disk.folder().join("device");
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token()?)?;
    let agent = Agent::start(&state_dir, &options())?;
    let points = Vec::new();
    let mut life = Life { room, disk, world, agent, effort, trusted: None, points };
    let mut verdicts = Vec::new();
    for version in 1.. {
        life.update(version).with_context(|| format!("version {version}"))?;
        verdicts.extend(life.judged(effort.recovery_max));
        if version >= VERSIONS_MIN && verdicts.len() >= effort.update_points {
            break;
        }
    }
    report.add("changes versions", verdicts);
    Ok(())
}

fn options() -> AgentOptions {
    AgentOptions { config: CONFIG.into() }
}

impl Life<'_> {
    /// From the wish to the end of a version, whichever that is.
    fn update(&mut self, version: u64) -> anyhow::Result<()> {
        let fate = Fate::of(version);
        let edge = Edge { model: MODEL, version, onnx: fate.onnx(version), probes: &PROBES };
        Publisher::with_keys_of(&self.world.operator)?.publish(&edge)?;
        let name = format!("{MODEL}@{version}");
        self.world.operator.run(&["model", "assign", &name, "--all"])?;
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.agent.status()?;
            let model = model_status(&status, MODEL);
            let (done, on_trial) = (is_over(model, version, fate)?, model["phase"] == "trial");
            self.promise(model, version, done);
            self.step()?;
            if done {
                return Ok(());
            }
            ensure!(Instant::now() < end, "not over: {status:#}");
            if model["active_version"].is_u64() {
                let answering = on_trial && model["active_version"] == version;
                for _ in 0..self.effort.questions {
                    ask(&self.agent, fate.question(answering))?;
                }
            }
        }
    }

    /// What may answer from now on until the next look.
    fn promise(&mut self, model: &Value, version: u64, done: bool) {
        let active = model["active_version"].as_u64();
        if model["phase"] == "soak" {
            self.trusted = active;
        }
        let mut versions: BTreeSet<u64> = active.into_iter().chain(self.trusted).collect();
        if !done {
            versions.insert(version);
        }
        if active.is_none() {
            versions.insert(0); // none was said to be active yet
        }
        self.points.push(Point { image: PathBuf::new(), promise: Promise { versions } });
    }

    /// Lets the agent run for a moment, and copies its disk.
    fn step(&mut self) -> anyhow::Result<()> {
        let moment_us = u16::from_le_bytes(link::entropy()) % self.effort.step_max_us;
        std::thread::sleep(Duration::from_micros(moment_us.into()));
        let process = self.agent.process();
        process.pause()?;
        let copied = self.disk.copy();
        process.resume()?;
        let image = self.room.path(&format!("update-{}.img", self.points.len()));
        write_sparse(&copied?, &image)?;
        self.points.last_mut().context("no promise")?.image = image;
        Ok(())
    }

    fn judged(&mut self, recovery_max: Option<Duration>) -> Vec<Verdict> {
        let points = std::mem::take(&mut self.points);
        let judged = |point: Point| {
            let mut verdict = Verdict::default();
            if let Err(error) = judge(self.room, &point, recovery_max, &mut verdict) {
                let name = point.image.file_stem().unwrap_or_default().to_string_lossy();
                verdict.failures.push(format!("{name}: {error:#}; {:?}", point.promise));
            }
            let _ = std::fs::remove_file(&point.image); // only memory
            verdict
        };
        points.into_iter().map(judged).collect()
    }
}

/// Whether the version has come to where it should, and nowhere else.
fn is_over(model: &Value, version: u64, fate: Fate) -> anyhow::Result<bool> {
    let refused = model["target_version"] == version && model["phase"] == "refused";
    let holds = model["active_version"] == version && model["phase"] == "soak";
    ensure!(!refused || fate != Fate::Holds, "a good version is refused: {model}");
    ensure!(!holds || fate == Fate::Holds, "a bad version holds: {model}");
    Ok(refused || holds)
}

/// Asks once; the version that answered, and the first number of its answer.
fn ask(agent: &Agent, x: f32) -> anyhow::Result<(u64, f32)> {
    let input = Tensor::from_f32("x", vec![1, 3], &[x, 0.0, 0.0])?;
    // JSON cannot carry NaN.
    let parameters = json!({ "timeout": 5_000_000, "binary_data_output": true });
    let response = ask_http(agent, MODEL, &[input], &parameters)?;
    ensure!(response.status == 200, "{}", String::from_utf8_lossy(&response.body));
    let (body, raw) = response.split()?;
    let version = body["model_version"].as_str().context("no version")?.parse()?;
    let number = raw.first_chunk().context("no number")?;
    Ok((version, f32::from_le_bytes(*number)))
}

fn judge(
    room: &Room,
    point: &Point,
    recovery_max: Option<Duration>,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let mount = room.mount_after_cut(&point.image)?;
    let state_dir = mount.folder().join("device");
    verdict.enrolled = state_dir.join("enrolment.json").exists();
    go_offline(&state_dir)?;
    let left_before = leftovers(&state_dir)?;
    serve(&state_dir, point, recovery_max, verdict)?;
    let left = leftovers(&state_dir)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    verdict.swept = left_before.len();
    Ok(())
}

fn serve(
    state_dir: &Path,
    point: &Point,
    recovery_max: Option<Duration>,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let versions = &point.promise.versions;
    let start = Instant::now();
    let agent = Agent::start(state_dir, &options())?;
    verdict.started = true;
    let status = agent.status()?;
    if model_status(&status, MODEL)["active_version"].is_u64() {
        let (version, answer) = ask(&agent, HARMLESS)?;
        verdict.recovery = Some(start.elapsed());
        verdict.served = version;
        ensure!((answer + HARMLESS).abs() < 0.01, "{version} answers {answer}");
    }
    agent.stop()?;
    let served = verdict.served;
    ensure!(versions.contains(&served), "{served} answers: {status:#}");
    verdict.acknowledged = versions.iter().next().copied().unwrap_or(0);
    let late = verdict.recovery.filter(|took| recovery_max.is_some_and(|limit| *took > limit));
    ensure!(late.is_none(), "its first answer took {late:?}");
    Ok(())
}
