//! Whether a version that has just taken over holds. First a *trial*, of so many answers or so long; then
//! a *soak*; then it is *trusted*. In both it gives way to the version before it when it takes the agent
//! down, does not load, fails, gives what is no number, or is too slow.
//!
//! ```text
//! switched -> trial --passed--> soak --settled--> trusted
//!               |                 |
//!               +--- tripped -----+--> the version before, trusted
//! ```
//!
//! What the agent itself cannot see, its own end, shows at the next start: that a version is answering is
//! written down before it does ([`Lives`]).

use crate::IllegalTransition;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// How far the active version is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answers, and is closely watched.
    Trial,
    /// It has passed its trial, and is still watched.
    Soak,
    /// It is what others give way to.
    Trusted,
}

impl Standing {
    /// The standing as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trial => "trial",
            Self::Soak => "soak",
            Self::Trusted => "trusted",
        }
    }
}

/// What happened to the active version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// Enough answers, or enough time, and nothing wrong.
    Passed,
    /// The soak is over.
    Settled,
    /// Something is wrong: the version before it is trusted, and answers again.
    Tripped,
    /// It could not take its place.
    Stayed,
}

fn transition(standing: Standing, event: Event) -> Option<Standing> {
    Some(match (standing, event) {
        (Standing::Trial, Event::Passed) => Standing::Soak,
        (Standing::Soak, Event::Settled) | (Standing::Trial | Standing::Soak, Event::Tripped) => {
            Standing::Trusted
        }
        (Standing::Trusted, Event::Stayed) => Standing::Soak,
        _ => return None,
    })
}

/// Starts without a clean word after which a version has had its chances.
pub const START_LIMIT: u32 = 3;

/// What is beyond limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// The share of runs that may fail.
    pub failures: f64,
    /// The median run may take so many times as long as that of the version before...
    pub latency_factor: f64,
    /// ...and this on top of it.
    pub latency_slack: Duration,
    /// The share of answers that may be others than those of the version before.
    pub disagreement: f64,
    /// Starts without a clean word after which a version gives way.
    pub starts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            failures: 0.02,
            latency_factor: 2.0,
            latency_slack: Duration::from_millis(5),
            disagreement: 0.2,
            starts: START_LIMIT,
        }
    }
}

impl Limits {
    /// The longest that a median run may take, where the version before took so long.
    pub fn longest(&self, reference: Duration) -> Duration {
        reference.mul_f64(self.latency_factor.max(0.0)) + self.latency_slack
    }

    /// Starts without a clean word after which a version gives way, with or without one to go back to.
    pub fn starts_of(&self, has_previous: bool) -> u32 {
        if has_previous { self.starts } else { self.starts.saturating_mul(ALONE) }
    }

    /// Whether so many failures of so many are too many. One or two may be anybody's.
    pub(crate) fn fails(&self, failed: usize, of: usize) -> bool {
        failed >= FAILURES_MIN && failed as f64 > self.failures * of as f64
    }
}

/// A version with none before it has so many times as many starts: no answer at all is worse than one that may
/// not be to blame, as where the power fails again and again.
const ALONE: u32 = 10;
/// Fewer failures are no ground to go back.
const FAILURES_MIN: usize = 3;
/// Runs that are remembered.
const WINDOW: usize = 200;
/// Fewer runs say nothing of how long they take.
const RUNS_MIN: usize = 10;
/// The median is looked at once in so many runs.
const LOOK_EVERY: u32 = 5;

