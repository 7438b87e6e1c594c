//! A device: the decisions of `edge`, carried out as the agent does, over a model that takes time.

use super::cloud::{Knock, Number, Reply};
use super::flight::{CheckFlight, Flight, Wish};
use super::{Random, Terms};
use crate::network::Profile as Link;
use edge::audit::{Audit, AuditPolicy, Findings};
use edge::breaker::{Breaker, BreakerPolicy};
use edge::budget::{Budget, SavedBudget};
use edge::offload::{
    Action, Ask, Event, Outlook, Passage, Profile, Request, Rules, Situation, choose, margin,
};
use edge::paths::LinkCounters;
use protocol::infer::{Placement, Reason};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

const THRESHOLD: f32 = 0.74;
const MARGIN: Duration = Duration::from_millis(5);
const QUEUE_MAX: usize = 64;
/// The check of a request is another one for the cloud, which may have been asked for the request too.
const CHECKS: Number = 1 << 63;
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

/// What the world has to do for a device.
#[derive(Debug)]
pub(super) enum Wanted {
    /// The edge run ends then.
    EdgeRuns(Number, Duration),
    /// The edge run is not waited for any longer than this.
    EdgeUntil(Number, Instant),
    /// The cloud is asked, and waited for until then.
    Cloud(Knock, Instant),
    /// The stream is reset.
    Cancel(Number),
    /// A request ended.
    Ended(Ended),
}

/// How a request ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) number: Number,
    pub(super) wish: Wish,
    /// From where the answer is, and why; none for a deadline that passed.
    pub(super) answer: Option<(Placement, Reason)>,
    /// When a busy cloud wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

pub(super) struct Device {
    pub(super) link: Link,
    pub(super) audit: Audit,
    pub(super) passage: Passage,
    pub(super) flights: BTreeMap<Number, Flight>,
    pub(super) checks: BTreeMap<Number, CheckFlight>,
    /// Calls of the cloud: when, how many bytes; over restarts.
    pub(super) spent: Vec<(Instant, u64)>,
    pub(super) calls: u64,
    pub(super) checks_asked: u64,
    pub(super) restarts: u64,
    outlook: Outlook,
    terms: Terms,
    run: Duration,
    queue: VecDeque<Number>,
    running: Option<Number>,
    saved: Option<SavedBudget>,
    findings: Option<Findings>,
    random: Random,
    pub(super) wanted: VecDeque<Wanted>,
}

impl Device {
    pub(super) fn new(terms: &Terms, link: Link, mut random: Random, now: Instant) -> Self {
        let run = Duration::from_secs_f64(random.log_uniform(0.000_3, 0.05));
        let mut device = Self {
            link,
            audit: Audit::new(&AuditPolicy::default(), None, None),
            passage: Self::passage(terms, None, now, 0),
            flights: BTreeMap::new(),
            checks: BTreeMap::new(),
            spent: Vec::new(),
            calls: 0,
            checks_asked: 0,
            restarts: 0,
            outlook: Outlook::default(),
            terms: terms.clone(),
            run,
            queue: VecDeque::new(),
            running: None,
            saved: None,
            findings: None,
            random,
            wanted: VecDeque::new(),
        };
        device.keep(now, 0);
        device
    }

    fn passage(terms: &Terms, saved: Option<SavedBudget>, now: Instant, now_s: i64) -> Passage {
        let budget = Budget::new(terms.budget, saved, now, now_s);
        Passage::new(Breaker::new(BreakerPolicy::default()), budget)
    }

    /// The process ends and starts again: what was under way is gone, what was written down is not.
    pub(super) fn restart(&mut self, now: Instant, now_s: i64) {
        self.passage = Self::passage(&self.terms, self.saved, now, now_s);
        self.audit = Audit::new(&AuditPolicy::default(), None, self.findings.clone());
        self.outlook = Outlook::default();
        self.restarts += 1;
        for number in self.flights.keys().chain(self.checks.keys()) {
            self.wanted.push_back(Wanted::Cancel(*number));
        }
        self.flights.clear();
        self.checks.clear();
        self.queue.clear();
        self.running = None;
        self.keep(now, now_s);
    }

