//! Roll-outs: how a version reaches a fleet in stages, each gated on how it answers there.
//!
//! A [`Rollout`] tells devices, stage by stage, to take a version, and watches them: a device has succeeded once the version
//! has *served* so many real requests on it; what is silent past its deadline has failed. Beside the devices of a stage stand
//! those that still have the old version: the gates ([`gate`]) compare the two, and on a breach the way back begins by
//! itself, with the evidence in one line.
//!
//! ```text
//! awaiting-approval -> offering -> soaking -> (offering ...) -> done
//!         |               |  ^        |
//!         |               v  |        v
//!         v              paused -> rolling-back -> rolled-back
//!      aborted
//! ```
//!
//! No state is without an end: approval, pause and every device have their deadline, and the whole has an expiry, after
//! which it goes back. **Time that nobody watched does not pass**: a roll-out counts its own seconds, at most [`STEP_MAX_S`]
//! for each look. A cloud that was down, or a clock that jumps by years, makes no device late and cuts no soak short.
//!
//! Plain values in and out: whoever drives it stores it as it is (serde), brings what devices report, and carries out the
//! [`Action`]s.

use std::collections::BTreeMap;

use protocol::id::{DeviceId, Version};
use serde::{Deserialize, Serialize};

use crate::access::Actor;
use cohort::{Candidate, Cohort, draw};
use gate::{Breach, Compared};
use member::{Failure, Member, Standing};
use plan::{Plan, PlanError};
use tally::Tally;

pub mod cohort;
pub mod gate;
pub mod ledger;
pub mod member;
pub mod plan;
pub mod query;
mod rank;
pub mod tally;

/// So much time passes at most between two looks.
pub const STEP_MAX_S: u64 = 120;
/// A pause that nobody ended goes back after so long: seven days.
pub const PAUSE_MAX_S: u64 = 7 * 86_400;
/// A plan that was not approved for so long is given up: seven days.
pub const APPROVAL_MAX_S: u64 = 7 * 86_400;
/// Roll-outs that run at a time.
pub const ROLLOUTS_MAX: usize = 64;
/// While roll-outs look at devices, one of so many calls is checked: a version that is wrong on one class of ten is
/// among twenty canaries seen by it, and not by one of a hundred (`cargo xtask prove rollout`).
pub const CALLS_PER_CHECK: u32 = 20;
/// Of more devices fewer calls each are checked: the clouds' work stays what it is, and the gates see as much.
const CHECKING_DEVICES: usize = 1000;
/// Frames of evidence that a fleet is asked for in a second, of all devices together.
pub const EVIDENCE_PER_S: usize = 500;
/// So long a device is waited for that has not said what it does without the version, once it could be told.
pub const BASELINE_MAX_S: u64 = 60;
/// Entries of a history at most; then the oldest but the first ten go.
pub const HISTORY_MAX: usize = 1000;

/// Of so many calls one is checked on each of so many devices.
pub fn calls_per_check(devices: usize) -> u32 {
    let shared = devices.saturating_mul(CALLS_PER_CHECK as usize) / CHECKING_DEVICES;
    CALLS_PER_CHECK.max(u32::try_from(shared).unwrap_or(u32::MAX))
}

/// Where a roll-out stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// More people have to agree.
    AwaitingApproval,
    /// The devices of the stage are told, and take the version.
    Offering,
    /// All of them serve, or failed within what is allowed; they are watched.
    Soaking,
    /// Somebody, or too much silence, has stopped it; nobody is told.
    Paused,
    /// The devices go back to what they had.
    RollingBack,
    /// They are back. The end.
    RolledBack,
    /// Given up before any device was told. The end.
    Aborted,
    /// The whole target has it. The end.
    Done,
}

