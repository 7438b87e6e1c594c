//! The table, and every sequence of what can happen to a device.

use super::*;
use crate::probation::{Lives, START_LIMIT, Standing};
use proptest::prelude::*;
use std::collections::BTreeSet;

const PHASES: [Phase; 9] = [
    Phase::Idle,
    Phase::Fetching,
    Phase::Verifying,
    Phase::Staging,
    Phase::WarmingUp,
    Phase::Shadow,
    Phase::Switching,
    Phase::Waiting,
    Phase::Refused,
];

const EVENTS: [Event; 13] = [
    Event::Wanted,
    Event::Satisfied,
    Event::Found,
    Event::Fetched,
    Event::Verified,
    Event::Staged,
    Event::Warm,
    Event::Agreed,
    Event::Switched,
    Event::Failed,
    Event::Condemned,
    Event::RetryDue,
    Event::RolledBack,
];

fn target(version: u64) -> Target {
    Target {
        version: Version::new(version).unwrap(),
        bundle: ContentHash::of(&version.to_le_bytes()),
    }
}

#[test]
fn table() {
    let mut lines = Vec::new();
    for phase in PHASES {
        for event in EVENTS {
            let to = match transition(phase, event) {
                Some((next, action)) => format!("{next:?}, {action:?}"),
                None => "-".into(),
            };
            let (phase, event) = (format!("{phase:?}"), format!("{event:?}"));
            lines.push(format!("{phase:10} {event:10} -> {to}"));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

/// Everything up to the switch.
fn until_switch(update: &mut Update) {
    for (event, action) in [
        (Event::Fetched, Action::Verify),
        (Event::Verified, Action::Stage),
        (Event::Staged, Action::WarmUp),
        (Event::Warm, Action::Shadow),
        (Event::Agreed, Action::Switch),
    ] {
        assert_eq!(update.handle(event), Ok(action));
    }
}

#[test]
fn the_active_version_changes_only_at_the_end() {
    let mut update = Update::new(Some(target(1)));
    assert_eq!(update.want(Some(target(1))), Ok(None), "already active");
    assert_eq!(update.want(Some(target(2))), Ok(Some(Action::Fetch)));
    assert_eq!(update.want(Some(target(2))), Ok(None), "already on its way");
    until_switch(&mut update);
    assert_eq!(update.active(), Some(target(1)));
    assert_eq!(update.handle(Event::Switched), Ok(Action::Rest));
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
    assert!(update.handle(Event::Switched).is_err());
}

#[test]
fn what_was_rolled_back_is_refused_with_the_reason_until_something_else_is_wanted() {
    let mut update = Update::new(Some(target(2)));
    assert_eq!(update.rolled_back(Some(target(1)), "slow".into()), Ok(Some(Action::Rest)));
    assert_eq!((update.active(), update.target()), (Some(target(1)), Some(target(2))));
    assert_eq!((update.phase(), update.reason()), (Phase::Refused, "slow"));
    assert_eq!(update.want(Some(target(2))), Ok(None), "the cloud goes on wanting it");
    assert_eq!(update.want(Some(target(1))), Ok(Some(Action::Rest)), "it is content");
    assert_eq!(update.phase(), Phase::Idle);
}

#[test]
fn a_roll_back_disturbs_no_other_update() {
    let mut update = Update::new(Some(target(2)));
    update.want(Some(target(3))).unwrap();
    assert_eq!(update.rolled_back(Some(target(1)), "slow".into()), Ok(None));
    until_switch(&mut update);
    assert_eq!(update.active(), Some(target(1)));

    let mut update = Update::new(Some(target(2)));
    update.want(Some(target(1))).unwrap();
    assert_eq!(update.rolled_back(Some(target(1)), "slow".into()), Ok(Some(Action::Rest)));
    assert_eq!((update.phase(), update.target()), (Phase::Idle, None));
}

/// What can happen next.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// The action under way succeeds.
    Success,
    Passing,
    Lasting,
    /// This version is wanted.
    Want(u64),
    /// What is active does not hold.
    Trip,
    /// Its trial, then its soak, is over.
    Holds,
    /// The agent ends, with a word or without, and starts again.
    Restart {
        clean: bool,
    },
}

/// What is on the disk.
#[derive(Debug, Clone, Default)]
struct Disk {
    active: Option<Target>,
    previous: Option<Target>,
    candidate: Option<(Target, u32)>,
    probation: Option<(Standing, Lives)>,
    condemned: BTreeSet<Target>,
}

impl Disk {
    fn switch(&mut self, to: Target) {
        let trusted = self.probation.as_ref().is_none_or(|(s, _)| *s != Standing::Trial);
        let previous = self.previous.filter(|previous| *previous != to);
        if trusted || previous.is_none() {
            self.previous = self.active.filter(|active| *active != to);
        }
        self.active = Some(to);
        self.candidate = None;
        self.probation = Some((Standing::Trial, Lives::begin("boot")));
    }

    /// It must not answer: not as the candidate, nor as what there is to go back to.
    fn condemn(&mut self, target: Option<Target>) {
        self.condemned.extend(target);
        self.candidate = self.candidate.filter(|(candidate, _)| Some(*candidate) != target);
        self.previous = self.previous.filter(|previous| Some(*previous) != target);
    }

    fn roll_back(&mut self) {
        self.condemned.extend(self.active);
        self.active = self.previous.take();
        self.probation = None;
    }
}

/// A device that does what the machine says.
struct Device {
    disk: Disk,
    update: Update,
    action: Action,
    wanted: Option<Target>,
    /// What has passed every check at least once.
    verified: BTreeSet<Target>,
}

impl Device {
    fn new() -> Self {
        Self {
            disk: Disk::default(),
            update: Update::new(None),
            action: Action::Rest,
            wanted: None,
            verified: BTreeSet::new(),
        }
    }

    fn take(&mut self, turn: Turn) {
        match turn {
            Turn::Success => self.succeed(),
            Turn::Passing | Turn::Lasting => self.fail(matches!(turn, Turn::Passing)),
            Turn::Want(version) => self.want(target(version)),
            Turn::Trip if self.disk.probation.is_some() => self.trip(),
            Turn::Holds => {
                self.disk.probation = match self.disk.probation.take() {
                    Some((Standing::Trial, lives)) => Some((Standing::Soak, lives)),
                    _ => None,
                }
            }
            Turn::Restart { clean } => self.restart(clean),
            Turn::Trip => {}
        }
    }

    fn want(&mut self, wanted: Target) {
        self.wanted = Some(wanted);
        if let Some(action) = self.update.want(Some(wanted)).unwrap() {
            self.action = action;
            self.disk.candidate = None;
        }
    }

    fn succeed(&mut self) {
        let target = self.update.target();
        let event = match self.action {
            Action::Rest => return,
            Action::Wait => Event::RetryDue,
            Action::Fetch if target.is_some_and(|t| self.disk.condemned.contains(&t)) => {
                return self.fail(false);
            }
            Action::Fetch => Event::Fetched,
            Action::Verify => {
                self.verified.extend(target);
                Event::Verified
            }
            Action::Stage => {
                self.disk.candidate = target.map(|target| (target, 0));
                Event::Staged
            }
            Action::WarmUp => Event::Warm,
            Action::Shadow => Event::Agreed,
            Action::Switch => {
                self.disk.switch(target.unwrap());
                Event::Switched
            }
        };
        self.action = self.update.handle(event).unwrap();
    }

    fn fail(&mut self, passing: bool) {
        let may = match self.action {
            Action::Rest | Action::Wait => return,
            Action::Stage | Action::Switch => true, // only the disk can fail
            _ => passing,
        };
        if !may {
            self.disk.condemn(self.update.target());
        }
        self.action = self.update.fail(may, "for a reason".into()).unwrap();
    }

    fn trip(&mut self) {
        self.disk.roll_back();
        let to = self.disk.active;
        if let Some(action) = self.update.rolled_back(to, "it trips".into()).unwrap() {
            self.action = action;
        }
    }

    fn restart(&mut self, clean: bool) {
        if let Some((standing, lives)) = self.disk.probation.take() {
            let lives = if clean { lives.ended_well() } else { lives };
            let lives = lives.start("boot", false);
            self.disk.probation = Some((standing, lives.clone()));
            if lives.fault(START_LIMIT).is_some() {
                self.disk.roll_back();
            }
        }
        self.update = Update::new(self.disk.active);
        self.action = Action::Rest;
        if let Some((candidate, begun)) = &mut self.disk.candidate {
            *begun = if clean { 0 } else { *begun + 1 };
            if *begun >= START_LIMIT {
                let candidate = *candidate;
                self.disk.condemn(Some(candidate));
            } else {
                self.action = self.update.found(*candidate).unwrap();
            }
        }
        if let Some(wanted) = self.wanted {
            self.want(wanted); // the cloud says it again
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        assert_eq!(self.update.active(), self.disk.active, "what is said is what is on the disk");
        let slots = self.disk.active.iter().chain(&self.disk.previous);
        for slot in slots.chain(self.disk.candidate.as_ref().map(|(target, _)| target)) {
            assert!(self.verified.contains(slot), "{slot:?} was never verified");
        }
        assert!(self.disk.active.is_none_or(|active| !self.disk.condemned.contains(&active)));
        assert!(self.disk.previous.is_none() || self.disk.previous != self.disk.active);
    }

    /// From here on all goes well: the device comes to rest, with what is wanted or with a reason.
    fn settles(mut self) {
        for _ in 0..20 {
            self.take(Turn::Success);
        }
        let refused = self.update.phase() == Phase::Refused && !self.update.reason().is_empty();
        let content = self.wanted.is_none_or(|wanted| self.disk.active == Some(wanted));
        assert!(refused || content, "stuck in {:?}", self.update);
        assert_eq!(self.action, Action::Rest);
    }
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        8 => Just(Turn::Success),
        1 => Just(Turn::Passing),
        1 => Just(Turn::Lasting),
        2 => (1u64..5).prop_map(Turn::Want),
        1 => Just(Turn::Trip),
        1 => Just(Turn::Holds),
        2 => any::<bool>().prop_map(|clean| Turn::Restart { clean }),
    ];
    prop::collection::vec(turn, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_sequence_leaves_a_device_stuck_or_with_what_was_never_verified(turns in turns()) {
        let mut device = Device::new();
        let mut had_one = false;
        for turn in turns {
            let before = device.disk.active;
            device.take(turn);
            device.check();
            had_one |= device.disk.active.is_some();
            // Only a first version, which has none before it, can leave the device without one.
            let lost = had_one && before.is_some() && device.disk.active.is_none();
            prop_assert!(!lost || device.disk.condemned.contains(&before.unwrap()));
        }
        device.settles();
    }
}
