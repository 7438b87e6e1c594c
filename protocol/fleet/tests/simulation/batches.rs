//! Single decisions of the batcher, by example: 2 ms and 1 ms for each item, batches of 8.

use std::time::{Duration, Instant};

use outrigger_fleet::batch::{
    Action, Batcher, Cancelled, DropReason, FlowId, NotTaken, Policy, Request, RequestId,
    SessionId, ShapeKey,
};

const MS: fn(u64) -> Duration = Duration::from_millis;
const S0: SessionId = SessionId(0);

struct Bench {
    batcher: Batcher,
    start: Instant,
    next: u64,
}

impl Bench {
    #[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
    fn new(policy: Policy) -> Self {
        let mut batcher = Batcher::new(Policy { max_batch_size: 8, ..policy });
        for n in [1, 2, 4, 8] {
            for _ in 0..20 {
                batcher.learn(n, MS(2 + u64::from(n)));
            }
        }
        Self { batcher, start: Instant::now(), next: 0 }
    }

    fn batching() -> Self {
        Self::new(Policy { batch_invariant: true, ..Policy::default() })
    }

    /// A request of one item at 0 ms with a deadline of 1 s, changed by `change`.
    fn ask(&mut self, change: impl FnOnce(&mut Request)) -> u64 {
        self.next += 1;
        let mut request = Request {
            id: RequestId(self.next),
            flow: FlowId(0),
            weight: 1,
            items: 1,
            shape: ShapeKey(0),
            priority: 0,
            background: false,
            deadline: self.start + MS(1000),
            arrived: self.start,
        };
        change(&mut request);
        self.batcher.handle_request(request, self.start).unwrap();
        self.next
    }

