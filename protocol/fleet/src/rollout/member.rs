//! A device in a roll-out: what it was told, what became of it, and what it counted before and since.

use std::fmt;

use protocol::id::Version;
use serde::{Deserialize, Serialize};

use super::Report;
use super::gate::Compared;
use super::tally::Tally;

/// The execution provider that is always there.
const CPU: &str = "cpu";

/// How a device stands in a roll-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Not told yet.
    Waiting,
    /// Told; the version does not answer there yet.
    Told,
    /// The version answers there, and has not served enough.
    Serving,
    /// It has served enough.
    Succeeded,
    /// It has not, and will not count as if it had.
    Failed(Failure),
    /// Told to go back.
    Returning,
    /// Back.
    Returned,
    /// Told to go back, and not heard of since; it will when it connects.
    Stranded,
}

impl Standing {
    /// The standing as a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Standing::Waiting => "waiting",
            Standing::Told => "told",
            Standing::Serving => "serving",
            Standing::Succeeded => "succeeded",
            Standing::Failed(failure) => failure.as_str(),
            Standing::Returning => "returning",
            Standing::Returned => "returned",
            Standing::Stranded => "stranded",
        }
    }

    /// Whether the device is to run the version.
    pub fn is_told(&self) -> bool {
        match self {
            Standing::Told | Standing::Serving | Standing::Succeeded => true,
            Standing::Failed(failure) => *failure != Failure::Removed,
            Standing::Waiting | Standing::Returning | Standing::Returned | Standing::Stranded => {
                false
            }
        }
    }
}

/// Why a device failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// It does not take the version, in its own words.
    Refused(String),
    /// It had it and answers with another version again.
    WentBack(Option<Version>),
    /// Nothing was heard of it since it was told.
    Silent,
    /// It is there, and answers with another version.
    Stuck(Option<Version>),
    /// The version answers there, and too few have asked it.
    Idle(u64),
    /// The version answers there, and the device has never said what it counts.
    Uncounted,
    /// Somebody has removed it from the fleet.
    Removed,
}

impl Failure {
    /// The kind of failure as a word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Failure::Refused(_) => "refused",
            Failure::WentBack(_) => "went-back",
            Failure::Silent => "silent",
            Failure::Stuck(_) => "stuck",
            Failure::Idle(_) => "idle",
            Failure::Uncounted => "uncounted",
            Failure::Removed => "removed",
        }
    }

    /// Whether it says nothing about the version, only about the device.
    pub fn is_silence(&self) -> bool {
        !matches!(self, Failure::Refused(_) | Failure::WentBack(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answers = |version: &Option<Version>| match version {
            Some(version) => format!("answers with version {version}"),
            None => "answers with no version".to_owned(),
        };
        match self {
            Failure::Refused(why) => write!(f, "refused: {why}"),
            Failure::WentBack(version) => write!(f, "went back by itself, {}", answers(version)),
            Failure::Silent => f.write_str("silent since it was told"),
            Failure::Stuck(version) => write!(f, "still {} at its deadline", answers(version)),
            Failure::Removed => f.write_str("removed from the fleet"),
            Failure::Idle(served) => write!(f, "served {served} requests only until its deadline"),
            Failure::Uncounted => f.write_str(
                "answers with the version, and never said how: its agent may be older than roll-outs",
            ),
        }
    }
}

/// One device of a roll-out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// The stage in which it is told, from 0.
    pub stage: usize,
    /// The number of its stratum.
    pub stratum: usize,
    /// Its place in the order in which devices are told, from 0.
    pub(super) place: usize,
    /// How it stands.
    pub standing: Standing,
    /// When it was told, or told to go back, by the roll-out's seconds.
    told_at_s: u64,
    /// When it was last heard of.
    heard_at_s: Option<u64>,
    /// The version that it counted `before` and, until it is told, `after` for.
    old: Option<Version>,
    /// Who computed that; empty where it is not known.
    old_provider: String,
    /// All that it has counted for the active version so far.
    total: Tally,
    /// Where counting began for this stage, and what it had counted before that.
    mark: Tally,
    before: Tally,
    /// What it has counted since: for the new version, or in a stage that is not its own, for the old one.
    pub after: Tally,
    /// Whether it has said what it counts for the new version.
    #[serde(default)]
    has_counted: bool,
}

impl Member {
    /// Not told yet.
    pub(super) fn new(place: usize, stage: usize, stratum: usize) -> Self {
        Self {
            stage,
            stratum,
            place,
            standing: Standing::Waiting,
            told_at_s: 0,
            heard_at_s: None,
            old: None,
            old_provider: String::new(),
            total: Tally::default(),
            mark: Tally::default(),
            before: Tally::default(),
            after: Tally::default(),
            has_counted: false,
        }
    }

