//! The cloud: the real batcher over two sessions that take time.

use crate::network::Random;
use fleet::batch::{
    Action, Batcher, Cancelled, FlowId, Policy, Request, RequestId, SessionId, ShapeKey,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A request, unique in the world.
pub(super) type Number = u64;

const SESSIONS: u32 = 2;

/// What the cloud does next.
#[derive(Debug)]
pub(super) enum Step {
    /// A run ends then.
    Runs(SessionId, Instant),
    /// A request ends without a run.
    Refused(Number),
}

pub(super) struct Cloud {
    batcher: Batcher,
    running: BTreeMap<SessionId, (Vec<Number>, Duration)>,
    given_up: BTreeSet<Number>,
    random: Random,
    run: Duration,
    /// Requests that were given up while they waited: they must never run.
    pub(super) spared: u64,
}

impl Cloud {
    pub(super) fn new(random: Random, run: Duration) -> Self {
        let batcher = Self::fresh();
        let running = BTreeMap::new();
        Self { batcher, running, given_up: BTreeSet::new(), random, run, spared: 0 }
    }

    fn fresh() -> Batcher {
        let mut batcher = Batcher::new(Policy { batch_invariant: true, ..Policy::default() });
        (0..SESSIONS).for_each(|n| batcher.handle_session(SessionId(n)));
        batcher
    }

    /// All that it had is gone.
    pub(super) fn crash(&mut self) {
        self.batcher = Self::fresh();
        self.running.clear();
    }

    /// A request arrived; whether it was taken.
    pub(super) fn take(
        &mut self,
        number: Number,
        priority: u8,
        now: Instant,
        until: Instant,
    ) -> bool {
        let request = Request {
            id: RequestId(number),
            flow: FlowId(0),
            weight: 1,
            items: 1,
            shape: ShapeKey(0),
            priority,
            deadline: until,
            arrived: now,
        };
        self.batcher.handle_request(request, now).is_ok()
    }

    /// A stream was reset.
    pub(super) fn cancel(&mut self, number: Number) {
        if self.batcher.handle_cancel(RequestId(number)) == Cancelled::Dropped {
            self.spared += 1;
            self.given_up.insert(number);
        }
    }

    /// A run ended; whom it answers.
    pub(super) fn finished(&mut self, session: SessionId) -> Vec<Number> {
        let Some((batch, took)) = self.running.remove(&session) else { return Vec::new() };
        self.batcher.handle_finished(session, Some(took));
        batch
    }

    /// The next step, if there is one now; an error for a request that runs although it was given up.
    pub(super) fn poll(&mut self, now: Instant) -> Result<Option<Step>, Number> {
        Ok(match self.batcher.poll_action(now) {
            None => None,
            Some(Action::Drop { id, .. }) => Some(Step::Refused(id.0)),
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