/// Why a version must not answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// It took the agent down.
    Starts {
        /// So many starts ended without a clean word.
        starts: u32,
    },
    /// It ended the agent while the device ran on.
    Crashes {
        /// So often.
        crashes: u32,
    },
    /// It does not load where it should answer.
    DoesNotLoad {
        /// Why.
        why: String,
    },
    /// Another execution provider computes it than did the version before, or at its start.
    Provider {
        /// Who did.
        was: String,
        /// Who does.
        is: String,
    },
    /// It fails.
    Fails {
        /// So many runs...
        failed: usize,
        /// ...of so many.
        of: usize,
        /// What the last of them said.
        why: String,
    },
    /// It is slow.
    Slow {
        /// What the median run takes.
        median: Duration,
        /// What it may.
        limit: Duration,
    },
    /// It answers differently.
    Disagrees {
        /// So many answers, in parts where a request has several items...
        differ: f64,
        /// ...of so many...
        of: usize,
        /// ...of which it may be this share.
        limit: f64,
        /// What was asked.
        asked: &'static str,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starts { starts } => {
                write!(f, "the agent ended {starts} times in a row soon after it began to answer")
            }
            Self::Crashes { crashes } => {
                write!(f, "the agent crashed {crashes} times while it answered")
            }
            Self::DoesNotLoad { why } => write!(f, "it does not load: {why}"),
            Self::Provider { was, is } => {
                write!(f, "it runs on {is}, where {was} is what this device has for it")
            }
            Self::Fails { failed, of, why } => write!(f, "{failed} of {of} runs failed: {why}"),
            Self::Slow { median, limit } => {
                let [median, limit] = [median, limit].map(|time| time.as_secs_f64() * 1000.0);
                write!(f, "its median run takes {median:.1} ms, {limit:.1} are allowed")
            }
            Self::Disagrees { differ, of, limit, asked } => write!(
                f,
                "{differ:.0} of {of} answers to {asked} are others than before, {:.0} % may be",
                limit * 100.0
            ),
        }
    }
}

/// How long trial and soak last.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Answers after which a trial is passed...
    pub trial_requests: u32,
    /// ...or this time.
    pub trial: Duration,
    /// How long what has passed goes on being watched.
    pub soak: Duration,
    /// What is beyond limits.
    pub limits: Limits,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run<'a> {
    /// With an answer, after this time on the model itself.
    Answered(Duration),
    /// Without one after this time, for the deadline had come.
    Late(Duration),
    /// It failed, and not for a fault of the asker, or gave what is no number.
    Failed(&'a str),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Write down that the agent is well, and how long it has been.
    Word {
        /// In this standing, over all starts.
        lived: Duration,
    },
    /// The trial is passed: write that down.
    Passed,
    /// The soak is over: write that down; nothing more will be said.
    Settled,
    /// Go back to the version before.
    RollBack(Fault),
}

/// The first word is due after this; later ones in the soak are rarer, to spare flash.
const WORD_AFTER: Duration = Duration::from_secs(60);
const WORD_EVERY: Duration = Duration::from_secs(600);

/// The watch over one version that has taken over.
#[derive(Debug)]
pub struct Probation {
    terms: Terms,
    standing: Standing,
    /// What the median run of the version before took, where there is one to go back to.
    reference: Option<Duration>,
    /// Whether there is a version to go back to.
    has_previous: bool,
    /// When this standing began, less what it lasted before a restart.
    began: Instant,
    word_due: Option<Instant>,
    answers: u32,
    seen: u32,
    took: VecDeque<Duration>,
    outcomes: VecDeque<bool>,
    failure: String,
}

impl Probation {
    /// On trial, or in the soak for so long already. Without a version to go back to, nothing that a
    /// run shows is a ground to.
    pub fn new(
        terms: Terms,
        (standing, lived): (Standing, Duration),
        reference: Option<Duration>,
        has_previous: bool,
        now: Instant,
    ) -> Self {
        Self {
            terms,
            standing,
            reference,
            has_previous,
            began: now.checked_sub(lived).unwrap_or(now),
            word_due: Some(now + WORD_AFTER),
            answers: 0,
            seen: 0,
            took: VecDeque::new(),
            outcomes: VecDeque::new(),
            failure: String::new(),
        }
    }