    /// Whether it has, or had, the new version to answer with.
    pub(super) fn is_treated(&self) -> bool {
        matches!(self.standing, Standing::Serving | Standing::Succeeded)
    }

    /// Whether it has said what it does without the version, so that there is something to hold it against.
    pub(super) fn is_known(&self) -> bool {
        self.heard_at_s.is_some()
    }

    /// It is told.
    pub(super) fn offer(&mut self, clock_s: u64) {
        self.standing = Standing::Told;
        self.told_at_s = clock_s;
        self.before = std::mem::take(&mut self.total);
        self.mark = Tally::default();
        self.after = Tally::default();
        self.has_counted = false;
    }

    /// It is told to go back.
    pub(super) fn withdraw(&mut self, clock_s: u64) {
        self.standing = Standing::Returning;
        self.told_at_s = clock_s;
    }

    /// It is no device of the fleet any more.
    pub(super) fn remove(&mut self) {
        self.standing = match self.standing {
            Standing::Returning | Standing::Stranded => Standing::Stranded,
            Standing::Returned => Standing::Returned,
            _ => Standing::Failed(Failure::Removed),
        };
    }

    /// What it counts from now on is what a stage is compared with.
    pub(super) fn begin_baseline(&mut self) {
        self.before = self.total.clone();
        self.mark = self.total.clone();
        self.after = Tally::default();
    }

    /// It says what it runs and what it has counted.
    pub(super) fn handle_report(
        &mut self,
        report: &Report,
        version: Version,
        requests_min: u64,
        clock_s: u64,
    ) {
        let has_it = report.active == Some(version);
        self.heard_at_s = Some(clock_s);
        match self.standing {
            Standing::Waiting => self.count_old(report),
            Standing::Told | Standing::Serving | Standing::Succeeded => {
                self.standing = self.judged(report, has_it, requests_min);
            }
            // Heard of since it was told to go back, and not on the version: so it is back.
            Standing::Returning | Standing::Stranded if !has_it => {
                self.standing = Standing::Returned;
            }
            _ => {}
        }
    }

    fn count_old(&mut self, report: &Report) {
        let tally = report.tally.clone().unwrap_or_default();
        if self.old.is_none() {
            self.before = tally.clone();
            self.mark = tally.clone();
        }
        if report.active != self.old && self.old.is_some() {
            // Somebody gave it another version: what it counted before is no yardstick any more.
            self.before = Tally::default();
            self.mark = Tally::default();
        }
        self.old = report.active;
        self.old_provider.clone_from(&report.provider);
        self.after = tally.since(&self.mark);
        self.total = tally;
    }

    fn judged(&mut self, report: &Report, has_it: bool, requests_min: u64) -> Standing {
        if let Some(why) = &report.refused {
            return Standing::Failed(Failure::Refused(why.clone()));
        }
        match (has_it, &self.standing) {
            // The one wrong way that no answer shows.
            (true, _) if report.provider == CPU && ![CPU, ""].contains(&&*self.old_provider) => {
                let why = format!("it runs on {CPU}, the version before on {}", self.old_provider);
                Standing::Failed(Failure::Refused(why))
            }
            (true, _) => {
                if let Some(tally) = &report.tally {
                    self.after = tally.clone();
                    self.has_counted = true;
                }
                let enough =
                    self.after.requests >= requests_min || self.standing == Standing::Succeeded;
                if enough { Standing::Succeeded } else { Standing::Serving }
            }
            (false, Standing::Told) => Standing::Told,
            (false, _) => Standing::Failed(Failure::WentBack(report.active)),
        }
    }

    /// Time passes.
    pub(super) fn handle_time(&mut self, clock_s: u64, deadline_s: u64) {
        if clock_s.saturating_sub(self.told_at_s) < deadline_s {
            return;
        }
        let was_heard = self.heard_at_s.is_some_and(|at| at > self.told_at_s);
        self.standing = match &self.standing {
            Standing::Told if was_heard => Standing::Failed(Failure::Stuck(self.old)),
            Standing::Told => Standing::Failed(Failure::Silent),
            Standing::Serving if !self.has_counted => Standing::Failed(Failure::Uncounted),
            Standing::Serving => Standing::Failed(Failure::Idle(self.after.requests)),
            Standing::Returning => Standing::Stranded,
            other => other.clone(),
        };
    }

    /// What the gates compare; `None` where it has nothing to say in this stage.
    pub(super) fn compared(&self) -> Option<Compared> {
        let is_control = self.standing == Standing::Waiting && self.old.is_some();
        (is_control || self.is_treated()).then(|| Compared {
            stratum: self.stratum,
            is_treated: self.is_treated(),
            before: self.before.clone(),
            after: self.after.clone(),
        })
    }
}
