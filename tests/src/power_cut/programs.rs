//! The agent's own program is replaced, by good ones and by ones that reach no cloud. At whatever point the power
//! goes, the installed program begins, and one runs that was verified and is not known to be bad: it answers.

use super::disk::{Disk, Room, write_sparse};
use super::judge::{Verdict, go_offline, leftovers};
use super::{Effort, Report};
use crate::fashion::{Images, ask};
use crate::http::HttpClient;
use crate::programs::NextProgram;
use crate::world::{Agent, AgentOptions, World, eventually};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A program has so long to reach the cloud, and has taken over then.
const CONFIG: &str = "[link]\nreconnect_max_s = 1\n[download]\ndeltas = false\n[update]\n\
                      program_patience_s = 3\nprogram_soak_s = 0\nshadow_quiet_s = 1\n";
/// Beside the programs: database, models, room for the file system itself.
const BESIDE_MIB: u64 = 48;
/// The longest for one program.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longest to the first answer of a copy; what reaches no cloud gives way meanwhile.
const ANSWER: Duration = Duration::from_secs(30);

struct Point {
    image: PathBuf,
    versions: BTreeSet<String>,
}

struct Life<'a> {
    room: &'a Room,
    disk: Disk,
    world: World,
    agent: Agent,
    step_max: Duration,
    /// What has taken over.
    settled: String,
    points: Vec<Point>,
}

/// Lives, and has every point judged.
pub(super) fn live(room: &Room, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let world = World::start()?;
    world.ship_fashion()?;
    let size = NextProgram::version("0.1.1")?.bytes().len() as u64;
    // Two that are kept, one that comes, and one that is written where another is removed.
    let mib = BESIDE_MIB + 4 * (size >> 20).max(1);
    let disk = room.disk_of("programs-disk", u32::try_from(mib)?)?;
    let state_dir = disk.folder().join("device");
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token()?)?;
    let agent = Agent::start(&state_dir, &options())?;
    agent.wait_active("fashion", 1)?;
    let (settled, points) = (env!("CARGO_PKG_VERSION").to_owned(), Vec::new());
    let step_max = effort.program_step_max;
    let mut life = Life { room, disk, world, agent, step_max, settled, points };
    let mut verdicts = Vec::new();
    for round in 1.. {
        let version = format!("0.1.{round}");
        life.update(&version, round % 2 == 1).with_context(|| format!("program {version}"))?;
        verdicts.extend(life.judged());
        if verdicts.len() >= effort.program_points {
            break;
        }
    }
    report.add("changes its program", verdicts);
    Ok(())
}

fn options() -> AgentOptions {
    AgentOptions { config: CONFIG.into() }
}

impl Life<'_> {
    /// From the wish to the end of a program, whichever that is.
    fn update(&mut self, version: &str, is_good: bool) -> anyhow::Result<()> {
        let next = NextProgram::version(version)?;
        let next = if is_good { next } else { next.that_cannot_connect()? };
        let file = next.write(self.world.folder(), "next")?;
        self.world.operator.run(&["agent", "push", &file.to_string_lossy()])?;
        self.world.operator.run(&["agent", "assign", version, "--all"])?;
        let end = Instant::now() + PATIENCE;
        loop {
            let status = status(&self.agent).unwrap_or_default(); // it may be beginning anew
            let done = is_over(&status, version, is_good)?;
            if done && is_good {
                version.clone_into(&mut self.settled);
            }
            let also = if done { &self.settled } else { version };
            let versions = [self.settled.clone(), also.to_owned()].into();
            self.step(versions)?;
            if done {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "not over: {status:#}\n{}",
                self.agent.process().output()
            );
        }
    }

    /// Lets the agent run for a moment, and copies its disk.
    fn step(&mut self, versions: BTreeSet<String>) -> anyhow::Result<()> {
        let share = f64::from(u16::from_le_bytes(link::entropy())) / f64::from(u16::MAX);
        std::thread::sleep(self.step_max.mul_f64(share));
        let process = self.agent.process();
        process.pause()?;
        let copied = self.disk.copy();
        process.resume()?;
        let image = self.room.path(&format!("program-{}.img", self.points.len()));
        write_sparse(&copied?, &image)?;
        self.points.push(Point { image, versions });
        Ok(())
    }

    fn judged(&mut self) -> Vec<Verdict> {
        let points = std::mem::take(&mut self.points);
        let judged = |point: Point| {
            let mut verdict = Verdict::default();
            if let Err(error) = judge(self.room, &point, &mut verdict) {
                let name = point.image.file_stem().unwrap_or_default().to_string_lossy();
                verdict.failures.push(format!("{name}: {error:#}; {:?}", point.versions));
            }
            let _ = std::fs::remove_file(&point.image); // only memory
            verdict
        };
        points.into_iter().map(judged).collect()
    }
}

/// Whether the program has come to where it should, and nowhere else.
fn is_over(status: &Value, version: &str, is_good: bool) -> anyhow::Result<bool> {
    let (program, runs) = (&status["program"], status["agent_version"] == version);
    let refused = program["wanted"] == version && program["phase"] == "refused";
    let holds = runs && program["phase"] == "settled";
    ensure!(!refused || !is_good, "a good program is refused: {program}");
    ensure!(!holds || is_good, "a bad program holds: {program}");
    Ok(refused || holds)
}

fn status(agent: &Agent) -> Option<Value> {
    HttpClient::connect(agent.address_anew()?).ok()?.get("/outrigger/status").ok()?.json().ok()
}

fn judge(room: &Room, point: &Point, verdict: &mut Verdict) -> anyhow::Result<()> {
    let mount = room.mount_after_cut(&point.image)?;
    let state_dir = mount.folder().join("device");
    verdict.enrolled = state_dir.join("enrolment.json").exists();
    go_offline(&state_dir)?;
    verdict.swept = leftovers(&state_dir)?.len();
    let images = Images::test()?;
    let start = Instant::now();
    let agent = Agent::start(&state_dir, &options())?;
    verdict.started = true;
    let answered = eventually("an answer", ANSWER, || {
        let status = status(&agent)?;
        answers(&agent, &images).then_some(status)
    });
    let status = answered.with_context(|| agent.process().output())?;
    verdict.recovery = Some(start.elapsed());
    (verdict.served, verdict.acknowledged) = (1, 1);
    let runs = status["agent_version"].as_str().unwrap_or_default().to_owned();
    ensure!(point.versions.contains(&runs), "{runs} runs: {status:#}");
    check_kept(&state_dir)?;
    agent.stop()?;
    Ok(())
}

fn answers(agent: &Agent, images: &Images) -> bool {
    let ask = || {
        let mut client = HttpClient::connect(agent.address_anew()?).ok()?;
        let parameters = json!({ "placement": "edge", "timeout": 5_000_000 });
        Some(ask(&mut client, images.pixels(0), &parameters).ok()?.status == 200)
    };
    ask() == Some(true)
}

/// There are two slots, and what is on its way.
fn check_kept(state_dir: &Path) -> anyhow::Result<()> {
    let kept = std::fs::read_dir(state_dir.join("programs")).map_or(0, Iterator::count);
    ensure!(kept <= 3, "{kept} programs are kept");
    Ok(())
}