    fn keep(&mut self, now: Instant, now_s: i64) {
        if let Some(saved) = self.passage.budget.save(now, now_s) {
            let kept = self.random.chance(0.95); // a full disk now and then
            self.saved = if kept { Some(saved) } else { self.saved };
            self.passage.budget.saved(kept);
        }
    }

    fn profile(&self) -> Profile {
        let profile = Profile {
            threshold: Some(THRESHOLD),
            risk: None,
            cloud_variant: true,
            never_leaves_device: false,
        };
        profile.raised(self.audit.raised())
    }

    fn read_link(&mut self) {
        let round_trip = (self.link.one_way + self.link.jitter) * 2;
        let counters = LinkCounters { round_trip, window_bytes: 14_720, ..LinkCounters::default() };
        self.passage.link.read(counters);
    }

    /// A request arrives.
    pub(super) fn arrive(&mut self, number: Number, wish: Wish, connected: bool, now: Instant) {
        self.calls += 1;
        let cutoff = wish.arrived + (wish.allowed - margin(MARGIN, wish.allowed));
        let (policy, random) = (AuditPolicy::default(), &mut self.random);
        let drawn = self.audit.draws(&policy, 0, || random.bits());
        let profile = self.profile();
        self.read_link();
        let standing = self.passage.standing(connected, now);
        let estimate = self.outlook.cloud.estimate(wish.bytes, standing.link);
        let busy = self.outlook.is_busy(now).then_some(Reason::CloudBusy);
        let situation = Situation {
            remaining: cutoff.saturating_duration_since(now),
            edge: self.outlook.edge.estimate(1),
            cloud: standing.closed.or(busy).map_or(Ok(estimate), Err),
            fill: standing.fill,
            deferred: self.outlook.deferred(),
            explores: self.outlook.explores(),
        };
        let plan = choose(&profile, &Rules::default(), wish.hint, &situation);
        let (machine, action) = Request::start(plan.expect("this model may go anywhere"));
        let flight = Flight {
            wish,
            cutoff,
            machine,
            threshold: profile.threshold,
            edge: false,
            cloud: None,
            doubt: 1.0,
            retry_after: None,
            drawn: drawn.then(|| self.audit.level()),
        };
        self.flights.insert(number, flight);
        self.perform(number, action, connected, now);
    }

    fn perform(&mut self, number: Number, first: Action, connected: bool, now: Instant) {
        let mut action = Some(first);
        while let Some(next) = action.take() {
            let event = match next {
                Action::RunEdge => self.run_edge(number, now),
                Action::AskCloud => self.ask_cloud(number, connected, now),
                Action::RunBoth => {
                    let edge = self.run_edge(number, now);
                    let cloud = self.ask_cloud(number, connected, now);
                    // Two failures at once are told one after the other.
                    match (edge, cloud) {
                        (Some(edge), Some(cloud)) => {
                            let Some(flight) = self.flights.get_mut(&number) else { return };
                            let waits = flight.machine.handle(edge);
                            assert!(waits == Ok(Action::Wait), "{waits:?}");
                            Some(cloud)
                        }
                        (edge, cloud) => edge.or(cloud),
                    }
                }
                Action::Wait => None,
                Action::AnswerEdge(placement, reason) => {
                    return self.end(number, Some((placement, reason)), connected, now);
                }
                Action::AnswerCloud(reason) => {
                    return self.end(number, Some((Placement::Cloud, reason)), connected, now);
                }
                Action::FailEdge | Action::FailCloud => {
                    return self.end(number, None, connected, now);
                }
            };
            let flight = self.flights.get_mut(&number);
            action = event.zip(flight).map(|(event, flight)| {
                flight.machine.handle(event).expect("the table knows what can happen")
            });
        }
    }

