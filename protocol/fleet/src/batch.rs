//! Which requests of a model run now, together, and on which session.
//!
//! **Natural batching.** An idle session takes work at once and never waits for a batch to fill:
//! batches form while all sessions are busy, and are as large as what has gathered. So a lone call
//! pays nothing, and under load the batches grow by themselves. `max_queue_delay` therefore delays
//! nothing here: it is the longest that a request may wait for a session.
//!
//! **Order.** Higher priorities first, but a priority with waiting requests begins at least one of
//! every [`PASSED_OVER_MAX`] + 4 runs. Inside a priority tenants share by weight (start-time fair
//! queueing); inside a tenant the earliest deadline is first, except that no request is overtaken
//! by one that came more than [`Policy::patience`] after it. So nothing starves.
//!
//! **Deadlines.** How long a run takes is learnt ([`Curve`]). A batch takes in a request only if
//! the run is expected to end before the deadline of every member; a request that could not make
//! its deadline even alone is dropped before it costs anything, and as early as that is known.
//!
//! **Mates.** Requests share a run only where the model was proven batch-invariant, when their
//! shapes agree, and as far as items get cheaper by it. A request of several items is never split;
//! one that is larger than a batch may be runs alone. After a session was lost its requests run
//! once more, each alone: if one of them was the cause, it takes no other with it.
//!
//! **Residual runs.** Behind a flood even the first in line waits for the rest of a run. Module `express`
//! says what a tenant that is behind its share has instead.
//!
//! Every request that was taken ends exactly once: in the run that it last took part in, or by one
//! [`Action::Drop`]. All operations cost O(log n) of the waiting requests; forming a batch costs
//! that for each member, and for at most [`SKIPS_MAX`] requests that did not fit.
//!
//! # The loop that drives it
//!
//! After each event all actions are taken; then the driver sleeps until the next event or the time
//! that [`Batcher::poll_timeout`] says, whichever comes first.
//!
//! ```
//! use fleet::batch::{Action, Batcher, FlowId, Policy, Request, RequestId, SessionId, ShapeKey};
//! # use outrigger_fleet as fleet;
//! use std::time::{Duration, Instant};
//!
//! let mut now = Instant::now();
//! let mut batcher = Batcher::new(Policy { batch_invariant: true, ..Policy::default() });
//! // What the warm-up measured.
//! batcher.learn(1, Duration::from_millis(2));
//! batcher.handle_session(SessionId(0));
//! for id in 0..3 {
//!     let request = Request {
//!         id: RequestId(id),
//!         flow: FlowId(7),
//!         weight: 1,
//!         items: 1,
//!         shape: ShapeKey(0),
//!         priority: 0,
//!         deadline: now + Duration::from_secs(1),
//!         arrived: now,
//!     };
//!     batcher.handle_request(request, now)?;
//!     while let Some(action) = batcher.poll_action(now) {
//!         match action {
//!             // Hand it to the session; its thread reports back with an event.
//!             Action::Run { session, batch, .. } => assert_eq!((session.0, batch.len()), (0, 1)),
//!             // Tell the caller, and give the request's permit back to admission.
//!             Action::Drop { id, reason } => println!("{id:?}: {}", reason.as_str()),
//!         }
//!     }
//! }
//! now += Duration::from_millis(2);
//! batcher.handle_finished(SessionId(0), Some(Duration::from_millis(2)));
//! let next = batcher.poll_action(now); // the two that gathered while the session was busy
//! assert!(matches!(next, Some(Action::Run { items: 2, .. })));
//! # Ok::<(), fleet::batch::NotTaken>(())
//! ```

mod curve;
mod express;
mod fair;
mod form;
mod queue;
mod request;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use protocol::limits::SHAPES_MAX;

pub use curve::Curve;
pub use express::ExpressChange;
pub use form::SKIPS_MAX;
pub use queue::PASSED_OVER_MAX;
pub use request::{
    Action, Cancelled, DropReason, FlowId, Load, NotTaken, Policy, Request, RequestId, SessionId,
    ShapeKey,
};

use express::Express;
use queue::{Queue, Waiting};

/// Nothing has waited or run for so long: what anybody owes is over. Not at once, or a flood of which there
/// is nothing for a moment would be as good as new.
const REST: Duration = Duration::from_secs(1);

/// A batch on a session.
#[derive(Debug)]
struct Running {
    members: Vec<Member>,
    shape: ShapeKey,
    items: u32,
    /// It began with a request of a tenant that is not behind its share.
    of_heavy: bool,
    /// Another run was preferred to it meanwhile: its time says nothing.
    disturbed: bool,
}

#[derive(Debug)]
struct Member {
    waiting: Waiting,
    cancelled: bool,
}

