//! How a model gets from wanted to active on a device, and back.
//!
//! One [`Update`] per model. The agent carries out each [`Action`] and reports an [`Event`]. Two slots:
//! the active version answers all the while, the candidate waits beside it, and they change places only
//! with [`Event::Switched`]. What is active then is on probation ([`crate::probation`]); where it does
//! not hold, the version before takes its place again ([`Event::RolledBack`]).
//!
//! ```text
//! idle -> fetching -> verifying -> staging -> warming-up -> shadow -> switching -> idle (on trial)
//!            |            |           |           |           |          |
//!            +------------+--- waiting, or refused -----------+----------+
//! ```
//!
//! * *fetching*: the files are on their way, into the candidate's folder;
//! * *verifying*: every hash, then load, first run and probes in a confined child;
//! * *staging*: the candidate is written down, so that it goes on from here after a restart, without a cloud;
//! * *warming up*: it is loaded where it will answer, on the execution provider that is right for it;
//! * *shadow*: it answers beside the active version, for nobody ([`crate::shadow`]).

use serde::{Deserialize, Serialize};

use crate::IllegalTransition;
use protocol::id::{ContentHash, Version};

/// What is wanted: a version, by the bundle that it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// The version.
    pub version: Version,
    /// The hash of its manifest.
    pub bundle: ContentHash,
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// The bundle's files are on their way.
    Fetching,
    /// Hashes, load and probes, in a confined child.
    Verifying,
    /// The candidate is being written down.
    Staging,
    /// It is being loaded where it will answer.
    WarmingUp,
    /// It answers beside the active version, for nobody.
    Shadow,
    /// The switch itself.
    Switching,
    /// Failed for a reason that may pass; the next attempt has its time.
    Waiting,
    /// Failed for a reason that will not pass: nothing is tried until another target is wanted.
    Refused,
}

impl Phase {
    /// The phase as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Fetching => "fetching",
            Phase::Verifying => "verifying",
            Phase::Staging => "staging",
            Phase::WarmingUp => "warming-up",
            Phase::Shadow => "shadow",
            Phase::Switching => "switching",
            Phase::Waiting => "waiting",
            Phase::Refused => "refused",
        }
    }
}

/// What happened to an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Something else is wanted than before.
    Wanted,
    /// Nothing else is wanted than what is active.
    Satisfied,
    /// A candidate was found that had been staged before a restart.
    Found,
    /// All files are here.
    Fetched,
    /// The bundle is what was signed, loads, and answers its probes.
    Verified,
    /// The candidate is written down.
    Staged,
    /// It is loaded where it will answer.
    Warm,
    /// It did as well as the active version, as far as could be seen.
    Agreed,
    /// The new version answers from now on.
    Switched,
    /// A failure that may pass: no link, no space, a broken transfer.
    Failed,
    /// A failure that will not pass: forged, damaged at the source, wrong answers.
    Condemned,
    /// The wait is over.
    RetryDue,
    /// What was active did not hold, and the version before it answers again.
    RolledBack,
}

/// What is to be done for an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Fetch the target's files.
    Fetch,
    /// Check hashes, and have it loaded and probed in a confined child.
    Verify,
    /// Write the candidate down.
    Stage,
    /// Load it where it will answer.
    WarmUp,
    /// Have it answer beside the active version.
    Shadow,
    /// Switch to the target.
    Switch,
    /// Wait, then report [`Event::RetryDue`].
    Wait,
    /// Nothing until something else is wanted.
    Rest,
}

/// The update of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    phase: Phase,
    active: Option<Target>,
    target: Option<Target>,
    reason: String,
}

