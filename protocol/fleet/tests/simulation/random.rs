//! Any order of events: every request that was taken ends exactly once, and what the batcher
//! promises holds at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use outrigger_fleet::batch::{
    Action, Batcher, Cancelled, FlowId, Policy, Request, RequestId, SessionId, ShapeKey,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Ask { flow: u64, weight: u32, items: u32, shape: u64, priority: u8, deadline_ms: u64 },
    Cancel(u64),
    Finish { session: u32, ran_us: Option<u64> },
    Lose(u32),
    Add(u32),
    Retire(u32),
    Wait(u64),
    WaitForTimeout,
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0_u32..4;
    prop_oneof![
        8 => (0_u64..5, 1_u32..4, 1_u32..12, 0_u64..3, 0_u8..5, 0_u64..200).prop_map(
            |(flow, weight, items, shape, priority, deadline_ms)| {
                Step::Ask { flow, weight, items, shape, priority, deadline_ms }
            }
        ),
        1 => (0_u64..100).prop_map(Step::Cancel),
        6 => (session.clone(), prop::option::of(1_u64..20_000))
            .prop_map(|(session, ran_us)| Step::Finish { session, ran_us }),
        1 => session.clone().prop_map(Step::Lose),
        2 => session.clone().prop_map(Step::Add),
        1 => session.prop_map(Step::Retire),
        3 => (0_u64..5_000).prop_map(Step::Wait),
        1 => Just(Step::WaitForTimeout),
    ]
}

/// What a careful observer knows.
struct Observer {
    batcher: Batcher,
    policy: Policy,
    now: Instant,
    next: u64,
    waiting: BTreeMap<u64, Request>,
    running: BTreeMap<SessionId, Vec<RequestId>>,
    requests: BTreeMap<u64, Request>,
    lost: BTreeMap<u64, u32>,
    ended: BTreeSet<u64>,
    retiring: BTreeSet<SessionId>,
    /// A run in the background has begun, and drops that were found on the way to it may follow.
    has_begun_background: bool,
}

impl Observer {
    #[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
    fn new(policy: Policy) -> Self {
        Self {
            batcher: Batcher::new(policy),
            policy,
            now: Instant::now(),
            next: 0,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            requests: BTreeMap::new(),
            lost: BTreeMap::new(),
            ended: BTreeSet::new(),
            retiring: BTreeSet::new(),
            has_begun_background: false,
        }
    }

