//! The cloud: the real gate and the real batcher over two sessions that take time.

use crate::network::Random;
use fleet::admission::{
    Ask, Gate, GatePolicy, Identity, LimitPolicy, ModelSlot, Permit, RefusalKind, Terms,
};
use fleet::batch::{
    Action, Batcher, Cancelled, DropReason, Policy, Request, RequestId, SessionId, ShapeKey,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A request, unique in the world.
pub(super) type Number = u64;

const SESSIONS: u32 = 2;
const MODEL: ModelSlot = ModelSlot(0);

/// What a device hears of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reply {
    /// The answer.
    Answered,
    /// There is too much to do; when to ask again.
    Busy(Duration),
    /// It cannot be answered in time.
    Late,
}

/// A request on its way to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Knock {
    pub(super) number: Number,
    pub(super) may_take: Duration,
    pub(super) bytes: u64,
    pub(super) priority: u8,
    pub(super) background: bool,
}

/// What the cloud does next.
#[derive(Debug)]
pub(super) enum Step {
    /// A run ends then.
    Runs(SessionId, Instant),
    /// A request ends without a run.
    Ended(Number, Reply),
}

pub(super) struct Cloud {
    gate: Gate,
    batcher: Batcher,
    permits: BTreeMap<Number, Permit>,
    running: BTreeMap<SessionId, (Vec<Number>, Duration)>,
    given_up: BTreeSet<Number>,
    random: Random,
    run: Duration,
    /// Requests that were given up while they waited: they must never run.
    pub(super) spared: u64,
}

impl Cloud {
    pub(super) fn new(random: Random, run: Duration) -> Self {
        Self {
            gate: Self::fresh_gate(),
            batcher: Self::fresh_batcher(),
            permits: BTreeMap::new(),
            running: BTreeMap::new(),
            given_up: BTreeSet::new(),
            random,
            run,
            spared: 0,
        }
    }

    fn fresh_gate() -> Gate {
        let mut gate = Gate::new(GatePolicy::default());
        gate.add_model(MODEL, LimitPolicy::default());
        gate
    }

    fn fresh_batcher() -> Batcher {
        let mut batcher = Batcher::new(Policy { batch_invariant: true, ..Policy::default() });
        (0..SESSIONS).for_each(|n| batcher.handle_session(SessionId(n)));
        batcher
    }

    /// All that it had is gone.
    pub(super) fn crash(&mut self) {
        self.gate = Self::fresh_gate();
        self.batcher = Self::fresh_batcher();
        self.permits.clear();
        self.running.clear();
    }

    /// A request arrived; what its device hears at once, if it was not taken.
    pub(super) fn take(&mut self, knock: Knock, now: Instant) -> Option<Reply> {
        let terms = Terms { priority_max: knock.priority, ..Terms::default() };
        let identity = Identity { tenant: "fleet", caller: "devices", terms };
        let ask = Ask {
            model: MODEL,
            items: 1,
            bytes: knock.bytes,
            priority: knock.priority,
            remaining: Some(knock.may_take),
            background: knock.background,
        };
        let permit = match self.gate.admit(&identity, &ask, now, self.random.bits()) {
            Ok(permit) => permit,
            Err(refused) if refused.kind == RefusalKind::CannotMakeIt => return Some(Reply::Late),
            Err(refused) => return Some(Reply::Busy(refused.retry_after)),
        };
        let request = Request {
            id: RequestId(knock.number),
            flow: permit.flow(),
            weight: permit.weight(),
            items: 1,
            shape: ShapeKey(0),
            priority: permit.priority(),
            background: permit.is_background(),
            deadline: now + permit.remaining(),
            arrived: now,
        };
        self.permits.insert(knock.number, permit);
        let taken = self.batcher.handle_request(request, now);
        taken.expect("the gate keeps below what the batcher takes");
        None
    }

    /// A stream was reset.
    pub(super) fn cancel(&mut self, number: Number) {
        if self.batcher.handle_cancel(RequestId(number)) == Cancelled::Dropped {
            self.spared += 1;
            self.given_up.insert(number);
        }
    }

    fn release(&mut self, number: Number, now: Instant) {
        if let Some(permit) = self.permits.remove(&number) {
            self.gate.release(permit, now);
        }
    }

    /// A run ended; whom it answers.
    pub(super) fn finished(&mut self, session: SessionId, now: Instant) -> Vec<Number> {
        let Some((batch, took)) = self.running.remove(&session) else { return Vec::new() };
        self.batcher.handle_finished(session, Some(took));
        batch.iter().for_each(|number| self.release(*number, now));
        batch
    }

    /// The next step, if there is one now; an error for a request that runs although it was given up.
    pub(super) fn poll(&mut self, now: Instant) -> Result<Option<Step>, Number> {
        Ok(match self.batcher.poll_action(now) {
            None => {
                self.gate.handle_load(MODEL, self.batcher.load(), now);
                None
            }
            Some(Action::Drop { id, reason }) => {
                self.release(id.0, now);
                Some(Step::Ended(id.0, told(reason)))
            }
            Some(Action::Run { session, batch, items }) => {
                let batch: Vec<Number> = batch.into_iter().map(|id| id.0).collect();
                if let Some(number) = batch.iter().find(|number| self.given_up.contains(number)) {
                    return Err(*number);
                }
                let noise = 0.8 + 0.4 * self.random.share();
                let took = (self.run + self.run / 5 * items).mul_f64(noise);
                self.running.insert(session, (batch, took));
                Some(Step::Runs(session, now + took))
            }
        })
    }

    /// When it wants to be polled again, beside the ends of runs.
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.batcher.poll_timeout()
    }
}

/// What the device of a dropped request hears: the same as from the real server.
fn told(reason: DropReason) -> Reply {
    match reason {
        DropReason::QueuedTooLong => Reply::Busy(Duration::from_millis(100)),
        _ => Reply::Late,
    }
}
