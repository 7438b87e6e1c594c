//! How the agent's next program takes over from the one that runs, and which of them a start begins with.
//!
//! The *installed* program, which a package or a person put into its place, is never replaced by what comes from
//! the cloud: it is what every start begins with, looks at this record, and runs the program that it names in
//! its own place. So whatever a later program breaks, it cannot break the way back.
//!
//! ```text
//! settled --staged--> staged --started--> trial --well--> soak --held--> settled, with the candidate
//!                        |                  |              |
//!                        +----- failed -----+--------------+-----------> settled, with what ran before
//! ```
//!
//! A candidate that ends without a word, or is not well in time, says so by the next start: that it begins is
//! written down before it does ([`Lives`]). The record is read by installed programs of any age and by
//! candidates of any age: fields are only ever added, and each may be absent.

use crate::IllegalTransition;
use crate::probation::{Fault, Lives};
use protocol::id::ContentHash;
use protocol::release::ReleaseVersion;
use serde::{Deserialize, Serialize};

/// A program of the agent that is kept on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: ReleaseVersion,
    /// Its bytes, which are looked at again before each start.
    pub sha256: ContentHash,
}

/// How far the next program has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// There is none.
    #[default]
    Settled,
    /// It lies ready, and the next start begins with it.
    Staged,
    /// It runs, and has not shown yet that it is well.
    Trial,
    /// It is well, and is watched for a while.
    Soak,
}

impl Stage {
    /// The stage as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Staged => "staged",
            Self::Trial => "trial",
            Self::Soak => "soak",
        }
    }
}

/// What happened to the next program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// It was verified, and lies ready.
    Staged,
    /// It is not wanted any more.
    Withdrawn,
    /// A start is about to begin with it.
    Started,
    /// It answers, its models do, and it has reached the cloud.
    Well,
    /// It went on being well.
    Held,
    /// It has had its chances.
    Failed,
    /// The installed program is no older.
    Superseded,
}

fn transition(stage: Stage, event: Event) -> Option<Stage> {
    use Stage::{Settled, Soak, Staged, Trial};
    Some(match (stage, event) {
        (Settled | Staged, Event::Staged) => Staged,
        (Staged | Soak, Event::Withdrawn) => Settled,
        (Staged | Trial, Event::Started) => Trial,
        (Soak, Event::Started) | (Trial, Event::Well) => Soak,
        (Soak, Event::Held) | (Staged | Trial | Soak, Event::Failed | Event::Superseded) => Settled,
        _ => return None,
    })
}

/// What a candidate is held to: settled by the program that staged it, since who starts it reads no
/// configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// It must be well within so many seconds of a start.
    pub patience_s: u32,
    /// It is watched for so many seconds after that.
    pub soak_s: u32,
    /// Starts without a clean word after which it gives way.
    pub starts: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self { patience_s: 300, soak_s: 3600, starts: crate::probation::START_LIMIT }
    }
}

/// Seconds beyond its patience after which a candidate that says nothing at all is ended.
pub const GRACE_S: u32 = 10;

/// The next program, from when it lies ready until it has taken over or given way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The program.
    pub program: Program,
    /// What it is held to.
    #[serde(default)]
    pub terms: Terms,
    /// Once it has taken over, nothing older than this is taken any more.
    #[serde(default)]
    pub oldest: Option<ReleaseVersion>,
    /// Models that answered when it was staged, and have to again.
    #[serde(default)]
    pub models: Vec<String>,
    /// Its starts.
    pub lives: Lives,
    /// When the last of them was, in seconds since the device itself started.
    #[serde(default)]
    pub begun_s: u64,
}

/// A candidate that gave way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    pub program: Program,
    /// Why.
    pub reason: String,
    /// Whether it is to blame. A cloud that it did not reach may not have been there: that shows when the
    /// program before it tries.
    #[serde(default)]
    pub is_proven: bool,
    /// How long it had.
    #[serde(default)]
    pub patience_s: u32,
}

/// A start of the device's agent.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The version of the installed program.
    pub installed: ReleaseVersion,
    /// Which run of the device it is.
    pub boot: &'a str,
    /// Seconds since that began.
    pub uptime_s: u64,
}

/// What a start begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// A program that is kept, or the installed one.
    pub program: Option<Program>,
    /// It is ended after so many seconds, unless it has said that it is well.
    pub alarm_s: Option<u32>,
}

/// What to do about a program that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Nothing: it runs, or nothing is wanted.
    Rest,
    /// It must come here first, and is tried then.
    Get,
    /// Another is on trial: see what becomes of that.
    Await,
    /// The candidate is not wanted any more, and gives way.
    Withdraw,
    /// The candidate is well and something after it is wanted: it has taken over.
    Settle,
    /// The installed program is what is wanted.
    UseInstalled,
    /// It must not run here.
    Refuse(String),
}

