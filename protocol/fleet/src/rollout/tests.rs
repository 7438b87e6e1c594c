//! The table, whole roll-outs of good and bad versions, and every sequence of what can happen to one.

use super::cohort::Candidate;
use super::plan::{Size, Stage};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const PHASES: [Phase; 8] = [
    Phase::AwaitingApproval,
    Phase::Offering,
    Phase::Soaking,
    Phase::Paused,
    Phase::RollingBack,
    Phase::RolledBack,
    Phase::Aborted,
    Phase::Done,
];

const EVENTS: [Event; 11] = [
    Event::Approved,
    Event::Settled,
    Event::Passed,
    Event::Finished,
    Event::Breached,
    Event::Silent,
    Event::Paused,
    Event::Resumed,
    Event::Aborted,
    Event::Expired,
    Event::Returned,
];

#[test]
fn table() {
    let mut lines = Vec::new();
    for phase in PHASES {
        for event in EVENTS {
            if let Some(next) = transition(phase, event) {
                lines.push(format!(
                    "{:17} {:9} -> {}",
                    phase.as_str(),
                    format!("{event:?}"),
                    next.as_str()
                ));
            }
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn only_an_end_has_no_way_on() {
    for phase in PHASES {
        let ways = EVENTS.into_iter().filter(|event| transition(phase, *event).is_some()).count();
        assert_eq!(ways == 0, phase.is_end(), "{phase:?}");
    }
}

fn version(number: u64) -> Version {
    Version::new(number).unwrap()
}

fn device(i: usize) -> DeviceId {
    format!("d{i:03}").parse().unwrap()
}

fn fleet(count: usize) -> Vec<Candidate> {
    let candidate = |i| Candidate {
        device: device(i),
        labels: [("site".to_owned(), "lyon".to_owned())].into(),
        agent_version: "0.1.0".to_owned(),
        active: Some(version(1)),
        is_online: true,
    };
    (0..count).map(candidate).collect()
}

fn plan() -> Plan {
    let stage = |share| Stage { size: Size::Share(share), soak_s: 600 };
    Plan {
        model: Some("m".parse().unwrap()),
        version: Some(version(2)),
        target: Some("site=lyon".parse().unwrap()),
        stages: vec![stage(0.05), stage(0.3), stage(1.0)],
        deadline_s: 3600,
        approve_from: 1000,
        ..Plan::default()
    }
}

fn begun(plan: Plan, devices: usize) -> Rollout {
    Rollout::plan(plan, &fleet(devices), &"ada".into(), &[3; 16], 0).unwrap().0
}

/// How simulated devices behave once they have the new version.
#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Good,
    Slow,
    Wrong,
    NoNumbers,
    Refuses,
    GoesBack,
    Vanishes,
    Idle,
    /// Its agent is older than roll-outs: it takes the version, and says nothing of how that does.
    Old,
}

/// A fleet that does as it is told, a minute at a time.
struct World {
    rollout: Rollout,
    told: BTreeSet<DeviceId>,
    tallies: BTreeMap<DeviceId, (bool, Tally)>,
    behaviour: Behaviour,
    now_s: u64,
    most_told: usize,
}

impl World {
    fn new(plan: Plan, devices: usize, behaviour: Behaviour) -> Self {
        let rollout = begun(plan, devices);
        let (told, tallies) = (BTreeSet::new(), BTreeMap::new());
        Self { rollout, told, tallies, behaviour, now_s: 0, most_told: 0 }
    }

    fn minute(&mut self) {
        self.now_s += 60;
        let devices: Vec<DeviceId> = self.rollout.members().keys().cloned().collect();
        for device in devices {
            if let Some(report) = self.report(&device) {
                self.rollout.handle_report(&device, &report, self.now_s);
            }
        }
        for action in self.rollout.poll(self.now_s) {
            match action {
                Action::Offer(device) => self.told.insert(device),
                Action::Return(device) => self.told.remove(&device),
            };
        }
        self.most_told = self.most_told.max(self.told.len());
    }

    fn report(&mut self, device: &DeviceId) -> Option<Report> {
        let is_new = self.told.contains(device);
        let is_bad = is_new.then_some(self.behaviour);
        if is_bad == Some(Behaviour::Vanishes) {
            return None;
        }
        if is_bad == Some(Behaviour::Refuses) {
            let refused = Some("its probes answer differently".to_owned());
            return Some(Report { active: Some(version(1)), refused, ..Report::default() });
        }
        let (was_new, tally) = self.tallies.entry(device.clone()).or_default();
        if *was_new != is_new {
            (*was_new, *tally) = (is_new, Tally::default());
        }
        count(tally, is_bad, device);
        let goes_back = is_bad == Some(Behaviour::GoesBack) && tally.requests > 10;
        let active = Some(if is_new && !goes_back { version(2) } else { version(1) });
        let tally = Some(tally.clone()).filter(|_| is_bad != Some(Behaviour::Old));
        Some(Report { active, tally, ..Report::default() })
    }

    fn run(mut self, minutes: usize) -> Self {
        for _ in 0..minutes {
            self.minute();
            if self.rollout.phase().is_end() {
                break;
            }
        }
        self
    }
}

/// What a device counts in a minute: each has its own pace and errors.
fn count(tally: &mut Tally, behaviour: Option<Behaviour>, device: &DeviceId) {
    let own = u64::from(device.as_str().as_bytes()[3]) % 7;
    if behaviour == Some(Behaviour::Idle) {
        return;
    }
    tally.requests += 10;
    tally.judged += 10;
    tally.checked += 3;
    tally.confidence_micros += 8_500_000;
    tally.disagreed += u64::from(behaviour == Some(Behaviour::Wrong));
    tally.errors += if behaviour == Some(Behaviour::NoNumbers) { 10 } else { 0 };
    let slower = if behaviour == Some(Behaviour::Slow) { 10.0 } else { 1.0 };
    tally.add_run(slower * (4000.0 + 1000.0 * number(own)), 10);
}

#[test]
fn the_checks_of_a_large_fleet_are_those_of_a_thousand_devices() {
    assert_eq!([1, 1000, 2000, 100_000].map(calls_per_check), [20, 20, 40, 2000]);
}

#[test]
fn a_good_version_reaches_everybody_in_stages() {
    let world = World::new(plan(), 100, Behaviour::Good).run(500);
    assert_eq!(world.rollout.phase(), Phase::Done, "{:?}", world.rollout.history());
    assert_eq!(world.rollout.progress().succeeded, 100);
    let lines: Vec<_> = world.rollout.history().iter().map(|e| e.what.as_str()).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn bad_versions_stay_with_the_canaries_and_are_taken_back() {
    for (behaviour, word) in [
        (Behaviour::Slow, "latency-p50"),
        (Behaviour::Wrong, "disagreement"),
        (Behaviour::NoNumbers, "errors"),
        (Behaviour::Refuses, "refused: its probes"),
        (Behaviour::GoesBack, "went back by itself"),
    ] {
        let world = World::new(plan(), 100, behaviour).run(500);
        let rollout = &world.rollout;
        assert_eq!(rollout.phase(), Phase::RolledBack, "{word}: {:?}", rollout.history());
        assert!(rollout.reason().contains(word), "{word}: {}", rollout.reason());
        assert!(world.most_told <= 5, "{word}: {}", world.most_told);
        assert!(world.told.is_empty());
    }
}

#[test]
fn silence_pauses_and_a_pause_ends() {
    for (behaviour, word) in [
        (Behaviour::Vanishes, "silent since it was told"),
        (Behaviour::Idle, "served 0 requests only"),
        (Behaviour::Old, "its agent may be older than roll-outs"),
    ] {
        let mut world = World::new(plan(), 100, behaviour).run(90);
        assert_eq!(world.rollout.phase(), Phase::Paused, "{:?}", world.rollout.history());
        let reason = world.rollout.reason();
        assert!(
            reason.starts_with("5 of 5 devices were silent") && reason.contains(word),
            "{reason}"
        );
        world = world.run(8 * 1440);
        assert_eq!(world.rollout.phase(), Phase::RolledBack);
        assert_eq!(world.most_told, 5);
    }
}

#[test]
fn who_lets_silence_pass_is_not_asked_again_for_the_same_devices() {
    let mut world = World::new(plan(), 100, Behaviour::Vanishes).run(90);
    world.rollout.handle_command(Command::Resume, &"ada".into(), world.now_s).unwrap();
    world.behaviour = Behaviour::Good;
    let world = world.run(500);
    assert_eq!(world.rollout.phase(), Phase::Done, "{:?}", world.rollout.history());
}

#[test]
fn a_large_one_needs_a_second_person() {
    let mut rollout = begun(Plan { approve_from: 10, ..plan() }, 100);
    assert_eq!(rollout.phase(), Phase::AwaitingApproval);
    assert!(rollout.poll(60).is_empty());
    let again = rollout.handle_command(Command::Approve, &"ada".into(), 60).unwrap_err();
    assert_eq!(again.to_string(), "ada has agreed already; somebody else has to");
    rollout.handle_command(Command::Approve, &"bob".into(), 60).unwrap();
    assert_eq!(rollout.phase(), Phase::Offering);
    let late = rollout.handle_command(Command::Approve, &"eve".into(), 60).unwrap_err();
    assert_eq!(late.to_string(), "a roll-out that is offering cannot be told to approve");
}

#[test]
fn one_person_who_signs_in_twice_is_one() {
    let ada = |key: &str| Actor::Person {
        key: key.into(),
        person: "https://id.example 7".parse().unwrap(),
    };
    let plan = Plan { approve_from: 10, approvals: 3, ..plan() };
    let (mut rollout, _) = Rollout::plan(plan, &fleet(100), &ada("ada (1)"), &[3; 16], 0).unwrap();
    let again = rollout.handle_command(Command::Approve, &ada("ada@example.com (2)"), 60);
    assert_eq!(again.unwrap_err().to_string(), "ada (1) has agreed already; somebody else has to");
    let kept = serde_json::to_vec(&rollout).unwrap();
    let kept: Rollout = serde_json::from_slice(&kept).unwrap();
    let mut rollout = kept.with_members(rollout.members().clone().into_iter().collect());
    assert!(rollout.handle_command(Command::Approve, &ada("ada (3)"), 70).is_err());
    rollout.handle_command(Command::Approve, &"bob (4)".into(), 80).unwrap();
    assert!(rollout.handle_command(Command::Approve, &"bob (4)".into(), 90).is_err());
    assert_eq!(rollout.phase(), Phase::AwaitingApproval);
    rollout.handle_command(Command::Approve, &"eve (5)".into(), 90).unwrap();
    assert_eq!(rollout.phase(), Phase::Offering);
}

#[test]
fn who_agreed_before_people_signed_in_is_known() {
    let rollout = begun(Plan { approve_from: 10, ..plan() }, 100);
    let kept = serde_json::to_value(&rollout).unwrap();
    assert_eq!(kept["agreed"], serde_json::json!(["ada"]), "as it always was");
}

#[test]
fn what_nobody_approves_is_given_up_before_anybody_was_told() {
    let world = World::new(Plan { approve_from: 10, ..plan() }, 100, Behaviour::Good).run(8 * 1440);
    assert_eq!((world.rollout.phase(), world.most_told), (Phase::Aborted, 0));
}

#[test]
fn a_clock_that_jumps_makes_nobody_late() {
    let mut world = World::new(plan(), 100, Behaviour::Vanishes);
    world.minute();
    world.minute();
    let told = world.told.len();
    for now_s in [4_000_000_000, 10, 8_000_000_000] {
        world.rollout.poll(now_s);
    }
    assert_eq!((world.rollout.phase(), world.rollout.progress().failed), (Phase::Offering, 0));
    assert!(told > 0);
}

#[test]
fn outside_of_the_window_nobody_is_told() {
    let window = Some(plan::Window { from_min: 120, to_min: 180 });
    let mut world = World::new(Plan { window, ..plan() }, 100, Behaviour::Good).run(119);
    assert_eq!(world.most_told, 0);
    world = world.run(10);
    assert!(world.most_told > 0);
}

#[test]
fn it_is_kept_as_it_is() {
    let world = World::new(plan(), 20, Behaviour::Good).run(30);
    let kept = serde_json::to_string(&world.rollout).unwrap();
    let members = serde_json::to_string(world.rollout.members()).unwrap();
    let read: Rollout = serde_json::from_str(&kept).unwrap();
    assert_eq!(read.with_members(serde_json::from_str(&members).unwrap()), world.rollout);
}

#[test]
fn a_device_is_told_once_it_has_said_what_it_does_without_the_version() {
    let mut rollout = begun(plan(), 20);
    assert!(rollout.poll(30).is_empty(), "nobody has said anything");
    let tally = Tally { requests: 500, ..Tally::default() };
    let report = Report { active: Some(version(1)), tally: Some(tally), ..Report::default() };
    let canary = rollout.order[0].clone();
    rollout.handle_report(&canary, &report, 40);
    assert_eq!(rollout.poll(40), [Action::Offer(canary)]);
    assert_eq!(
        begun(plan(), 20).poll(BASELINE_MAX_S).len(),
        1,
        "whoever is silent is told after a while"
    );
}

#[test]
fn a_version_that_lost_its_accelerator_is_refused() {
    let mut rollout = begun(plan(), 20);
    let canary = rollout.order[0].clone();
    let mut report = Report { active: Some(version(1)), ..Report::default() };
    report.provider = "cuda".to_owned();
    rollout.handle_report(&canary, &report, 10);
    assert_eq!(rollout.poll(10).len(), 1);
    report.active = Some(version(2));
    report.provider = "cpu".to_owned();
    rollout.handle_report(&canary, &report, 20);
    assert_eq!(rollout.poll(20), [Action::Return(canary)]);
    assert!(rollout.reason().contains("it runs on cpu, the version before on cuda"));
}

#[test]
fn a_removed_device_counts_as_failed_and_holds_nothing_up() {
    let mut rollout = begun(plan(), 20);
    let canary = rollout.order[0].clone();
    let report = Report { active: Some(version(1)), ..Report::default() };
    rollout.handle_report(&canary, &report, 10);
    assert_eq!(rollout.poll(10), [Action::Offer(canary.clone())]);
    assert!(rollout.handle_removed(&canary, "alice", 20));
    assert!(!rollout.handle_removed(&"d-other".parse().unwrap(), "alice", 20));
    let standing = &rollout.members()[&canary].standing;
    assert_eq!(standing, &Standing::Failed(Failure::Removed));
    assert!(!standing.is_told() && !rollout.wants(&canary));
    assert_eq!(rollout.progress().failed, 1);
    let last = &rollout.history().last().unwrap().what;
    assert_eq!(*last, format!("{canary} was removed from the fleet by alice"));
}

/// Anything that can happen in a moment.
#[derive(Debug, Clone)]
enum Happening {
    Report { device: usize, active: u64, refused: bool, requests: u64 },
    Command(u8),
    Removed(usize),
    Time(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => (0..24_usize, 1..4_u64, prop::bool::weighted(0.03), 0..60_u64).prop_map(
            |(device, active, refused, requests)| Happening::Report { device, active, refused, requests }
        ),
        1 => (0..5_u8).prop_map(Happening::Command),
        1 => (0..24_usize).prop_map(Happening::Removed),
        4 => prop_oneof![Just(30), Just(120), Just(0), Just(90_000)].prop_map(Happening::Time),
    ]
}

fn happen(rollout: &mut Rollout, what: &Happening, now_s: &mut u64) {
    match *what {
        Happening::Report { device: i, active, refused, requests } => {
            let refused = refused.then(|| "no".to_owned());
            let tally = (requests > 0).then(|| Tally { requests, ..Tally::default() });
            let report =
                Report { active: Version::new(active), refused, tally, ..Report::default() };
            rollout.handle_report(&device(i), &report, *now_s);
        }
        Happening::Command(number) => {
            let command = [Command::Approve, Command::Pause, Command::Resume, Command::Abort]
                .get(usize::from(number))
                .copied()
                .unwrap_or(Command::Resume);
            let _ = rollout.handle_command(command, &"bob".into(), *now_s);
        }
        Happening::Removed(i) => drop(rollout.handle_removed(&device(i), "bob", *now_s)),
        Happening::Time(s) => *now_s += s,
    }
}

/// As many devices are to run the version as this stage allows, and none before approval or after the way back.
fn holds(rollout: &Rollout) {
    let told = rollout.members().values().filter(|m| m.standing.is_told()).count();
    let most = match rollout.phase() {
        Phase::AwaitingApproval | Phase::Aborted | Phase::RolledBack => 0,
        _ => rollout.progress().stage_devices,
    };
    assert!(told <= most, "{told} of {most} in {:?}", rollout.phase());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: never more than the allowed share has the version, and silence alone brings it to an end.
    #[test]
    fn nothing_is_stuck_and_nothing_goes_too_far(
        happenings in prop::collection::vec(happening(), 0..200),
        approve_from in prop_oneof![Just(1_u32), Just(1000)],
    ) {
        let mut rollout = begun(Plan { approve_from, expires_s: 30 * 86_400, ..plan() }, 20);
        let mut now_s = 0;
        for what in &happenings {
            happen(&mut rollout, what, &mut now_s);
            rollout.poll(now_s);
            holds(&rollout);
        }
        let longest_s = 45 * 86_400;
        for _ in 0..longest_s / STEP_MAX_S {
            if rollout.phase().is_end() {
                break;
            }
            now_s += STEP_MAX_S;
            rollout.poll(now_s);
            holds(&rollout);
        }
        prop_assert!(rollout.phase().is_end(), "{:?}", rollout.history());
    }
}