impl Phase {
    /// The phase as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::AwaitingApproval => "awaiting-approval",
            Phase::Offering => "offering",
            Phase::Soaking => "soaking",
            Phase::Paused => "paused",
            Phase::RollingBack => "rolling-back",
            Phase::RolledBack => "rolled-back",
            Phase::Aborted => "aborted",
            Phase::Done => "done",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_end(self) -> bool {
        matches!(self, Phase::RolledBack | Phase::Aborted | Phase::Done)
    }
}

/// What happened to a roll-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Enough people agree.
    Approved,
    /// Every device of the stage has succeeded or failed.
    Settled,
    /// The soak is over, the gates held, and there is a next stage.
    Passed,
    /// The same after the last stage.
    Finished,
    /// A gate closed, or too many devices said no.
    Breached,
    /// Too many devices are silent.
    Silent,
    /// Somebody stops it for now.
    Paused,
    /// Somebody lets it go on.
    Resumed,
    /// Somebody gives it up.
    Aborted,
    /// Its time, or that of its pause or approval, is over.
    Expired,
    /// Every device is back, or was given its time to be.
    Returned,
}

/// The table.
fn transition(phase: Phase, event: Event) -> Option<Phase> {
    use Event as E;
    use Phase as P;
    Some(match (phase, event) {
        (P::AwaitingApproval, E::Approved) | (P::Soaking, E::Passed) | (P::Paused, E::Resumed) => {
            P::Offering
        }
        (P::AwaitingApproval, E::Aborted | E::Expired) => P::Aborted,
        (P::Offering, E::Settled) => P::Soaking,
        (P::Soaking, E::Finished) => P::Done,
        (P::Offering | P::Soaking, E::Silent | E::Paused) => P::Paused,
        (P::Offering | P::Soaking | P::Paused, E::Breached | E::Aborted | E::Expired) => {
            P::RollingBack
        }
        (P::RollingBack, E::Returned) => P::RolledBack,
        _ => return None,
    })
}

/// What is to be done on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is to run the version.
    Offer(DeviceId),
    /// It is to run what it ran before.
    Return(DeviceId),
}

/// What is known of a device at a look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The version of the model that answers there.
    pub active: Option<Version>,
    /// Why it does not take the version, or went back from it, in its own words.
    pub refused: Option<String>,
    /// What it has counted for the active version; nothing where it has not said so, as agents from before roll-outs do not.
    pub tally: Option<Tally>,
    /// Who computes it there; empty where that is not known.
    pub provider: String,
}

/// What somebody wants of a roll-out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Agree to it.
    Approve,
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// Give it up, and go back.
    Abort,
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It makes no sense where the roll-out stands.
    #[error("a roll-out that is {} cannot be told to {command}", phase.as_str())]
    Phase {
        /// Where it stands.
        phase: Phase,
        /// The command as a word.
        command: &'static str,
    },
    /// One person's word counts once.
    #[error("{0} has agreed already; somebody else has to")]
    SamePerson(String),
}

/// One line of a roll-out's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in Unix seconds by the cloud's clock.
    pub at_s: u64,
    /// The phase since then.
    pub phase: Phase,
    /// The stage, from 0.
    pub stage: usize,
    /// What happened, and why.
    pub what: String,
}

/// One roll-out, with everything that has to be kept of it. Its members are kept apart, each by itself: few of many
/// change between two looks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    plan: Plan,
    version: Version,
    #[serde(skip)]
    members: BTreeMap<DeviceId, Member>,
    /// The devices in the order in which they are told.
    #[serde(skip)]
    order: Vec<DeviceId>,
    phase: Phase,
    stage: usize,
    agreed: Vec<Actor>,
    /// The roll-out's own seconds, and the clock at the last look.
    clock_s: u64,
    looked_at_s: u64,
    /// Since when, by its own seconds, the phase holds.
    since_s: u64,
    /// How many devices may still be told, by the rate.
    credit: f64,
    /// Looks of the gates in this stage, and how much evidence the next one needs.
    looks: u32,
    /// Silent devices that somebody has let pass.
    silence_accepted: usize,
    reason: String,
    breach: Option<Breach>,
    history: Vec<Entry>,
}

