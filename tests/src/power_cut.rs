//! The power is cut, at any moment: the agent starts again all the same, and serves what it had said
//! that it serves; the cloud keeps what it had acknowledged.
//!
//! The agent's state folder lies on an ext4 file system in an image, which stands for the disk. What
//! was not synced is in memory only, as before a real power cut: the file system flushes by itself
//! after five minutes, and kill -9 would prove nothing. At each point the agent is stopped (SIGSTOP,
//! so that a point lies between two of its system calls), the image is copied, and the agent goes on.
//! Each copy is then mounted, which replays its journal, checked, and an agent is started on it
//! without a network.
//!
//! What this does not show: a disk that loses or reorders what it has not been told to flush.
//! Everything that reached the image counts as written, in that order.

mod cloud;
mod disk;
mod judge;
mod life;
mod programs;
mod telemetry;
mod updates;

use comfy_table::{Table, presets};
use disk::Room;
use judge::Verdict;
use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Enrolments.
    pub enrolments: usize,
    /// Versions of a model that are installed one after the other.
    pub versions: u64,
    /// Renewals.
    pub renewals: usize,
    /// How often it leaves the fleet, and comes back.
    pub departures: usize,
    /// Rounds of a token, an enrolment, a push and an assignment, for the cloud.
    pub rounds: u64,
    /// The longest that a serving agent runs between two points, in microseconds.
    pub step_max_us: u16,
    /// Points while versions take over, and give way again; of three versions at least...
    pub update_points: usize,
    /// ...with so many questions between two of them.
    pub questions: usize,
    /// Points while the agent's own program is replaced...
    pub program_points: usize,
    /// ...with so long between two of them at most.
    pub program_step_max: Duration,
    /// Cuts while telemetry is recorded and sent.
    pub telemetry_cuts: usize,
    /// The longest from the start of an agent to its first answer.
    pub recovery_max: Option<Duration>,
}

impl Effort {
    /// For every test run: under a minute.
    pub const SHORT: Self = Self {
        enrolments: 1,
        versions: 2,
        renewals: 1,
        departures: 1,
        rounds: 1,
        step_max_us: 60_000,
        update_points: 24,
        questions: 4,
        program_points: 4,
        program_step_max: Duration::from_millis(900),
        telemetry_cuts: 4,
        recovery_max: None, // other tests run beside it
    };
    /// For a proof.
    pub const LONG: Self = Self {
        enrolments: 4,
        versions: 4,
        renewals: 3,
        departures: 8,
        rounds: 3,
        step_max_us: 15_000,
        update_points: 500,
        questions: 1,
        program_points: 150,
        program_step_max: Duration::from_millis(250),
        telemetry_cuts: 500,
        recovery_max: Some(Duration::from_secs(1)),
    };
}

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// Versions of models.
    Updates,
    /// The agent's own program.
    Programs,
    /// Records that are written and sent.
    Telemetry,
}

/// What became of all points.
#[derive(Debug, Default)]
pub struct Report(Vec<(&'static str, Vec<Verdict>)>);

/// `unshare` with mounts and processes of one's own, which all end with it.
pub const ALONE: [&str; 7] =
    ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Why this cannot be shown on this machine.
pub fn obstacle() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("loop devices and mount namespaces are of Linux".to_owned());
    }
    let try_all = "mount -t tmpfs tmpfs /mnt && truncate -s 16M /mnt/i && mkfs.ext4 -q /mnt/i \
                   && mkdir /mnt/m && mount -o loop /mnt/i /mnt/m && e2fsck -V";
    let mut probe = Command::new("unshare");
    probe.args(ALONE).args(["sh", "-c", try_all]);
    let may = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    (!may.is_ok_and(|status| status.success())).then(|| {
        "only root may mount an image, with mkfs.ext4, e2fsck and a free loop device".to_owned()
    })
}

/// Cuts the power. The caller runs under `unshare` with [`ALONE`], which takes every program, mount and loop
/// device away with it when it ends, however it ends.
///
/// # Errors
/// A program that does not start, or a machine on which this cannot be shown.
pub fn cut(effort: Effort, only: Option<Only>) -> anyhow::Result<Report> {
    let room = Room::new()?;
    room.control()?;
    let mut report = Report::default();
    let does = |part| only.is_none_or(|only| only == part);
    if does(Only::Updates) {
        updates::live(&room, effort, &mut report)?;
    }
    if does(Only::Telemetry) {
        telemetry::live(effort, &mut report)?;
    }
    if does(Only::Programs) {
        programs::live(&room, effort, &mut report)?;
    }
    if only.is_some() {
        return Ok(report);
    }
    life::live(&room, effort, &mut report)?;
    cloud::live(&room, effort.rounds, &mut report)?;
    Ok(report)
}

impl Report {
    /// Whether no point failed, and there was one.
    ///
    /// # Errors
    /// The failures.
    pub fn check(&self) -> anyhow::Result<()> {
        let points = self.0.iter().flat_map(|(_, verdicts)| verdicts);
        let failures: Vec<&str> =
            points.clone().flat_map(|v| v.failures.iter().map(String::as_str)).collect();
        anyhow::ensure!(points.count() > 0, "there was no point");
        anyhow::ensure!(
            failures.is_empty(),
            "{} failures:\n{}",
            failures.len(),
            failures.join("\n")
        );
        Ok(())
    }

    fn add(&mut self, stage: &'static str, verdicts: Vec<Verdict>) {
        eprintln!("{stage}: {} points", verdicts.len());
        self.0.push((stage, verdicts));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header([
            "while it",
            "points",
            "enrolled",
            "absent, enrolled again",
            "started",
            "served >= acknowledged",
            "swept",
            "slowest to its first answer",
            "failures",
        ]);
        for (stage, verdicts) in &self.0 {
            let count = |fits: fn(&Verdict) -> bool| verdicts.iter().filter(|v| fits(v)).count();
            let served = count(|v| v.served >= v.acknowledged && v.acknowledged > 0);
            let due = count(|v| v.acknowledged > 0);
            let slowest = verdicts.iter().filter_map(|verdict| verdict.recovery).max();
            table.add_row([
                (*stage).to_owned(),
                verdicts.len().to_string(),
                count(|v| v.enrolled).to_string(),
                count(|v| !v.enrolled && v.started).to_string(),
                count(|v| v.started).to_string(),
                format!("{served} of {due}"),
                verdicts.iter().map(|v| v.swept).sum::<usize>().to_string(),
                slowest.map_or("-".into(), |slowest| format!("{} ms", slowest.as_millis())),
                verdicts.iter().map(|v| v.failures.len()).sum::<usize>().to_string(),
            ]);
        }
        write!(f, "{table}")
    }
}