    /// How far it is trusted by now.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// When [`Probation::handle_timeout`] is due; `None` when nothing will be said any more.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let end = self.end()?;
        Some(self.word_due.map_or(end, |word| word.min(end)))
    }

    fn end(&self) -> Option<Instant> {
        match self.standing {
            Standing::Trial => Some(self.began + self.terms.trial),
            Standing::Soak => Some(self.began + self.terms.soak),
            Standing::Trusted => None,
        }
    }

    /// A run ended.
    pub fn handle_run(&mut self, run: Run<'_>, now: Instant) -> Option<Verdict> {
        if self.standing == Standing::Trusted {
            return None;
        }
        match run {
            Run::Answered(took) => {
                self.answers = self.answers.saturating_add(1);
                push(&mut self.took, took);
            }
            Run::Late(took) => push(&mut self.took, took),
            Run::Failed(why) => why.clone_into(&mut self.failure),
        }
        push(&mut self.outcomes, !matches!(run, Run::Failed(_)));
        self.seen = self.seen.wrapping_add(1);
        if let Some(fault) = self.fault().filter(|_| self.has_previous) {
            return self.step(Event::Tripped, now).ok().map(|()| Verdict::RollBack(fault));
        }
        let enough = self.answers >= self.terms.trial_requests;
        (self.standing == Standing::Trial && enough).then(|| self.pass(now))
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Verdict> {
        match self.standing {
            Standing::Trial if self.end().is_some_and(|end| now >= end) => Some(self.pass(now)),
            Standing::Soak if self.end().is_some_and(|end| now >= end) => {
                self.step(Event::Settled, now).ok().map(|()| Verdict::Settled)
            }
            _ => {
                self.word_due.filter(|due| now >= *due)?;
                self.word_due = Some(now + WORD_EVERY);
                Some(Verdict::Word { lived: now.saturating_duration_since(self.began) })
            }
        }
    }

    /// The version before could not be loaded: this one stays, and is watched from the beginning.
    pub fn stays(&mut self, now: Instant) {
        if self.step(Event::Stayed, now).is_ok() {
            self.took.clear();
            self.outcomes.clear();
        }
    }

    fn pass(&mut self, now: Instant) -> Verdict {
        let passed = self.step(Event::Passed, now);
        debug_assert!(passed.is_ok(), "only a trial is passed");
        Verdict::Passed
    }

    fn step(&mut self, event: Event, now: Instant) -> Result<(), IllegalTransition> {
        let illegal = || IllegalTransition::new(self.standing, event);
        self.standing = transition(self.standing, event).ok_or_else(illegal)?;
        self.began = now;
        Ok(())
    }

    fn fault(&self) -> Option<Fault> {
        let of = self.outcomes.len();
        let failed = self.outcomes.iter().filter(|good| !**good).count();
        if self.terms.limits.fails(failed, of) {
            return Some(Fault::Fails { failed, of, why: self.failure.clone() });
        }
        if self.took.len() < RUNS_MIN || !self.seen.is_multiple_of(LOOK_EVERY) {
            return None;
        }
        slow(&self.terms.limits, self.reference, median(self.took.iter().copied()))
    }
}

/// Whether a median run is beyond the limit that the version before sets.
pub(crate) fn slow(
    limits: &Limits,
    reference: Option<Duration>,
    median: Option<Duration>,
) -> Option<Fault> {
    let (median, limit) = (median?, limits.longest(reference?));
    (median > limit).then_some(Fault::Slow { median, limit })
}

pub(crate) fn median(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.collect();
    let middle = times.len().checked_sub(1)? / 2;
    Some(*times.select_nth_unstable(middle).1)
}

fn push<T>(window: &mut VecDeque<T>, value: T) {
    if window.len() == WINDOW {
        window.pop_front();
    }
    window.push_back(value);
}

/// The agent's starts with a version on probation, as they are kept on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lives {
    /// An agent answers with it, or has ended without a word.
    pub open: bool,
    /// It has been well for a while since it started.
    pub well: bool,
    /// Starts in a row that ended without either.
    pub starts: u32,
    /// Ends without a word while the device itself ran on.
    pub crashes: u32,
    /// Which run of the device it was.
    pub boot: String,
}

impl Lives {
    /// The switch, in a running agent.
    pub fn begin(boot: &str) -> Self {
        Self { open: true, well: false, starts: 0, crashes: 0, boot: boot.to_owned() }
    }

    /// The agent starts: to be written down before the version is loaded. A power cut counts as a start
    /// without a word, and not as a crash. `cleared`: in this run of the device, when the agent ended, another model
    /// was at work and this one was not.
    #[must_use]
    pub fn start(self, boot: &str, cleared: bool) -> Self {
        if cleared {
            return Self { open: true, well: false, boot: boot.to_owned(), ..self };
        }
        let crashed = self.open && self.boot == boot;
        let short = self.open && !self.well;
        Self {
            open: true,
            well: false,
            starts: if short { self.starts.saturating_add(1) } else { 0 },
            crashes: self.crashes.saturating_add(u32::from(crashed)),
            boot: boot.to_owned(),
        }
    }

    /// The agent ends in order.
    #[must_use]
    pub fn ended_well(self) -> Self {
        Self { open: false, starts: 0, ..self }
    }

    /// Whether it has had its chances.
    pub fn fault(&self, limit: u32) -> Option<Fault> {
        let limit = limit.max(1);
        if self.starts >= limit {
            return Some(Fault::Starts { starts: self.starts });
        }
        (self.crashes >= limit).then_some(Fault::Crashes { crashes: self.crashes })
    }
}

#[cfg(test)]
mod tests;