/// Counts and places of a roll-out, as people want to see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Devices of the target.
    pub devices: usize,
    /// That have to have it at the end of this stage.
    pub stage_devices: usize,
    /// Told so far.
    pub told: usize,
    /// The version has served enough requests there.
    pub succeeded: usize,
    /// Failed, for whatever reason.
    pub failed: usize,
    /// Back on what they had.
    pub returned: usize,
}

impl Rollout {
    /// Plans a roll-out over this fleet: who gets it when is decided here, and devices that come later are not part of it.
    ///
    /// # Errors
    /// The plan makes no sense, or there is nobody to carry it out on. Nothing was begun then.
    pub fn plan(
        plan: Plan,
        fleet: &[Candidate],
        by: &Actor,
        seed: &[u8; 16],
        now_s: u64,
    ) -> Result<(Self, Cohort), PlanError> {
        let cohort = draw(&plan, fleet, seed)?;
        let version = plan.version.ok_or(PlanError::Missing("a version"))?;
        let member = |(at, place): (usize, &cohort::Place)| {
            (place.device.clone(), Member::new(at, place.stage, place.stratum))
        };
        let needs_approval = plan.needs_approval(cohort.places.len());
        let mut rollout = Self {
            version,
            members: cohort.places.iter().enumerate().map(member).collect(),
            order: cohort.places.iter().map(|place| place.device.clone()).collect(),
            phase: if needs_approval { Phase::AwaitingApproval } else { Phase::Offering },
            stage: 0,
            agreed: vec![by.clone()],
            clock_s: 0,
            looked_at_s: now_s,
            since_s: 0,
            credit: 1.0,
            looks: 0,
            silence_accepted: 0,
            reason: String::new(),
            breach: None,
            history: Vec::new(),
            plan,
        };
        rollout.note(format!("planned by {} for {} devices", by.name(), rollout.order.len()));
        Ok((rollout, cohort))
    }