    fn ends(&mut self, id: u64) {
        assert!(self.ended.insert(id), "{id} ends twice");
        self.waiting.remove(&id);
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Ask { flow, weight, items, shape, priority, deadline_ms } => {
                self.next += 1;
                let request = Request {
                    id: RequestId(self.next),
                    flow: FlowId(flow),
                    weight,
                    items,
                    shape: ShapeKey(shape),
                    priority,
                    background: priority == 0 && flow == 0,
                    deadline: self.now + Duration::from_millis(deadline_ms),
                    arrived: self.now,
                };
                let taken = self.batcher.handle_request(request, self.now);
                assert_eq!(taken.is_ok(), self.waiting.len() < self.policy.max_waiting);
                if taken.is_ok() {
                    self.waiting.insert(self.next, request);
                    self.requests.insert(self.next, request);
                }
            }
            Step::Cancel(id) => {
                let outcome = self.batcher.handle_cancel(RequestId(id));
                assert_eq!(outcome == Cancelled::Dropped, self.waiting.contains_key(&id));
            }
            Step::Finish { session, ran_us } => {
                let session = SessionId(session);
                let ran = ran_us.map(Duration::from_micros);
                self.batcher.handle_finished(session, ran);
                self.retiring.remove(&session);
                for id in self.running.remove(&session).unwrap_or_default() {
                    self.ends(id.0);
                }
            }
            Step::Lose(session) => self.lose(SessionId(session)),
            Step::Add(session) => {
                self.batcher.handle_session(SessionId(session));
                if !self.running.contains_key(&SessionId(session)) {
                    self.retiring.remove(&SessionId(session));
                }
            }
            Step::Retire(session) => {
                let gone = self.batcher.handle_retire(SessionId(session));
                assert_eq!(gone, !self.running.contains_key(&SessionId(session)));
                self.retiring.insert(SessionId(session));
            }
            Step::Wait(us) => self.now += Duration::from_micros(us),
            Step::WaitForTimeout => self.now = self.batcher.poll_timeout().unwrap_or(self.now),
        }
        self.drive();
    }

    fn lose(&mut self, session: SessionId) {
        self.batcher.handle_session_lost(session, self.now);
        self.retiring.insert(session);
        for id in self.running.remove(&session).unwrap_or_default() {
            *self.lost.entry(id.0).or_default() += 1;
            self.waiting.insert(id.0, self.requests[&id.0]);
        }
    }

    fn drive(&mut self) {
        loop {
            let action = self.batcher.poll_action(self.now);
            if !matches!(action, Some(Action::Drop { .. })) {
                self.check_background();
            }
            match action {
                Some(Action::Drop { id, .. }) => self.ends(id.0),
                Some(Action::Run { session, batch, items }) => self.starts(session, batch, items),
                None => break,
            }
        }
        let load = self.batcher.load();
        assert_eq!(load.waiting_requests as usize, self.waiting.len());
        let items: u32 = self.waiting.values().map(|request| request.items).sum();
        assert_eq!(load.waiting_items, items);
        let waits = self.somebody_waits();
        assert!(load.busy == load.sessions || !waits, "idle while work waits");
        assert!(self.batcher.poll_timeout().is_none_or(|at| at > self.now));
    }

    fn somebody_waits(&self) -> bool {
        self.waiting.values().any(|request| !request.background)
    }

    fn check_background(&mut self) {
        let begun = std::mem::take(&mut self.has_begun_background);
        assert!(!begun || !self.somebody_waits(), "it passes somebody who waits");
    }

    fn starts(&mut self, session: SessionId, batch: Vec<RequestId>, items: u32) {
        assert!(!self.retiring.contains(&session), "retired sessions get no work");
        let members: Vec<Request> =
            batch.iter().map(|id| self.waiting.remove(&id.0).expect("it waited")).collect();
        assert_eq!(members.iter().map(|m| m.items).sum::<u32>(), items);
        assert!(members.iter().all(|m| m.shape == members[0].shape && m.deadline >= self.now));
        let alone = !self.policy.batch_invariant
            || batch.iter().any(|id| self.lost.contains_key(&id.0))
            || members.iter().any(|member| member.background)
            || items > self.policy.max_batch_size;
        self.has_begun_background = members[0].background;
        assert!(!alone || members.len() == 1, "{members:?}");
        assert!(self.running.insert(session, batch).is_none(), "one batch on a session");
    }

    fn finish(&mut self) {
        for round in 0..2000 {
            self.take(&Step::Add(0));
            let session = round % 4;
            self.take(&Step::Finish { session, ran_us: Some(100) });
            self.take(&Step::WaitForTimeout);
        }
        assert_eq!(self.ended.len(), self.requests.len(), "all that was taken has ended");
        assert_eq!(self.batcher.flows(), 0, "nothing is remembered");
        assert!(self.lost.values().all(|times| *times <= 2));
    }
}

/// Found by chance: who cannot be answered any more is passed by a run in the background, and told after it.
#[test]
fn the_hopeless_are_passed_by_the_background() {
    let ask = |flow, weight, items, priority, deadline_ms| Step::Ask {
        flow,
        weight,
        items,
        shape: 0,
        priority,
        deadline_ms,
    };
    let steps = [
        ask(0, 1, 1, 0, 1),
        ask(1, 2, 4, 0, 2),
        ask(0, 1, 1, 1, 2),
        Step::WaitForTimeout,
        ask(0, 1, 1, 0, 23),
        Step::Add(3),
        ask(0, 1, 1, 1, 1),
        ask(0, 1, 1, 0, 0),
        Step::Finish { session: 3, ran_us: Some(801) },
    ];
    let policy = Policy {
        batch_invariant: false,
        max_waiting: 3,
        max_batch_size: 8,
        max_queue_delay: Duration::from_millis(150),
        ..Policy::default()
    };
    let mut observer = Observer::new(policy);
    steps.iter().for_each(|step| observer.take(step));
    observer.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_request_ends_exactly_once(
        batch_invariant in any::<bool>(),
        max_waiting in 1_usize..60,
        steps in prop::collection::vec(step(), 0..400),
    ) {
        let policy = Policy {
            batch_invariant,
            max_waiting,
            max_batch_size: 8,
            max_queue_delay: Duration::from_millis(150),
            ..Policy::default()
        };
        let mut observer = Observer::new(policy);
        for step in steps {
            observer.take(&step);
        }
        observer.finish();
    }
}
