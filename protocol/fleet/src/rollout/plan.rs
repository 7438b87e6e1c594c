//! What a roll-out is asked to do, and whether that can be done.

use serde::{Deserialize, Serialize};

use protocol::id::{ModelName, Version};

use super::query::Query;

/// Stages at most.
pub const STAGES_MAX: usize = 16;
/// Devices of one roll-out at most.
pub const DEVICES_MAX: usize = 100_000;
/// The longest soak, deadline or life of a roll-out, in seconds: 90 days.
pub const TIME_MAX_S: u64 = 90 * 86_400;
/// Labels that divide the fleet into strata, at most.
pub const STRATA_KEYS_MAX: usize = 4;

/// How many devices have the version when a stage is complete, those of the stages before it counted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// So many devices.
    Count(u32),
    /// This share of the target, above 0 and at most 1; rounded up.
    Share(f64),
}

impl Size {
    /// The number of devices out of `of`.
    pub fn of(self, of: usize) -> usize {
        match self {
            Size::Count(count) => of.min(usize::try_from(count).unwrap_or(usize::MAX)),
            Size::Share(share) => share_of(share, of),
        }
    }
}

/// The share of a count, rounded up; the tolerance keeps 0.1 of 30 at 3.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to `of`
fn share_of(share: f64, of: usize) -> usize {
    let exact = share.clamp(0.0, 1.0) * super::number(of as u64);
    ((exact - 1e-9).ceil().max(0.0) as usize).min(of)
}

/// One stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// How many devices have the version at its end.
    pub size: Size,
    /// How long they are watched after the last of them serves, in seconds.
    pub soak_s: u64,
}

/// How fast devices are told: slowly first, faster as it goes well.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Devices a minute, to begin with.
    pub first_per_min: f64,
    /// Times as many ...
    pub factor: f64,
    /// ... after each so many devices that serve.
    pub every: u32,
    /// Devices a minute at most.
    pub max_per_min: f64,
}

impl Rate {
    /// Devices a minute after so many have succeeded.
    pub fn per_min(&self, succeeded: usize) -> f64 {
        let steps = u32::try_from(succeeded).unwrap_or(u32::MAX) / self.every.max(1);
        let grown = self.first_per_min * self.factor.powf(f64::from(steps.min(64)));
        grown.min(self.max_per_min)
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self { first_per_min: 60.0, factor: 2.0, every: 10, max_per_min: 6000.0 }
    }
}

/// When devices may be told, by UTC. What is under way goes on outside of it, and the way back is always open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// From this minute of the day.
    pub from_min: u16,
    /// Until before this one; smaller than `from_min` for a window over midnight.
    pub to_min: u16,
}

impl Window {
    /// Whether it is open then (Unix seconds).
    pub fn is_open(&self, now_s: u64) -> bool {
        let minute = (now_s / 60) % 1440;
        let (from, to) = (u64::from(self.from_min), u64::from(self.to_min));
        if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

/// A version of an agent: major, minor, patch.
pub type AgentVersion = (u32, u32, u32);

/// Reads `1.2.3`; whatever follows a dash or plus is left aside.
pub fn agent_version(text: &str) -> Option<AgentVersion> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}

/// Everything that a roll-out is asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// The model.
    pub model: Option<ModelName>,
    /// The version that is to answer.
    pub version: Option<Version>,
    /// The devices that it is for.
    pub target: Option<Query>,
    /// Must be set where the target is every device of the fleet.
    pub everyone: bool,
    /// The stages, each at least as large as the one before; the last one is the whole target.
    pub stages: Vec<Stage>,
    /// Labels whose values divide the target into strata: each stage has its share of each of them.
    pub strata: Vec<String>,
    /// A device has succeeded when the version has served so many real requests on it.
    pub requests_min: u64,
    /// A device that has not succeeded so long after it was told has failed, in seconds.
    pub deadline_s: u64,
    /// The share of a stage whose devices may refuse the version, or go back from it by themselves.
    pub failures_max: f64,
    /// The share of a stage that may be silent, or without requests, before the roll-out pauses; one device always may.
    pub silent_max: f64,
    /// The chance that a version which changes nothing is stopped by a gate.
    pub alpha: f64,
    /// How fast devices are told.
    pub rate: Rate,
    /// When they may be told; always, where there is none.
    pub window: Option<Window>,
    /// So many devices or more need [`Plan::approvals`].
    pub approve_from: u32,
    /// How many people have to approve, whoever made the plan being one of them.
    pub approvals: u8,
    /// Devices with an older agent are left out.
    pub agent_min: Option<AgentVersion>,
    /// A roll-out that is not done by then goes back, in seconds since it was planned.
    pub expires_s: u64,
}

