//! How a model gets from wanted to active on a device.
//!
//! One [`Update`] per model. The agent carries out each [`Action`] and reports an [`Event`]; the
//! active version answers all the while and changes only with [`Event::Activated`].
//!
//! ```text
//! idle -> fetching -> checking -> activating -> idle
//!             |           |            |
//!          waiting     refused      waiting
//! ```

use serde::{Deserialize, Serialize};

use crate::IllegalTransition;
use protocol::id::{ContentHash, Version};

/// What is wanted: a version, by the bundle that it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The version.
    pub version: Version,
    /// The hash of its manifest.
    pub bundle: ContentHash,
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing to do.
    Idle,
    /// The bundle's files are on their way.
    Fetching,
    /// Hashes, load and probes.
    Checking,
    /// The switch itself.
    Activating,
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
            Phase::Checking => "checking",
            Phase::Activating => "activating",
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
    /// All files are here.
    Fetched,
    /// The bundle is what was signed, loads, and answers its probes.
    Checked,
    /// The new version answers from now on.
    Activated,
    /// A failure that may pass: no link, no space, a broken transfer.
    Failed,
    /// A failure that will not pass: forged, damaged at the source, wrong answers.
    Condemned,
    /// The wait is over.
    RetryDue,
}

/// What is to be done for an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Fetch the target's files.
    Fetch,
    /// Check hashes, load, answer probes.
    Check,
    /// Switch to the target.
    Activate,
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

    /// The next action after an event that needs no explanation.
    ///
    /// # Errors
    /// An event that cannot happen in this phase.
    pub fn handle(&mut self, event: Event) -> Result<Action, IllegalTransition> {
        let action = self.step(event)?;
        if event == Event::Activated {
            self.active = self.target.take();
        }
        if !matches!(event, Event::RetryDue | Event::Fetched) {
            self.reason.clear();
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

    fn step(&mut self, event: Event) -> Result<Action, IllegalTransition> {
        let (phase, action) = transition(self.phase, event)
            .ok_or_else(|| IllegalTransition::new(self.phase, event))?;
        self.phase = phase;
        Ok(action)
    }
}

fn transition(phase: Phase, event: Event) -> Option<(Phase, Action)> {
    use Event::{Activated, Checked, Condemned, Failed, Fetched, RetryDue, Satisfied, Wanted};
    use Phase::{Activating, Checking, Fetching, Idle, Refused, Waiting};
    Some(match (phase, event) {
        (_, Wanted) => (Fetching, Action::Fetch),
        (_, Satisfied) => (Idle, Action::Rest),
        (Fetching, Fetched) => (Checking, Action::Check),
        (Checking, Checked) => (Activating, Action::Activate),
        (Activating, Activated) => (Idle, Action::Rest),
        (Fetching | Checking | Activating, Failed) => (Waiting, Action::Wait),
        (Fetching | Checking, Condemned) => (Refused, Action::Rest),
        (Waiting, RetryDue) => (Fetching, Action::Fetch),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(version: u64) -> Target {
        Target {
            version: Version::new(version).unwrap(),
            bundle: ContentHash::of(&version.to_le_bytes()),
        }
    }

    #[test]
    fn table() {
        use Phase::{Activating, Checking, Fetching, Idle, Refused, Waiting};
        let mut lines = Vec::new();
        for phase in [Idle, Fetching, Checking, Activating, Waiting, Refused] {
            for event in [
                Event::Wanted,
                Event::Satisfied,
                Event::Fetched,
                Event::Checked,
                Event::Activated,
                Event::Failed,
                Event::Condemned,
                Event::RetryDue,
            ] {
                let to = match transition(phase, event) {
                    Some((next, action)) => format!("{next:?}, {action:?}"),
                    None => "-".into(),
                };
                lines.push(format!(
                    "{:10} {:9} -> {to}",
                    format!("{phase:?}"),
                    format!("{event:?}")
                ));
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn the_active_version_changes_only_at_the_end() {
        let mut update = Update::new(Some(target(1)));
        assert_eq!(update.want(Some(target(1))), Ok(None), "already active");
        assert_eq!(update.want(Some(target(2))), Ok(Some(Action::Fetch)));
        assert_eq!(update.want(Some(target(2))), Ok(None), "already on its way");
        assert_eq!(update.handle(Event::Fetched), Ok(Action::Check));
        assert_eq!(update.handle(Event::Checked), Ok(Action::Activate));
        assert_eq!(update.active(), Some(target(1)));
        assert_eq!(update.handle(Event::Activated), Ok(Action::Rest));
        assert_eq!((update.active(), update.target()), (Some(target(2)), None));
    }

    #[test]
    fn a_condemned_target_is_not_tried_again_but_another_is() {
        let mut update = Update::new(Some(target(1)));
        update.want(Some(target(2))).unwrap();
        assert_eq!(update.fail(false, "forged".into()), Ok(Action::Rest));
        assert_eq!((update.phase(), update.reason()), (Phase::Refused, "forged"));
        assert_eq!(update.want(Some(target(2))), Ok(None));
        assert_eq!(update.want(Some(target(3))), Ok(Some(Action::Fetch)));
        assert_eq!((update.active(), update.reason()), (Some(target(1)), ""));
    }

    #[test]
    fn a_passing_failure_keeps_its_reason_until_the_retry_ends() {
        let mut update = Update::new(None);
        update.want(Some(target(1))).unwrap();
        assert_eq!(update.fail(true, "no link".into()), Ok(Action::Wait));
        assert_eq!(update.handle(Event::RetryDue), Ok(Action::Fetch));
        assert_eq!(update.reason(), "no link");
        assert!(update.handle(Event::Activated).is_err());
    }
}