    /// Puts a roll-out that was kept together with its members.
    #[must_use]
    pub fn with_members(self, members: BTreeMap<DeviceId, Member>) -> Self {
        let mut places: Vec<_> = members.iter().map(|(device, m)| (m.place, device)).collect();
        places.sort_unstable();
        let order = places.into_iter().map(|(_, device)| device.clone()).collect();
        Self { order, members, ..self }
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The stage, from 0.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// The version that it brings.
    pub fn version(&self) -> Version {
        self.version
    }

    /// For how long it has stood there, by its own seconds.
    pub fn in_phase_s(&self) -> u64 {
        self.clock_s - self.since_s
    }

    /// Who has agreed, the one who planned it among them.
    pub fn agreed(&self) -> &[Actor] {
        &self.agreed
    }

    /// The plan.
    pub fn plan_of(&self) -> &Plan {
        &self.plan
    }

    /// Why it stands there, in one line; empty while all is well.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The evidence of the gate that closed.
    pub fn breach(&self) -> Option<&Breach> {
        self.breach.as_ref()
    }

    /// Everything that happened, oldest first.
    pub fn history(&self) -> &[Entry] {
        &self.history
    }

    /// Its devices.
    pub fn members(&self) -> &BTreeMap<DeviceId, Member> {
        &self.members
    }

    /// Whether this device has been told to run the version, and not to go back since.
    pub fn wants(&self, device: &DeviceId) -> bool {
        self.members.get(device).is_some_and(|member| member.standing.is_told())
    }

    /// What is counted.
    pub fn progress(&self) -> Progress {
        let count = |holds: fn(&Standing) -> bool| {
            self.members.values().filter(|member| holds(&member.standing)).count()
        };
        Progress {
            devices: self.members.len(),
            stage_devices: self.members.values().filter(|m| m.stage <= self.stage).count(),
            told: count(|s| *s != Standing::Waiting),
            succeeded: count(|s| *s == Standing::Succeeded),
            failed: count(|s| matches!(s, Standing::Failed(_) | Standing::Stranded)),
            returned: count(|s| *s == Standing::Returned),
        }
    }

    /// Somebody wants something of it.
    ///
    /// # Errors
    /// [`CommandError`]; nothing changed then.
    pub fn handle_command(
        &mut self,
        command: Command,
        by: &Actor,
        now_s: u64,
    ) -> Result<(), CommandError> {
        self.watch(now_s);
        match command {
            Command::Approve => self.approve(by),
            Command::Pause => self.command(Event::Paused, "pause", by.name()),
            Command::Abort => self.command(Event::Aborted, "abort", by.name()),
            Command::Resume => {
                self.command(Event::Resumed, "resume", by.name())?;
                self.silence_accepted = self.silences().count();
                self.reason.clear();
                Ok(())
            }
        }
    }

    fn approve(&mut self, by: &Actor) -> Result<(), CommandError> {
        if self.phase != Phase::AwaitingApproval {
            return Err(CommandError::Phase { phase: self.phase, command: "approve" });
        }
        if let Some(same) = self.agreed.iter().find(|actor| actor.is_same(by)) {
            return Err(CommandError::SamePerson(same.name().to_owned()));
        }
        self.agreed.push(by.clone());
        self.note(format!("approved by {}", by.name()));
        if self.agreed.len() >= usize::from(self.plan.approvals) {
            self.step(Event::Approved, "");
        }
        Ok(())
    }

    fn command(
        &mut self,
        event: Event,
        command: &'static str,
        by: &str,
    ) -> Result<(), CommandError> {
        if transition(self.phase, event).is_none() {
            return Err(CommandError::Phase { phase: self.phase, command });
        }
        self.step(event, &format!("{command} by {by}"));
        Ok(())
    }

    /// What a device says of itself; only while it is in reach.
    pub fn handle_report(&mut self, device: &DeviceId, report: &Report, now_s: u64) {
        self.watch(now_s);
        let Some(member) = self.members.get_mut(device) else { return };
        let (version, requests_min) = (self.version, self.plan.requests_min);
        member.handle_report(report, version, requests_min, self.clock_s);
    }

    /// Somebody has removed a device from the fleet: it counts as failed. Whether it is one of these.
    pub fn handle_removed(&mut self, device: &DeviceId, by: &str, now_s: u64) -> bool {
        self.watch(now_s);
        let Some(member) = self.members.get_mut(device) else { return false };
        member.remove();
        self.note(format!("{device} was removed from the fleet by {by}"));
        true
    }

    /// Looks at everything once, and says what is to be done. Call it every few seconds, after the reports.
    pub fn poll(&mut self, now_s: u64) -> Vec<Action> {
        self.watch(now_s);
        if !self.phase.is_end() {
            self.members
                .values_mut()
                .for_each(|m| m.handle_time(self.clock_s, self.plan.deadline_s));
            self.judge();
        }
        match self.phase {
            Phase::Offering => self.offer(now_s),
            Phase::RollingBack => self.go_back(),
            _ => Vec::new(),
        }
    }

    /// Lets time pass: as much as the clock says, at most [`STEP_MAX_S`], none where it went back.
    fn watch(&mut self, now_s: u64) {
        let passed = now_s.saturating_sub(self.looked_at_s).min(STEP_MAX_S);
        self.looked_at_s = now_s;
        self.clock_s += passed;
        // Counting all devices for each report of a fleet would be work by the square.
        if passed > 0 && self.phase == Phase::Offering {
            let succeeded = self.progress_of(|s| *s == Standing::Succeeded);
            let per_s = self.plan.rate.per_min(succeeded) / 60.0;
            // What was not used while nobody could be told is not told all at once later: a minute's worth at most.
            self.credit = (self.credit + per_s * number(passed)).min((per_s * 60.0).max(1.0));
        }
    }

    /// What has to change by what is known now; at most one step for each look.
    fn judge(&mut self) {
        let in_phase_s = self.in_phase_s();
        match self.phase {
            Phase::AwaitingApproval if in_phase_s >= APPROVAL_MAX_S => {
                self.step(Event::Expired, "nobody approved it in seven days");
            }
            Phase::Offering | Phase::Soaking | Phase::Paused => self.judge_stage(in_phase_s),
            Phase::RollingBack if self.is_back() => self.returned(),
            _ => {}
        }
    }

    fn judge_stage(&mut self, in_phase_s: u64) {
        if self.clock_s >= self.plan.expires_s {
            return self.step(Event::Expired, "its time was over before it was done");
        }
        if self.phase == Phase::Paused && in_phase_s >= PAUSE_MAX_S {
            return self.step(Event::Expired, "nobody ended the pause in seven days");
        }
        if let Some(reason) = self.refusals() {
            return self.step(Event::Breached, &reason);
        }
        let is_last_look = self.phase == Phase::Soaking && in_phase_s >= self.soak_s();
        if let Some(breach) = self.look(is_last_look) {
            let reason = breach.to_string();
            self.breach = Some(breach);
            return self.step(Event::Breached, &reason);
        }
        if let Some(reason) = self.silence().filter(|_| self.phase != Phase::Paused) {
            return self.step(Event::Silent, &reason);
        }
        match self.phase {
            Phase::Offering if self.is_settled() => self.step(Event::Settled, ""),
            Phase::Soaking if is_last_look => self.pass(),
            _ => {}
        }
    }

    fn pass(&mut self) {
        if self.stage + 1 == self.plan.stages.len() {
            return self.step(Event::Finished, "");
        }
        self.stage += 1;
        self.looks = 0;
        self.silence_accepted = 0;
        self.begin_baseline();
        self.step(Event::Passed, "");
    }

    /// From now on the devices without the version are counted anew: they are what this stage is compared with.
    fn begin_baseline(&mut self) {
        let stage = self.stage;
        let waiting = self.members.values_mut().filter(|m| m.stage >= stage);
        waiting.for_each(Member::begin_baseline);
    }

    fn soak_s(&self) -> u64 {
        self.plan.stages[self.stage].soak_s
    }

    fn stage_members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.stage == self.stage)
    }

    fn progress_of(&self, holds: fn(&Standing) -> bool) -> usize {
        self.members.values().filter(|member| holds(&member.standing)).count()
    }

    fn is_settled(&self) -> bool {
        self.stage_members()
            .all(|m| matches!(m.standing, Standing::Succeeded | Standing::Failed(_)))
    }

    fn is_back(&self) -> bool {
        let awaited = |m: &Member| m.standing.is_told() || m.standing == Standing::Returning;
        !self.members.values().any(awaited)
    }

    fn returned(&mut self) {
        let stranded = self.progress_of(|s| *s == Standing::Stranded);
        let what = match stranded {
            0 => String::new(),
            1 => "a device was not heard of; it goes back when it connects".to_owned(),
            _ => format!("{stranded} devices were not heard of; they go back when they connect"),
        };
        let reason = std::mem::take(&mut self.reason);
        self.step(Event::Returned, &what);
        self.reason = reason; // why it went back is what people ask for
    }

    fn silences(&self) -> impl Iterator<Item = &Failure> {
        self.stage_members().filter_map(|member| match &member.standing {
            Standing::Failed(failure) if failure.is_silence() => Some(failure),
            _ => None,
        })
    }

    /// Too many devices that said nothing, with what is known of one of them.
    fn silence(&self) -> Option<String> {
        let (silent, of) = (self.silences().count(), self.stage_members().count());
        let first = self.silences().next().filter(|_| silent > self.silence_allowed())?;
        let what = format!("{silent} of {of} devices were silent past their deadline");
        Some(format!("{what}, one of them: {first}"))
    }

    fn silence_allowed(&self) -> usize {
        allowed(self.plan.silent_max, self.stage_members().count()).max(1) + self.silence_accepted
    }

    /// Too many devices that said no, with the words of one of them.
    fn refusals(&self) -> Option<String> {
        let said_no: Vec<&Failure> = self
            .members
            .values()
            .filter_map(|m| match &m.standing {
                Standing::Failed(failure) if !failure.is_silence() => Some(failure),
                _ => None,
            })
            .collect();
        let told = self.progress_of(|s| *s != Standing::Waiting);
        let first = said_no.first()?;
        (said_no.len() > allowed(self.plan.failures_max, told))
            .then(|| format!("{} of {told} devices failed, one of them: {first}", said_no.len()))
    }

    /// The gates' next look, if there is twice as much to see as at the last one, or at the end of a soak.
    fn look(&mut self, is_last: bool) -> Option<Breach> {
        let evidence = self.evidence();
        let doubled = self.plan.requests_min << self.looks.min(40);
        if evidence == 0 || (evidence < doubled && !is_last) {
            return None;
        }
        let limit = gate::alpha_at(self.plan.alpha, self.plan.stages.len(), self.looks);
        self.looks += 1;
        gate::look(&self.compared(), limit)
    }

    /// How many requests the median device of the stage has served with the version.
    fn evidence(&self) -> u64 {
        let mut served: Vec<u64> =
            self.stage_members().filter(|m| m.is_treated()).map(|m| m.after.requests).collect();
        served.sort_unstable();
        served.get(served.len() / 2).copied().unwrap_or(0)
    }

    /// The devices of this stage beside those of later ones, in the order of the draw.
    fn compared(&self) -> Vec<Compared> {
        let members = self.order.iter().filter_map(|device| self.members.get(device));
        let of_interest = members.filter(|m| m.stage >= self.stage);
        of_interest.filter_map(Member::compared).collect()
    }

    fn offer(&mut self, now_s: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.plan.window.is_some_and(|window| !window.is_open(now_s)) {
            return actions;
        }
        let waits = self.in_phase_s() < BASELINE_MAX_S;
        for device in &self.order {
            let Some(member) = self.members.get_mut(device) else { continue };
            if waits && !member.is_known() {
                continue;
            }
            if member.stage > self.stage || self.credit < 1.0 {
                break;
            }
            if member.standing == Standing::Waiting {
                member.offer(self.clock_s);
                self.credit -= 1.0;
                actions.push(Action::Offer(device.clone()));
            }
        }
        actions
    }

    fn go_back(&mut self) -> Vec<Action> {
        let told = self.members.iter_mut().filter(|(_, m)| m.standing.is_told());
        let back = told.map(|(device, member)| {
            member.withdraw(self.clock_s);
            Action::Return(device.clone())
        });
        back.collect()
    }

    /// Takes a step. Events are judged by phase before, so the table knows each that comes; it is kept to all the same.
    fn step(&mut self, event: Event, why: &str) {
        let Some(phase) = transition(self.phase, event) else {
            debug_assert!(false, "{event:?} in {:?}", self.phase);
            return;
        };
        self.phase = phase;
        self.since_s = self.clock_s;
        if matches!(
            event,
            Event::Silent | Event::Breached | Event::Expired | Event::Paused | Event::Aborted
        ) {
            why.clone_into(&mut self.reason);
        }
        let stage = self.stage + 1;
        let place = format!("{} (stage {stage} of {})", phase.as_str(), self.plan.stages.len());
        self.note(if why.is_empty() { place } else { format!("{place}: {why}") });
    }

    fn note(&mut self, what: String) {
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(10);
        }
        let (at_s, phase, stage) = (self.looked_at_s, self.phase, self.stage);
        self.history.push(Entry { at_s, phase, stage, what });
    }
}

/// The share of a count that is allowed, rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to `of`
fn allowed(share: f64, of: usize) -> usize {
    (share * number(of as u64) + 1e-9).floor() as usize
}

/// A count as a number; what is beyond 2^53 loses its last digits.
#[allow(clippy::cast_precision_loss)]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
