//! Two hundred devices and a roll-out over them.

use anyhow::Context;
use fleet::rollout::cohort::Candidate;
use fleet::rollout::plan::{Plan, Size, Stage};
use fleet::rollout::tally::Tally;
use fleet::rollout::{Action, Phase, Report, Rollout, calls_per_check};
use fleet_sim::behaviour::{Behaviour, Served, Traits};
use fleet_sim::candidate;
use fleet_sim::chance::Chance;
use protocol::id::{DeviceId, Version};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often devices report, and the roll-out looks.
const LOOK_S: u64 = 30;
/// How long the old version has answered before.
const PAST: Duration = Duration::from_secs(86_400);
/// From being told to having the files, on average.
const FETCH_S: f64 = 60.0;
/// A run that lasts longer has no end.
const LONGEST_S: u64 = 3 * 86_400;
const OLD: u64 = 1;
const NEW: u64 = 2;

/// What is the same for all runs.
pub(super) struct Terms {
    pub(super) name: &'static str,
    devices: usize,
    canaries: u32,
    /// Whether devices compare a version with the one before it by themselves.
    shadows: bool,
    per_min: f64,
    /// How long the canaries are watched.
    soak_s: u64,
}

impl Terms {
    /// As agents are unless said otherwise; and devices that leave all judgement to the roll-out.
    pub(super) const ALL: [Self; 2] = [
        Self { name: "as they come", ..Self::BASE },
        Self { name: "without shadow", shadows: false, ..Self::BASE },
    ];
    const BASE: Self = Self {
        name: "",
        devices: 200,
        canaries: 20,
        shadows: true,
        per_min: 30.0,
        soak_s: 4 * 3600,
    };

    fn plan(&self) -> anyhow::Result<Plan> {
        let stage = |size| Stage { size, soak_s: 3600 };
        Ok(Plan {
            model: Some("m".parse()?),
            version: Version::new(NEW),
            target: Some("site=lyon".parse()?),
            stages: vec![
                Stage { size: Size::Count(self.canaries), soak_s: self.soak_s },
                stage(Size::Share(0.3)),
                stage(Size::Share(1.0)),
            ],
            deadline_s: 2 * 3600,
            approve_from: 1000,
            ..Plan::default()
        })
    }
}

/// What some devices do that others do not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Oddity {
    /// Nothing is heard of it once it was told.
    Vanishes,
    /// It goes on with the version that it has, and says so.
    Stays,
    /// It takes the version and goes back to the old one, again and again.
    Flaps,
    /// It says at once that it has the version, and counts nothing.
    Lies,
}

/// How devices do as they are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Conduct {
    /// All of them.
    Honest,
    /// This share does not.
    Some(Oddity, f64),
}

/// How it ended.
pub(super) struct End {
    pub(super) phase: Phase,
    /// The furthest stage, from 0.
    pub(super) stage: usize,
    pub(super) canaries: usize,
    /// Devices on which the new version ever answered.
    pub(super) answered: usize,
    /// From the first device that was told to when no more were.
    pub(super) stopped_s: Option<f64>,
    pub(super) reason: String,
}

enum State {
    Old,
    /// Fetches the version, and judges it; then it answers, or does not.
    Taking {
        until_s: u64,
        refused: Option<String>,
    },
    New,
}

struct Device {
    traits: Traits,
    chance: Chance,
    oddity: Option<Oddity>,
    state: State,
    old: Tally,
    new: Tally,
    refused: Option<String>,
    has_answered: bool,
    was_told: bool,
}

pub(super) struct Site<'a> {
    terms: &'a Terms,
    behaviours: (Behaviour, &'a Behaviour),
    rollout: Rollout,
    devices: BTreeMap<DeviceId, Device>,
    now_s: u64,
}

impl<'a> Site<'a> {
    pub(super) fn new(
        terms: &'a Terms,
        new: &'a Behaviour,
        conduct: Conduct,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let candidate = |number: usize| -> anyhow::Result<Candidate> {
            Ok(Candidate {
                device: format!("d{number:04}").parse()?,
                labels: [("site".to_owned(), "lyon".to_owned())].into(),
                agent_version: "0.1.0".into(),
                active: Version::new(OLD),
                is_online: true,
            })
        };
        let fleet = (0..terms.devices).map(candidate).collect::<Result<Vec<_>, _>>()?;
        let mut lot = [0; 16];
        lot[..8].copy_from_slice(&seed.to_le_bytes());
        let (rollout, _) = Rollout::plan(terms.plan()?, &fleet, &"ada".into(), &lot, 0)?;
        let old = Behaviour::default();
        let device = |(number, candidate): (u64, Candidate)| {
            (candidate.device, Device::new(terms, &old, conduct, (seed, number)))
        };
        let devices = (0..).zip(fleet).map(device).collect();
        Ok(Self { terms, behaviours: (old, new), rollout, devices, now_s: 0 })
    }