    /// All actions at this moment, as text.
    fn at(&mut self, ms: u64) -> String {
        let now = self.start + MS(ms);
        let actions = std::iter::from_fn(|| self.batcher.poll_action(now));
        let texts = actions.map(|action| match action {
            Action::Run { session, batch, .. } => {
                format!("{}:{:?}", session.0, batch.iter().map(|id| id.0).collect::<Vec<_>>())
            }
            Action::Drop { id, reason } => format!("{} {}", id.0, reason.as_str()),
        });
        texts.collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn an_idle_session_takes_work_at_once_and_batches_form_while_all_are_busy() {
    let mut bench = Bench::batching();
    bench.batcher.handle_session(S0);
    for _ in 0..4 {
        bench.ask(|_| ());
    }
    assert_eq!(bench.at(0), "0:[1, 2, 3, 4]", "they came at one moment");
    for _ in 0..10 {
        bench.ask(|_| ());
    }
    assert_eq!(bench.at(1), "");
    bench.batcher.handle_finished(S0, Some(MS(6)));
    assert_eq!(bench.at(6), "0:[5, 6, 7, 8, 9, 10, 11, 12]");
}

#[test]
fn a_model_that_is_not_proven_runs_one_request_at_a_time() {
    let mut bench = Bench::new(Policy::default());
    bench.batcher.handle_session(S0);
    bench.batcher.handle_session(SessionId(1));
    for _ in 0..3 {
        bench.ask(|_| ());
    }
    assert_eq!(bench.at(0), "0:[1], 1:[2]");
}

#[test]
fn requests_are_never_split_and_large_ones_run_alone() {
    let mut bench = Bench::batching();
    for items in [5, 5, 3, 20] {
        bench.ask(|r| r.items = items);
    }
    for session in 0..3 {
        bench.batcher.handle_session(SessionId(session));
    }
    assert_eq!(bench.at(0), "0:[1, 3], 1:[2], 2:[4]");
}

#[test]
fn shapes_do_not_mix() {
    let mut bench = Bench::batching();
    for shape in [1, 2, 1, 2] {
        bench.ask(|r| r.shape = ShapeKey(shape));
    }
    bench.batcher.handle_session(S0);
    bench.batcher.handle_session(SessionId(1));
    assert_eq!(bench.at(0), "0:[1, 3], 1:[2, 4]");
}

#[test]
fn what_nobody_waits_for_comes_last_alone_and_leaves_a_session() {
    let mut bench = Bench::batching();
    let first = bench.ask(|r| (r.background, r.priority) = (true, 3));
    for _ in 0..20 {
        bench.ask(|_| ());
    }
    bench.batcher.handle_session(S0);
    for _ in 0..3 {
        assert!(!bench.at(0).contains(&format!("[{first}]")), "however long it waits");
        bench.batcher.handle_finished(S0, Some(MS(10)));
    }
    bench.ask(|r| r.background = true);
    assert_eq!(bench.at(0), "0:[1]", "alone");
    bench.batcher.handle_session(SessionId(1));
    assert_eq!(bench.at(1), "", "the other session is for whoever comes");
    let live = bench.ask(|_| ());
    assert_eq!(bench.at(1), format!("1:[{live}]"));
    bench.batcher.handle_finished(S0, Some(MS(3)));
    assert_eq!(bench.at(3), "");
    bench.batcher.handle_finished(SessionId(1), Some(MS(3)));
    assert_eq!(bench.at(4), "0:[22]");
}

#[test]
fn priorities_then_deadlines() {
    let mut bench = Bench::new(Policy::default());
    let start = bench.start;
    bench.ask(|_| ());
    bench.ask(|r| r.deadline = start + MS(900));
    bench.ask(|r| r.priority = 1);
    bench.ask(|r| r.priority = 200);
    let mut order = Vec::new();
    for ms in 0..4 {
        bench.batcher.handle_session(S0);
        order.push(bench.at(ms * 3));
        bench.batcher.handle_finished(S0, Some(MS(3)));
    }
    assert_eq!(order.join(" "), "0:[4] 0:[3] 0:[2] 0:[1]");
}

/// A far deadline is overtaken only by what came within the patience (1 s) after it.
#[test]
fn a_far_deadline_does_not_starve() {
    let mut bench = Bench::new(Policy::default());
    let start = bench.start;
    let far = bench.ask(|r| r.deadline = start + MS(600_000));
    let later = |bench: &mut Bench, arrived_ms| {
        bench.ask(|r| {
            r.arrived = start + MS(arrived_ms);
            r.deadline = start + MS(arrived_ms + 500);
        })
    };
    let (before, after) = (later(&mut bench, 400), later(&mut bench, 600));
    let mut order = Vec::new();
    for _ in 0..3 {
        bench.batcher.handle_session(S0);
        order.push(bench.at(610));
        bench.batcher.handle_finished(S0, Some(MS(3)));
    }
    assert_eq!(order, [before, far, after].map(|id| format!("0:[{id}]")));
}

#[test]
fn a_batch_shrinks_to_its_deadlines() {
    let mut bench = Bench::batching();
    let start = bench.start;
    bench.ask(|r| r.deadline = start + Duration::from_micros(6_100)); // 4 items take 6 ms
    for _ in 0..7 {
        bench.ask(|_| ());
    }
    bench.batcher.handle_session(S0);
    assert_eq!(bench.at(0), "0:[1, 2, 3, 4]");
}

#[test]
fn what_cannot_be_in_time_is_dropped_as_soon_as_that_is_known() {
    let mut bench = Bench::batching();
    let start = bench.start;
    bench.batcher.handle_session(S0);
    bench.ask(|_| ());
    assert_eq!(bench.at(0), "0:[1]");
    bench.ask(|r| r.deadline = start + MS(10));
    bench.ask(|r| r.deadline = start);
    assert_eq!(bench.at(0), "3 expired");
    let due = bench.batcher.poll_timeout().unwrap() - start;
    assert!((MS(6)..=MS(7)).contains(&due), "its run takes 3 ms: {due:?}");
    assert_eq!(bench.at(6), "");
    assert_eq!(bench.at(7), "2 cannot_make_it");
    assert_eq!(bench.batcher.poll_timeout(), None);
}

#[test]
fn nobody_waits_longer_than_the_delay() {
    let mut bench = Bench::new(Policy { max_queue_delay: MS(50), ..Policy::default() });
    bench.ask(|_| ());
    assert_eq!((bench.at(49), bench.at(50)), (String::new(), "1 queued_too_long".into()));
}

#[test]
fn cancelled_requests_do_not_run() {
    let mut bench = Bench::new(Policy::default());
    bench.ask(|_| ());
    bench.ask(|_| ());
    assert_eq!(bench.batcher.handle_cancel(RequestId(1)), Cancelled::Dropped);
    assert_eq!(bench.batcher.handle_cancel(RequestId(1)), Cancelled::Unknown);
    bench.batcher.handle_session(S0);
    assert_eq!(bench.at(0), "1 cancelled, 0:[2]");
    assert_eq!(bench.batcher.handle_cancel(RequestId(2)), Cancelled::Running);
}

/// One of three kills its session. The others are answered; it is dropped after a second try.
#[test]
fn after_a_lost_session_each_runs_alone_and_once() {
    let mut bench = Bench::batching();
    for _ in 0..3 {
        bench.ask(|_| ());
    }
    bench.batcher.handle_session(S0);
    assert_eq!(bench.at(0), "0:[1, 2, 3]");
    bench.batcher.handle_session_lost(S0, bench.start);
    bench.ask(|_| ());
    bench.batcher.handle_session(S0);
    assert_eq!(bench.at(1), "0:[1]");
    bench.batcher.handle_session_lost(S0, bench.start + MS(1));
    bench.batcher.handle_session(S0);
    assert_eq!(bench.at(2), "1 session_lost, 0:[2]");
}

#[test]
fn a_retired_session_finishes_its_batch_and_gets_no_other() {
    let mut bench = Bench::new(Policy::default());
    bench.batcher.handle_session(S0);
    bench.ask(|_| ());
    assert_eq!(bench.at(0), "0:[1]");
    assert!(!bench.batcher.handle_retire(S0));
    bench.ask(|_| ());
    bench.batcher.handle_finished(S0, Some(MS(3)));
    assert_eq!((bench.at(3), bench.batcher.load().sessions), (String::new(), 0));
    bench.batcher.handle_session(S0);
    assert_eq!(bench.at(4), "0:[2]");
}

#[test]
fn the_queue_is_bounded_and_names_are_unique() {
    let mut bench = Bench::new(Policy { max_waiting: 2, ..Policy::default() });
    let base = Request {
        id: RequestId(1),
        flow: FlowId(0),
        weight: 1,
        items: 1,
        shape: ShapeKey(0),
        priority: 0,
        background: false,
        deadline: bench.start + MS(100),
        arrived: bench.start,
    };
    let mut take = |id, items| {
        let request = Request { id: RequestId(id), items, ..base };
        bench.batcher.handle_request(request, bench.start)
    };
    assert_eq!((take(1, 1), take(1, 1)), (Ok(()), Err(NotTaken::Duplicate(RequestId(1)))));
    assert_eq!(take(2, 0), Err(NotTaken::NoItems));
    assert_eq!((take(2, 1), take(3, 1)), (Ok(()), Err(NotTaken::QueueFull { waiting: 2 })));
}

#[test]
fn reasons_have_different_words() {
    let words: std::collections::BTreeSet<_> = DropReason::ALL.map(DropReason::as_str).into();
    assert_eq!(words.len(), DropReason::ALL.len());
}