/// A program that is wanted, and what is installed here.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// What is wanted.
    pub program: &'a Program,
    /// What is installed.
    pub installed: &'a Program,
}

/// What is kept of all that, on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Takeover {
    /// How far the candidate has come.
    pub stage: Stage,
    /// What runs but for a candidate: a program that is kept, or the installed one.
    pub current: Option<Program>,
    /// What comes next.
    pub candidate: Option<Candidate>,
    /// What ran before `current`, for when that is damaged.
    pub spare: Option<Program>,
    /// Nothing older is taken.
    pub oldest: Option<ReleaseVersion>,
    /// What gave way last.
    pub refused: Option<Refused>,
    /// What else there is to say: of damaged files.
    pub note: String,
}

impl Takeover {
    /// The program that a start begins with. To be written down before that.
    pub fn launch(&mut self, start: Start<'_>) -> Launch {
        self.give_way_to_installed(start.installed);
        let (Some(candidate), Some(next)) =
            (self.candidate.as_mut(), transition(self.stage, Event::Started))
        else {
            return Launch { program: self.current.clone(), alarm_s: None };
        };
        if let Some(reason) = begin(candidate, self.stage, start) {
            self.fail(reason, true);
            return Launch { program: self.current.clone(), alarm_s: None };
        }
        let alarm_s = candidate.terms.patience_s.saturating_add(GRACE_S);
        let alarm_s = (next == Stage::Trial).then_some(alarm_s);
        self.stage = next;
        Launch { program: Some(candidate.program.clone()), alarm_s }
    }

    /// A package may have brought something newer than all that is kept.
    fn give_way_to_installed(&mut self, installed: ReleaseVersion) {
        let is_older = |program: &Program| program.version <= installed;
        if self.current.as_ref().is_some_and(is_older) {
            self.current = self.spare.take().filter(|spare| !is_older(spare));
        }
        self.spare.take_if(|spare| is_older(spare));
        if self.candidate.as_ref().is_some_and(|candidate| is_older(&candidate.program)) {
            self.drop_candidate(Event::Superseded);
        }
    }

    /// What runs now, `None` for the installed program.
    pub fn running(&self) -> Option<&Program> {
        match (self.stage, &self.candidate) {
            (Stage::Trial | Stage::Soak, Some(candidate)) => Some(&candidate.program),
            _ => self.current.as_ref(),
        }
    }