impl Update {
    /// A model with this active version, or none yet.
    pub fn new(active: Option<Target>) -> Self {
        Self { phase: Phase::Idle, active, target: None, reason: String::new() }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What answers now.
    pub fn active(&self) -> Option<Target> {
        self.active
    }

    /// What is being installed, or was refused.
    pub fn target(&self) -> Option<Target> {
        self.target
    }

    /// Why the target is not active; empty when nothing is wrong.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Another desired state arrived. Says what to do now, or `None` when it changes nothing.
    ///
    /// # Errors
    /// None in practice: every phase takes both events.
    pub fn want(&mut self, target: Option<Target>) -> Result<Option<Action>, IllegalTransition> {
        let target = target.filter(|t| Some(*t) != self.active);
        if target == self.target {
            return Ok(None);
        }
        self.target = target;
        self.reason.clear();
        let event = if target.is_some() { Event::Wanted } else { Event::Satisfied };
        self.step(event).map(Some)
    }

    /// Goes on with a candidate that was staged before a restart.
    ///
    /// # Errors
    /// Something is under way already.
    pub fn found(&mut self, candidate: Target) -> Result<Action, IllegalTransition> {
        let action = self.step(Event::Found)?;
        self.target = Some(candidate);
        Ok(action)
    }

    /// The next action after an event that needs no explanation.
    ///
    /// # Errors
    /// An event that cannot happen in this phase.
    pub fn handle(&mut self, event: Event) -> Result<Action, IllegalTransition> {
        let action = self.step(event)?;
        match event {
            Event::Switched => {
                self.active = self.target.take();
                self.reason.clear();
            }
            // The last failure is of interest until the attempt after it is through.
            Event::RetryDue | Event::Fetched => {}
            _ => self.reason.clear(),
        }
        Ok(action)
    }

    /// The next action after a failure; `passing` tells whether trying again can help.
    ///
    /// # Errors
    /// A failure that cannot happen in this phase.
    pub fn fail(&mut self, passing: bool, reason: String) -> Result<Action, IllegalTransition> {
        let action = self.step(if passing { Event::Failed } else { Event::Condemned })?;
        self.reason = reason;
        Ok(action)
    }

    /// What was active gave way to the version before it, or to none. The next action; `None` where
    /// another update is under way, which goes on.
    ///
    /// # Errors
    /// None in practice.
    pub fn rolled_back(
        &mut self,
        to: Option<Target>,
        reason: String,
    ) -> Result<Option<Action>, IllegalTransition> {
        let bad = std::mem::replace(&mut self.active, to);
        if self.target.is_some() && self.target == to {
            return self.want(None); // what was on its way is there again
        }
        if self.target.is_some() {
            return Ok(None);
        }
        self.target = bad;
        let action = self.step(Event::RolledBack)?;
        self.reason = reason;
        Ok(Some(action))
    }

    fn step(&mut self, event: Event) -> Result<Action, IllegalTransition> {
        let (phase, action) = transition(self.phase, event)
            .ok_or_else(|| IllegalTransition::new(self.phase, event))?;
        self.phase = phase;
        Ok(action)
    }
}

fn transition(phase: Phase, event: Event) -> Option<(Phase, Action)> {
    use Event as E;
    use Phase::{
        Fetching, Idle, Refused, Shadow, Staging, Switching, Verifying, Waiting, WarmingUp,
    };
    Some(match (phase, event) {
        (_, E::Wanted) => (Fetching, Action::Fetch),
        (_, E::Satisfied) => (Idle, Action::Rest),
        (Idle, E::Found) | (Staging, E::Staged) => (WarmingUp, Action::WarmUp),
        (Fetching, E::Fetched) => (Verifying, Action::Verify),
        (Verifying, E::Verified) => (Staging, Action::Stage),
        (WarmingUp, E::Warm) => (Shadow, Action::Shadow),
        (Shadow, E::Agreed) => (Switching, Action::Switch),
        (Switching, E::Switched) => (Idle, Action::Rest),
        (Fetching | Verifying | Staging | WarmingUp | Shadow | Switching, E::Failed) => {
            (Waiting, Action::Wait)
        }
        (Fetching | Verifying | WarmingUp | Shadow, E::Condemned) => (Refused, Action::Rest),
        (Waiting, E::RetryDue) => (Fetching, Action::Fetch),
        (Idle, E::RolledBack) => (Refused, Action::Rest),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