impl Default for Plan {
    /// One device in a hundred, one in ten, all; an hour each; two people for a hundred devices or more.
    fn default() -> Self {
        let stage = |share| Stage { size: Size::Share(share), soak_s: 3600 };
        Self {
            model: None,
            version: None,
            target: None,
            everyone: false,
            stages: vec![stage(0.01), stage(0.1), stage(1.0)],
            strata: Vec::new(),
            requests_min: 20,
            deadline_s: 86_400,
            failures_max: 0.05,
            silent_max: 0.2,
            alpha: 0.01,
            rate: Rate::default(),
            window: None,
            approve_from: 100,
            approvals: 2,
            agent_min: None,
            expires_s: 14 * 86_400,
        }
    }
}

/// Why a plan is not carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Something that has no default is missing.
    #[error("a roll-out needs {0}")]
    Missing(&'static str),
    /// A number outside of what makes sense.
    #[error("{field} must be {range}")]
    Range {
        /// The field.
        field: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// The query asks for the whole fleet, and nobody said that this is meant.
    #[error("`*` is every device of the fleet; say so with everyone = true (--everyone)")]
    Everyone,
    /// Nobody to roll out to.
    #[error("no device is asked for by `{query}`; {devices} devices are enrolled")]
    NoDevice {
        /// The query.
        query: String,
        /// The size of the fleet.
        devices: usize,
    },
    /// Everybody who is asked for runs too old an agent.
    #[error("all {0} devices of the target have an older agent than the plan asks for")]
    AgentsTooOld(usize),
    /// All of them have it already.
    #[error("all {0} devices of the target have this version already")]
    NothingToDo(usize),
    /// More than one roll-out can follow.
    #[error(
        "{0} devices are too many for one roll-out, {DEVICES_MAX} are the limit; divide the target by a label"
    )]
    TooMany(usize),
}

impl Plan {
    /// Checks all that can be checked without a fleet.
    ///
    /// # Errors
    /// The first thing that makes no sense.
    pub fn check(&self) -> Result<(), PlanError> {
        self.model.as_ref().ok_or(PlanError::Missing("a model"))?;
        self.version.ok_or(PlanError::Missing("a version"))?;
        let target = self.target.as_ref().ok_or(PlanError::Missing("a target"))?;
        if target.is_all() && !self.everyone {
            return Err(PlanError::Everyone);
        }
        self.check_stages()?;
        let range = |holds: bool, field, range| {
            if holds { Ok(()) } else { Err(PlanError::Range { field, range }) }
        };
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let is_time = |s: u64| (1..=TIME_MAX_S).contains(&s);
        range(self.strata.len() <= STRATA_KEYS_MAX, "strata", "at most 4 labels")?;
        range(self.requests_min >= 1, "requests_min", "at least 1")?;
        range(is_time(self.deadline_s), "deadline_s", "1 s to 90 days")?;
        range(is_time(self.expires_s), "expires_s", "1 s to 90 days")?;
        range(is_share(self.failures_max), "failures_max", "0 to 1")?;
        range(is_share(self.silent_max), "silent_max", "0 to 1")?;
        range((1e-6..=0.2).contains(&self.alpha), "alpha", "0.000001 to 0.2")?;
        range((1..=10).contains(&self.approvals), "approvals", "1 to 10")?;
        let Rate { first_per_min, factor, max_per_min, .. } = self.rate;
        range((0.01..=1e6).contains(&first_per_min), "rate.first_per_min", "0.01 to 1000000")?;
        range((1.0..=100.0).contains(&factor), "rate.factor", "1 to 100")?;
        range(
            (first_per_min..=1e6).contains(&max_per_min),
            "rate.max_per_min",
            "at least the first rate",
        )?;
        let minutes = |w: &Window| w.from_min < 1440 && w.to_min <= 1440 && w.from_min != w.to_min;
        range(self.window.as_ref().is_none_or(minutes), "window", "two different times of the day")
    }