    /// Every program whose file is to be kept.
    pub fn kept(&self) -> impl Iterator<Item = &Program> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.program);
        [self.current.as_ref(), self.spare.as_ref(), candidate].into_iter().flatten()
    }

    /// A file is not what it was, or does not run: what was to begin with it begins with what was before.
    pub fn damaged(&mut self, program: &Program, why: &str) {
        self.note = format!("the program of version {} {why}", program.version);
        if self.candidate.as_ref().is_some_and(|candidate| candidate.program == *program) {
            self.fail(format!("its file {why}"), true);
        }
        self.spare.take_if(|spare| spare == program);
        if self.current.as_ref() == Some(program) {
            self.current = self.spare.take();
        }
    }

    /// What to do about what is wanted.
    pub fn wish(&self, wanted: Option<Wanted<'_>>) -> Wish {
        let Some(Wanted { program, installed }) = wanted else {
            return if self.stage == Stage::Staged { Wish::Withdraw } else { Wish::Rest };
        };
        let before = self.current.as_ref().unwrap_or(installed);
        match self.stage {
            Stage::Staged if !self.is_candidate(program) => return Wish::Withdraw,
            Stage::Trial if !self.is_candidate(program) => return Wish::Await,
            Stage::Soak if program == before => return Wish::Withdraw,
            Stage::Soak if !self.is_candidate(program) => return Wish::Settle,
            Stage::Staged | Stage::Trial | Stage::Soak => return Wish::Rest,
            Stage::Settled => {}
        }
        match self.objection(program, installed) {
            Some(reason) => Wish::Refuse(reason),
            None if program == before => Wish::Rest,
            None if program == installed => Wish::UseInstalled,
            None => Wish::Get,
        }
    }

    fn is_candidate(&self, program: &Program) -> bool {
        self.candidate.as_ref().is_some_and(|candidate| candidate.program == *program)
    }

    fn objection(&self, wanted: &Program, installed: &Program) -> Option<String> {
        let refused = self.refused.as_ref().filter(|refused| refused.program == *wanted);
        if let Some(refused) = refused.filter(|refused| refused.is_proven) {
            return Some(refused.reason.clone());
        }
        if let Some(oldest) = self.oldest.filter(|oldest| wanted.version < *oldest) {
            return Some(format!("after what has run here nothing older than {oldest} is taken"));
        }
        if wanted.version < installed.version {
            let version = installed.version;
            return Some(format!(
                "version {version} is installed: its package would have to be older"
            ));
        }
        let is_other = wanted.version == installed.version && wanted != installed;
        is_other.then(|| "the installed program is of this version, but another build".to_owned())
    }

    /// A verified program lies ready.
    ///
    /// # Errors
    /// Another one is on trial.
    pub fn stage(&mut self, candidate: Candidate) -> Result<(), IllegalTransition> {
        self.step(Event::Staged)?;
        self.spare = None; // there are two slots
        self.candidate = Some(candidate);
        Ok(())
    }

    /// The candidate is not wanted any more.
    ///
    /// # Errors
    /// There is none, or it is on trial.
    pub fn withdraw(&mut self) -> Result<(), IllegalTransition> {
        self.step(Event::Withdrawn)?;
        self.candidate = None;
        Ok(())
    }

    /// The candidate is well.
    ///
    /// # Errors
    /// It is not on trial.
    pub fn well(&mut self) -> Result<(), IllegalTransition> {
        self.step(Event::Well)?;
        self.word();
        Ok(())
    }

    /// The candidate goes on being well.
    pub fn word(&mut self) {
        if let Some(candidate) = &mut self.candidate {
            candidate.lives.well = true;
            candidate.lives.starts = 0;
        }
    }

    /// The candidate has taken over.
    ///
    /// # Errors
    /// It is not in its soak.
    pub fn held(&mut self) -> Result<(), IllegalTransition> {
        self.step(Event::Held)?;
        if let Some(candidate) = self.candidate.take() {
            self.spare = self.current.replace(candidate.program);
            self.oldest = self.oldest.max(candidate.oldest);
        }
        self.refused = None;
        self.note.clear();
        Ok(())
    }

    /// The candidate gives way to what ran before it; whether there was one.
    pub fn fail(&mut self, reason: String, is_proven: bool) -> bool {
        let Some(candidate) = self.drop_candidate(Event::Failed) else { return false };
        let Candidate { program, terms, .. } = candidate;
        let patience_s = terms.patience_s;
        self.refused = Some(Refused { program, reason, is_proven, patience_s });
        true
    }

    /// None is wanted any more: what gave way may be tried again when it is.
    pub fn forgive(&mut self) {
        self.refused = None;
    }

    /// From the next start on the installed program runs.
    pub fn use_installed(&mut self) {
        (self.current, self.spare) = (None, None);
    }

    /// The agent ends in order: whoever runs is not to blame.
    pub fn ends_in_order(&mut self) {
        if let Some(candidate) = self.candidate.as_mut().filter(|_| self.stage != Stage::Staged) {
            candidate.lives = candidate.lives.clone().ended_well();
        }
    }

    /// The program before has reached the cloud `after_s` seconds after its start: then one that did not, within
    /// its patience, was to blame, or else may try again.
    pub fn reached(&mut self, after_s: u64) {
        let refused = self.refused.as_mut().filter(|refused| !refused.is_proven);
        let Some(refused) = refused else { return };
        match after_s <= refused.patience_s.into() {
            true => refused.is_proven = true,
            false => self.refused = None,
        }
    }

    fn drop_candidate(&mut self, event: Event) -> Option<Candidate> {
        self.step(event).ok()?;
        self.candidate.take()
    }

    fn step(&mut self, event: Event) -> Result<(), IllegalTransition> {
        let next = transition(self.stage, event);
        self.stage = next.ok_or_else(|| IllegalTransition::new(self.stage, event))?;
        Ok(())
    }
}

/// Counts a start of a candidate; why it must not be, where it has had its chances.
fn begin(candidate: &mut Candidate, stage: Stage, start: Start<'_>) -> Option<String> {
    let Candidate { lives, terms, begun_s, .. } = candidate;
    if stage == Stage::Staged {
        *lives = Lives::begin(start.boot);
    } else {
        let ran_s = start.uptime_s.saturating_sub(*begun_s);
        let hung = lives.open && lives.boot == start.boot && ran_s >= terms.patience_s.into();
        if stage == Stage::Trial && hung {
            let patience_s = terms.patience_s;
            return Some(format!(
                "it was not well within {patience_s} s, and did not end by itself"
            ));
        }
        *lives = lives.clone().start(start.boot, false);
        if let Some(fault) = lives.fault(terms.starts) {
            return Some(told(&fault, stage));
        }
    }
    *begun_s = start.uptime_s;
    None
}

/// Faults of models are told otherwise.
fn told(fault: &Fault, stage: Stage) -> String {
    let before =
        if stage == Stage::Trial { "before it was well" } else { "soon after it was well" };
    match fault {
        Fault::Starts { starts } => format!("it ended {starts} times in a row {before}"),
        Fault::Crashes { crashes } => format!("it crashed {crashes} times"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