    fn handle(&mut self, number: Number, event: Event, connected: bool, now: Instant) {
        let Some(flight) = self.flights.get_mut(&number) else { return };
        let action = flight.machine.handle(event).expect("the table knows what can happen");
        self.perform(number, action, connected, now);
    }

    fn run_edge(&mut self, number: Number, now: Instant) -> Option<Event> {
        let flight = self.flights.get_mut(&number)?;
        if self.queue.len() >= QUEUE_MAX || now >= flight.cutoff {
            return Some(Event::EdgeFailed);
        }
        flight.edge = true;
        self.outlook.edge.entered();
        self.wanted.push_back(Wanted::EdgeUntil(number, flight.cutoff));
        self.queue.push_back(number);
        self.start_next(now);
        None
    }

    /// The worker takes the next ticket that somebody still waits for.
    fn start_next(&mut self, now: Instant) {
        while self.running.is_none() {
            let Some(number) = self.queue.pop_front() else { return };
            let wanted =
                self.flights.get(&number).filter(|flight| flight.edge && now < flight.cutoff);
            if wanted.is_some() {
                self.running = Some(number);
                let took = self.run.mul_f64(0.7 + self.random.exponential(0.3));
                self.wanted.push_back(Wanted::EdgeRuns(number, took));
            }
        }
    }

    /// A run of the edge model came to its end, wanted or not.
    pub(super) fn edge_ran(
        &mut self,
        number: Number,
        took: Duration,
        connected: bool,
        now: Instant,
    ) {
        if self.running != Some(number) {
            return; // of the process before
        }
        self.running = None;
        let Some(flight) = self.flights.get_mut(&number).filter(|flight| flight.edge) else {
            return self.start_next(now);
        };
        flight.edge = false;
        self.outlook.edge.left();
        self.outlook.edge.ran(took, now);
        let accepted = flight.threshold.is_none_or(|threshold| flight.wish.score >= threshold);
        if accepted {
            self.outlook.accepted();
        } else {
            flight.doubt = self.outlook.doubted(flight.threshold, Some(flight.wish.score), now);
        }
        let event = if accepted { Event::EdgeAccepted } else { Event::EdgeDoubtful };
        self.handle(number, event, connected, now);
        self.start_next(now);
    }

    /// The time for the edge run is over.
    pub(super) fn edge_late(&mut self, number: Number, connected: bool, now: Instant) {
        let Some(flight) = self.flights.get_mut(&number).filter(|flight| flight.edge) else {
            return;
        };
        flight.edge = false;
        self.outlook.edge.left();
        self.handle(number, Event::EdgeFailed, connected, now);
    }

    fn ask_cloud(&mut self, number: Number, connected: bool, now: Instant) -> Option<Event> {
        let flight = self.flights.get(&number)?;
        let keep = match flight.machine.keeps_time_for_edge() {
            true => self.outlook.edge.estimate(1).high,
            false => Duration::ZERO,
        };
        let wish = flight.wish;
        let ask = Ask {
            connected,
            busy: self.outlook.is_busy(now),
            bytes: wish.bytes,
            priority: wish.priority,
            doubt: flight.doubt,
            check: false,
            remaining: flight.cutoff.saturating_duration_since(now),
            keep,
        };
        match self.asked(&ask, now) {
            Err(reason) => Some(Event::CloudAbsent(reason)),
            Ok(grant) => {
                if let Some(flight) = self.flights.get_mut(&number) {
                    flight.cloud = Some((now, grant));
                }
                let Wish { bytes, priority, .. } = wish;
                let knock =
                    Knock { number, may_take: grant.cloud, bytes, priority, background: false };
                self.wanted.push_back(Wanted::Cloud(knock, now + grant.wait));
                None
            }
        }
    }