/// The queue of one model and the state of its sessions.
#[derive(Debug)]
pub struct Batcher {
    policy: Policy,
    queue: Queue,
    curves: Curves,
    idle: BTreeSet<SessionId>,
    express: Express,
    /// Since when nothing waits or runs, where somebody owes something.
    at_rest_since: Option<Instant>,
    running: BTreeMap<SessionId, Running>,
    /// Where each running request runs.
    running_on: BTreeMap<RequestId, SessionId>,
    retiring: BTreeSet<SessionId>,
    drops: VecDeque<(RequestId, DropReason)>,
}

impl Batcher {
    /// An empty queue without sessions.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            queue: Queue::default(),
            curves: Curves::default(),
            idle: BTreeSet::new(),
            express: Express::default(),
            at_rest_since: None,
            running: BTreeMap::new(),
            running_on: BTreeMap::new(),
            retiring: BTreeSet::new(),
            drops: VecDeque::new(),
        }
    }

    /// What a run outside the queue measured, such as the warm-up: without any, batches begin at
    /// one item and double as they pay off.
    pub fn learn(&mut self, items: u32, ran: Duration) {
        self.curves.all.record(items, ran);
    }

    /// A request whose tensors have arrived.
    ///
    /// # Errors
    /// [`NotTaken`]; the request is then still the caller's to answer.
    pub fn handle_request(&mut self, request: Request, now: Instant) -> Result<(), NotTaken> {
        if request.items == 0 {
            return Err(NotTaken::NoItems);
        }
        let id = request.id;
        if self.queue.get(id).is_some() || self.running_on.contains_key(&id) {
            return Err(NotTaken::Duplicate(id));
        }
        if self.queue.len() >= self.policy.max_waiting {
            return Err(NotTaken::QueueFull { waiting: self.queue.len() });
        }
        self.wait(request, false, now);
        Ok(())
    }

    fn wait(&mut self, request: Request, retried: bool, now: Instant) {
        let doomed_at = self.latest_start(&request).unwrap_or(now);
        let due = request.deadline.min(request.arrived + self.policy.patience);
        self.queue.insert(Waiting { request, retried, doomed_at, due });
    }

    /// The caller of a request gave it up.
    pub fn handle_cancel(&mut self, id: RequestId) -> Cancelled {
        if self.queue.remove(id).is_some() {
            self.drops.push_back((id, DropReason::Cancelled));
            return Cancelled::Dropped;
        }
        let running = self.running_on.get(&id).and_then(|on| self.running.get_mut(on));
        let member =
            running.and_then(|run| run.members.iter_mut().find(|m| m.waiting.request.id == id));
        match member {
            Some(member) => {
                member.cancelled = true;
                Cancelled::Running
            }
            None => Cancelled::Unknown,
        }
    }

    /// A session is there and idle.
    pub fn handle_session(&mut self, session: SessionId) {
        if !self.running.contains_key(&session) && !self.express.is(session) {
            self.retiring.remove(&session);
            self.idle.insert(session);
        }
    }

    /// A session is done with its batch. `ran` is the time of the run; `None` when it failed, which
    /// says nothing about how long runs take.
    pub fn handle_finished(&mut self, session: SessionId, ran: Option<Duration>) {
        let Some(run) = self.running.remove(&session) else { return };
        for member in &run.members {
            self.running_on.remove(&member.waiting.request.id);
        }
        if let Some(ran) = ran.filter(|_| !run.disturbed) {
            self.curves.record(run.shape, run.items, ran);
        }
        if !self.retiring.remove(&session) && !self.express.is(session) {
            self.idle.insert(session);
        }
    }

    /// A session has died. Its requests wait again, each to run alone; one that was lost before is
    /// dropped.
    pub fn handle_session_lost(&mut self, session: SessionId, now: Instant) {
        self.idle.remove(&session);
        self.retiring.remove(&session);
        let Some(run) = self.running.remove(&session) else { return };
        for Member { waiting, cancelled } in run.members {
            let id = waiting.request.id;
            self.running_on.remove(&id);
            match (cancelled, waiting.retried) {
                (true, _) => self.drops.push_back((id, DropReason::Cancelled)),
                (_, true) => self.drops.push_back((id, DropReason::SessionLost)),
                _ => self.wait(waiting.request, true, now),
            }
        }
    }

    /// A session gets no more work. True when it is idle and can end now; else it can when its
    /// batch is finished.
    pub fn handle_retire(&mut self, session: SessionId) -> bool {
        if self.running.contains_key(&session) {
            self.retiring.insert(session);
            return false;
        }
        self.idle.remove(&session);
        true
    }

    /// What is to be done now; to be called until there is nothing.
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        loop {
            if let Some((id, reason)) = self.drops.pop_front() {
                return Some(Action::Drop { id, reason });
            }
            if let Some(run) = self.form(now) {
                return Some(run);
            }
            // A batch may have come to nothing because its requests were dropped.
            if self.drops.is_empty() && !self.drop_first_doomed(now) {
                self.look_for_rest(now);
                return None;
            }
        }
    }

    fn look_for_rest(&mut self, now: Instant) {
        let is_at_rest = self.running.is_empty() && self.queue.len() == 0 && self.queue.flows() > 0;
        if !is_at_rest {
            self.at_rest_since = None;
        } else if now - *self.at_rest_since.get_or_insert(now) >= REST {
            self.queue.end_busy_period();
            self.at_rest_since = None;
        }
    }

    /// Whether [`Batcher::poll_action`] would find work for a session.
    pub fn is_due(&self, now: Instant) -> bool {
        let waits = self.queue.len() > 0;
        waits && (!self.idle.is_empty() || self.express_is_due(now))
    }

    /// Sessions that there are, without those that retire and the express session.
    fn sessions(&self) -> u32 {
        narrow(self.idle.len() + self.ordinary().count() - self.retiring.len())
    }

    /// What runs on sessions but the express one.
    fn ordinary(&self) -> impl Iterator<Item = &Running> {
        let ordinary = self.running.iter().filter(|(session, _)| !self.express.is(**session));
        ordinary.map(|(_, run)| run)
    }

    /// When to call [`Batcher::poll_action`] though nothing has happened.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rested = self.at_rest_since.map(|since| since + REST);
        self.queue.first_doomed().map(|(at, _)| at).or(rested)
    }

    /// How much there is to do.
    pub fn load(&self) -> Load {
        let curve = &self.curves.all;
        let best = if self.policy.batch_invariant {
            curve.best_size(self.policy.max_batch_size)
        } else {
            1
        };
        let batch_time = curve.typical(best).unwrap_or_default();
        Load {
            sessions: self.sessions(),
            busy: narrow(self.ordinary().count() - self.retiring.len()),
            running_items: self.ordinary().map(|run| run.items).sum(),
            waiting_requests: narrow(self.queue.len()),
            waiting_items: u32::try_from(self.queue.items()).unwrap_or(u32::MAX),
            item_time: batch_time / best.max(1),
            run_time: curve.safe(1),
            batch_items: best,
            batch_time,
        }
    }

    /// How long a run of so many items takes, on the safe side; zero before the first run.
    pub fn expected(&self, items: u32) -> Duration {
        self.curves.all.safe(items)
    }

    /// Tenants that are remembered: those that wait, and those that had more than their share.
    pub fn flows(&self) -> usize {
        self.queue.flows()
    }

    /// Drops the request whose time to start is over; false when there is none.
    fn drop_first_doomed(&mut self, now: Instant) -> bool {
        let Some((at, id)) = self.queue.first_doomed() else { return false };
        if at > now {
            return false;
        }
        let latest = self.queue.get(id).and_then(|w| self.latest_start(&w.request));
        match latest {
            // Runs became shorter since it arrived: there is time yet.
            Some(latest) if latest > now => self.queue.doom_at(id, latest),
            _ => self.drop_hopeless(id, now),
        }
        true
    }

    fn drop_hopeless(&mut self, id: RequestId, now: Instant) {
        if let Some(waiting) = self.queue.remove(id) {
            let request = waiting.request;
            let reason = if now >= request.deadline {
                DropReason::Expired
            } else if now >= request.arrived + self.policy.max_queue_delay {
                DropReason::QueuedTooLong
            } else {
                DropReason::CannotMakeIt
            };
            self.drops.push_back((id, reason));
        }
    }

    /// After this it cannot be answered in time; `None` where that time never was.
    fn latest_start(&self, request: &Request) -> Option<Instant> {
        let run = self.curves.of(request.shape).safe(request.items);
        let by_deadline = request.deadline.checked_sub(run)?;
        Some(by_deadline.min(request.arrived + self.policy.max_queue_delay))
    }
}

/// A curve for each of the first [`SHAPES_MAX`] shapes that ran, and one over all shapes.
#[derive(Debug, Default)]
struct Curves {
    all: Curve,
    shapes: BTreeMap<ShapeKey, Curve>,
}

impl Curves {
    fn record(&mut self, shape: ShapeKey, items: u32, ran: Duration) {
        self.all.record(items, ran);
        if let Some(curve) = self.shapes.get_mut(&shape) {
            curve.record(items, ran);
        } else if self.shapes.len() < SHAPES_MAX {
            self.shapes.insert(shape, self.all.through(items, ran));
        }
    }

    fn of(&self, shape: ShapeKey) -> &Curve {
        self.shapes.get(&shape).unwrap_or(&self.all)
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