    fn check_stages(&self) -> Result<(), PlanError> {
        let range = |field, range| Err(PlanError::Range { field, range });
        if self.stages.is_empty() || self.stages.len() > STAGES_MAX {
            return range("stages", "1 to 16 of them");
        }
        let is_size = |stage: &Stage| match stage.size {
            Size::Count(count) => count > 0,
            Size::Share(share) => share > 0.0 && share <= 1.0,
        };
        if !self.stages.iter().all(is_size) {
            return range("a stage's size", "a number of devices, or a share up to 1");
        }
        if self.stages.iter().any(|stage| stage.soak_s > TIME_MAX_S) {
            return range("soak_s", "at most 90 days");
        }
        match self.stages.last().map(|stage| stage.size) {
            Some(Size::Share(share)) if share >= 1.0 => Ok(()),
            _ => range("the last stage", "the whole target (share 1)"),
        }
    }

    /// How many devices of `of` have the version at the end of each stage: no stage is smaller than the one before it.
    pub fn sizes(&self, of: usize) -> Vec<usize> {
        let mut most = 0;
        let grown = self.stages.iter().map(|stage| {
            most = stage.size.of(of).max(most);
            most
        });
        grown.collect()
    }

    /// Whether more people than the one who planned have to agree.
    pub fn needs_approval(&self, devices: usize) -> bool {
        self.approvals > 1 && devices >= usize::try_from(self.approve_from).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            model: Some("m".parse().unwrap()),
            version: Version::new(2),
            target: Some("site".parse().unwrap()),
            ..Plan::default()
        }
    }

    #[test]
    fn the_default_is_a_plan_but_for_what_only_people_know() {
        assert_eq!(plan().check(), Ok(()));
        assert_eq!(Plan::default().check(), Err(PlanError::Missing("a model")));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let why = |change: fn(&mut Plan)| {
            let mut plan = plan();
            change(&mut plan);
            plan.check().unwrap_err().to_string()
        };
        assert!(why(|p| p.target = Some("*".parse().unwrap())).contains("--everyone"));
        assert_eq!(why(|p| p.stages.clear()), "stages must be 1 to 16 of them");
        assert!(why(|p| p.stages.truncate(2)).starts_with("the last stage must be"));
        assert!(why(|p| p.stages[0].size = Size::Share(f64::NAN)).starts_with("a stage's size"));
        assert_eq!(why(|p| p.alpha = f64::NAN), "alpha must be 0.000001 to 0.2");
        assert_eq!(why(|p| p.deadline_s = 0), "deadline_s must be 1 s to 90 days");
        assert!(why(|p| p.rate.max_per_min = 1.0).starts_with("rate.max_per_min"));
        assert!(why(|p| p.window = Some(Window { from_min: 5, to_min: 5 })).starts_with("window"));
    }

    #[test]
    fn stages_never_shrink_and_have_a_device_each() {
        let mut plan = plan();
        assert_eq!(plan.sizes(200), [2, 20, 200]);
        assert_eq!(plan.sizes(3), [1, 1, 3]);
        plan.stages[0].size = Size::Count(50);
        assert_eq!(plan.sizes(200), [50, 50, 200]);
        assert_eq!(share_of(0.1, 30), 3);
    }

    #[test]
    fn it_gets_faster_as_it_goes_well() {
        let rate = Rate { first_per_min: 2.0, factor: 2.0, every: 10, max_per_min: 20.0 };
        let at = |n| rate.per_min(n);
        assert_eq!(
            [at(0), at(9), at(10), at(29), at(30), at(1000)],
            [2.0, 2.0, 4.0, 8.0, 16.0, 20.0]
        );
    }

    #[test]
    fn windows_may_span_midnight() {
        let night = Window { from_min: 22 * 60, to_min: 4 * 60 };
        let at = |hour: u64| night.is_open(86_400 * 400 + hour * 3600);
        assert_eq!([at(21), at(22), at(3), at(4)], [false, true, true, false]);
    }

    #[test]
    fn agents_say_their_version() {
        assert_eq!(agent_version("1.2.3-rc.1"), Some((1, 2, 3)));
        assert_eq!(agent_version("1.2"), None);
        assert_eq!(agent_version(""), None);
    }
}