    fn asked(&mut self, ask: &Ask, now: Instant) -> Result<edge::offload::Grant, Reason> {
        self.read_link();
        let grant = self.passage.ask(ask, now);
        if grant.is_ok() {
            self.spent.push((now, ask.bytes));
        }
        self.keep(now, i64::try_from(self.since_epoch(now)).unwrap_or(0));
        grant
    }

    /// Seconds of the device's clock, which is that of the world.
    fn since_epoch(&self, now: Instant) -> u64 {
        let origin = self.spent.first().map_or(now, |(at, _)| *at);
        now.saturating_duration_since(origin).as_secs()
    }

    /// The cloud answered, or refused; nothing happens where nobody waits any more.
    pub(super) fn cloud_ended(
        &mut self,
        number: Number,
        reply: Reply,
        connected: bool,
        now: Instant,
    ) {
        if let Some(check) = self.checks.remove(&number) {
            if reply == Reply::Answered {
                self.audit.checked(check.level, f64::from(check.wrong));
                self.findings = Some(self.audit.findings().clone());
            }
            return;
        }
        let Some(flight) = self.flights.get_mut(&number) else { return };
        let Some((since, _)) = flight.cloud.take() else { return };
        let bytes = flight.wish.bytes;
        if let Reply::Busy(wait) = reply {
            flight.retry_after = Some(wait);
            self.outlook.refused(wait, now);
        }
        self.passage.ended(reply != Reply::Late, since, now);
        let event = match reply {
            Reply::Answered => Event::CloudAnswered,
            Reply::Busy(_) => Event::CloudAbsent(Reason::CloudBusy),
            Reply::Late => Event::CloudAbsent(Reason::CloudLate),
        };
        if !matches!(reply, Reply::Busy(_)) {
            let link = self.passage.link.state();
            self.outlook.cloud.took(bytes, link, now - since, now);
        }
        self.handle(number, event, connected, now);
    }

    /// The time for the cloud's answer is over.
    pub(super) fn cloud_late(&mut self, number: Number, connected: bool, now: Instant) {
        let waits = self.flights.get(&number).is_some_and(|flight| flight.cloud.is_some());
        if waits || self.checks.contains_key(&number) {
            self.wanted.push_back(Wanted::Cancel(number));
            self.cloud_ended(number, Reply::Late, connected, now);
        }
    }

    fn end(
        &mut self,
        number: Number,
        answer: Option<(Placement, Reason)>,
        connected: bool,
        now: Instant,
    ) {
        let Some(flight) = self.flights.remove(&number) else { return };
        if flight.edge {
            self.outlook.edge.left();
        }
        if flight.cloud.is_some() {
            self.wanted.push_back(Wanted::Cancel(number));
        }
        if let Some((Placement::Edge, Reason::Confident)) = answer {
            self.audit.accepted(flight.wish.score);
            if let Some(level) = flight.drawn {
                self.check(number, level, &flight.wish, connected, now);
            }
        }
        let Flight { wish, retry_after, .. } = flight;
        self.wanted.push_back(Wanted::Ended(Ended { number, wish, answer, retry_after }));
    }

    fn check(&mut self, number: Number, level: u8, wish: &Wish, connected: bool, now: Instant) {
        let ask = Ask {
            connected,
            busy: self.outlook.is_busy(now),
            bytes: wish.bytes,
            priority: 0,
            doubt: 1.0,
            check: true,
            remaining: CHECK_PATIENCE,
            keep: Duration::ZERO,
        };
        let Ok(grant) = self.asked(&ask, now) else { return };
        self.checks_asked += 1;
        let number = number | CHECKS;
        self.checks.insert(number, CheckFlight { level, wrong: wish.wrong });
        let (bytes, may_take) = (wish.bytes, grant.cloud);
        let knock = Knock { number, may_take, bytes, priority: 0, background: true };
        self.wanted.push_back(Wanted::Cloud(knock, now + grant.wait));
    }
}