    pub(super) fn run(mut self) -> anyhow::Result<End> {
        let canaries = self.rollout.progress().stage_devices;
        let (mut stage, mut first_told_s, mut stopped_s) = (0, None, None);
        while !self.is_over() {
            self.report();
            for action in self.rollout.poll(self.now_s) {
                first_told_s.get_or_insert(self.now_s);
                self.carry_out(&action)?;
            }
            stage = stage.max(self.rollout.stage());
            let stopped = matches!(
                self.rollout.phase(),
                Phase::Paused | Phase::RollingBack | Phase::RolledBack
            );
            if let (true, Some(first_s)) = (stopped, first_told_s) {
                stopped_s.get_or_insert((self.now_s - first_s) as f64);
            }
            self.now_s += LOOK_S;
            self.pass();
        }
        let answered = self.devices.values().filter(|device| device.has_answered).count();
        let (phase, reason) = (self.rollout.phase(), self.rollout.reason().to_owned());
        Ok(End { phase, stage, canaries, answered, stopped_s, reason })
    }

    /// A pause waits for people: here nobody comes.
    fn is_over(&self) -> bool {
        let phase = self.rollout.phase();
        phase.is_end() || phase == Phase::Paused || self.now_s >= LONGEST_S
    }

    fn report(&mut self) {
        for (id, device) in &self.devices {
            if let Some(report) = device.report() {
                self.rollout.handle_report(id, &report, self.now_s);
            }
        }
    }

    fn carry_out(&mut self, action: &Action) -> anyhow::Result<()> {
        let (old, new) = &self.behaviours;
        let device = |id: &DeviceId| format!("no device {id}");
        match action {
            Action::Offer(id) => {
                let told = self.devices.get_mut(id).with_context(|| device(id))?;
                told.take((old, new), self.terms.shadows, self.now_s);
            }
            Action::Return(id) => {
                self.devices.get_mut(id).with_context(|| device(id))?.go_back();
            }
        }
        Ok(())
    }

    /// So much time passes on all devices.
    fn pass(&mut self) {
        let (old, new) = &self.behaviours;
        for device in self.devices.values_mut() {
            device.pass((old, new), self.now_s);
        }
    }
}

impl Device {
    fn new(terms: &Terms, old: &Behaviour, conduct: Conduct, (seed, number): (u64, u64)) -> Self {
        let mut chance = Chance::new(seed, number);
        let checked = f64::from(calls_per_check(terms.devices)).recip();
        let traits = Traits::draw(&mut chance, terms.per_min, checked);
        let oddity = match conduct {
            Conduct::Honest => None,
            Conduct::Some(oddity, share) => (chance.unit() < share).then_some(oddity),
        };
        let mut before = Tally::default();
        // A day in one draw: as many requests as fit into a Poisson draw, for runs are told one by one.
        for _ in 0..24 {
            count(&mut before, old.serve(&traits, PAST / 24 / 4, &mut chance));
        }
        Self {
            traits,
            chance,
            oddity,
            state: State::Old,
            old: before,
            new: Tally::default(),
            refused: None,
            has_answered: false,
            was_told: false,
        }
    }

    fn report(&self) -> Option<Report> {
        let is_new = matches!(self.state, State::New);
        let report = |version, tally: Option<&Tally>| Report {
            active: Version::new(version),
            refused: self.refused.clone(),
            tally: tally.cloned(),
            provider: "cpu".into(),
        };
        match self.oddity {
            Some(Oddity::Vanishes) if self.was_told => None,
            Some(Oddity::Lies) if self.was_told => Some(report(NEW, None)),
            _ if is_new => Some(report(NEW, Some(&self.new))),
            _ => Some(report(OLD, Some(&self.old))),
        }
    }

    /// It is told to take the version.
    fn take(&mut self, both: (&Behaviour, &Behaviour), shadows: bool, now_s: u64) {
        self.was_told = true;
        if matches!(self.oddity, Some(Oddity::Stays | Oddity::Lies)) {
            return;
        }
        let (judging, result) = candidate::judge(both, &self.traits, shadows, &mut self.chance);
        let fetch_s = -FETCH_S * self.chance.unit().max(1e-9).ln();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // hours
        let takes_s = (fetch_s + judging.as_secs_f64()) as u64;
        let refused = result.err().map(|refusal| refusal.to_string());
        self.state = State::Taking { until_s: now_s + takes_s, refused };
    }

    fn go_back(&mut self) {
        self.was_told = false;
        self.state = State::Old;
        self.new = Tally::default();
        self.refused = None;
    }

    fn pass(&mut self, (old, new): (&Behaviour, &Behaviour), now_s: u64) {
        if let State::Taking { until_s, refused } = &self.state
            && now_s >= *until_s
        {
            self.refused.clone_from(refused);
            self.state = if self.refused.is_some() { State::Old } else { State::New };
        }
        if self.oddity == Some(Oddity::Flaps) && self.was_told && self.chance.unit() < 0.1 {
            let is_new = matches!(self.state, State::New);
            self.state = if is_new { State::Old } else { State::New };
        }
        let time = Duration::from_secs(LOOK_S);
        if matches!(self.state, State::New) {
            self.has_answered = true;
            count(&mut self.new, new.serve(&self.traits, time, &mut self.chance));
        } else {
            count(&mut self.old, old.serve(&self.traits, time, &mut self.chance));
        }
    }
}

fn count(tally: &mut Tally, served: Served) {
    let mut more = Tally {
        requests: served.requests,
        errors: served.errors,
        deferred: served.deferred,
        checked: served.checked,
        disagreed: served.disagreed,
        crashes: served.crashes,
        judged: served.judged,
        confidence_micros: served.confidence_micros,
        ..Tally::default()
    };
    served.runs_us.into_iter().for_each(|took_us| more.add_run(took_us, 1));
    tally.add(&more);
}
