//! What a lane knows: the batcher and the scaler, who waits, and the sessions that are idle. Nothing
//! here waits or runs; whoever holds the lock is done in microseconds.

use fleet::batch::ExpressChange;
use fleet::batch::{Action, Batcher, Cancelled, DropReason, Load, NotTaken, Request, RequestId};
use fleet::batch::{SessionId, ShapeKey};
use fleet::scaling::{self, Scaler};
use models::probing::Together;
use models::runner::{Question, Runner};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

use super::{Ran, Standing, Unanswered};
use crate::serving::settings::ModelSettings;

/// A request in the book.
pub(super) struct Ticket {
    pub(super) question: Question,
    /// When it was ready to run.
    pub(super) since: Instant,
    pub(super) end: oneshot::Sender<Result<Ran, Unanswered>>,
}

/// A batch that begins now, and the session that it runs on.
pub(super) struct Batch {
    pub(super) session: SessionId,
    pub(super) runner: Runner,
    pub(super) members: Vec<(RequestId, Ticket)>,
    pub(super) items: u32,
    /// How long it may take, on the safe side.
    pub(super) expected: Duration,
    pub(super) began: Instant,
}

/// What is to be done after something has happened.
#[derive(Default)]
pub(super) struct Deeds {
    pub(super) batches: Vec<Batch>,
    pub(super) drops: Vec<(Ticket, DropReason)>,
    pub(super) load: Load,
}

/// A change of the number of sessions.
pub(super) enum Change {
    /// Open one more.
    Open,
    /// This one is not needed any more.
    Close(Box<Runner>),
}

/// One session.
#[derive(Default)]
struct Seat {
    /// Away while it runs.
    runner: Option<Runner>,
    /// It ended under its last batch: the next may have to wait for its successor.
    was_lost: bool,
}

impl Seat {
    fn of(runner: Runner) -> Self {
        Self { runner: Some(runner), was_lost: false }
    }
}

pub(super) struct Book {
    batcher: Batcher,
    scaler: Scaler,
    sessions_min: u32,
    waiting: HashMap<RequestId, Ticket>,
    seats: BTreeMap<SessionId, Seat>,
    retiring: Option<SessionId>,
    /// Beyond those that the scaler counts.
    express: Option<SessionId>,
    next_request: u64,
    next_session: u32,
    /// Somebody was asked to look for what is due, and has not looked yet.
    drive_is_due: bool,
    /// When the keeper wakes.
    wakes_at: Option<Instant>,
    ran_in_window: bool,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sessions, waiting) = (self.seats.len(), self.waiting.len());
        f.debug_struct("Book").field("sessions", &sessions).field("waiting", &waiting).finish()
    }
}

impl Book {
    pub(super) fn new(
        settings: &ModelSettings,
        devices: Option<u32>,
        together: &Together,
        now: Instant,
    ) -> Self {
        let mut batcher = Batcher::new(settings.batches(together.objection.is_none(), devices));
        together.runs.iter().for_each(|(items, ran)| batcher.learn(*items, *ran));
        let scaling = settings.scaling(devices);
        Self {
            batcher,
            scaler: Scaler::new(scaling, now),
            sessions_min: scaling.min,
            waiting: HashMap::new(),
            seats: BTreeMap::new(),
            retiring: None,
            express: None,
            next_request: 0,
            next_session: 0,
            drive_is_due: false,
            wakes_at: None,
            ran_in_window: false,
        }
    }

    /// A new session is there.
    pub(super) fn seat(&mut self, runner: Runner) {
        let session = self.place(runner);
        self.batcher.handle_session(session);
    }

    fn place(&mut self, runner: Runner) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        self.seats.insert(session, Seat::of(runner));
        session
    }

    /// The express session is there; or it does not open.
    pub(super) fn seat_express(&mut self, runner: Option<Runner>, now: Instant) {
        match runner {
            Some(runner) => {
                let session = self.place(runner);
                self.express = Some(session);
                self.batcher.handle_express(session, now);
            }
            None => self.batcher.handle_no_express(now),
        }
    }

    /// Sessions, without the express one.
    pub(super) fn seats(&self) -> usize {
        self.seats.len() - usize::from(self.express.is_some())
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether there are fewer sessions than there should be.
    pub(super) fn wants_sessions(&self) -> bool {
        self.seats() < self.scaler.sessions() as usize
    }

    /// Takes a request in.
    pub(super) fn enter(
        &mut self,
        ticket: Ticket,
        standing: Standing,
        now: Instant,
    ) -> Result<RequestId, NotTaken> {
        let id = RequestId(self.next_request);
        let mates = ticket.question.mates();
        let request = Request {
            id,
            flow: standing.flow,
            weight: standing.weight,
            items: mates.map_or(1, |mates| mates.items),
            // One that runs alone is nobody's mate; what a collision would join is told apart later.
            shape: ShapeKey(mates.map_or(!id.0, |mates| mates.key)),
            priority: standing.priority,
            deadline: standing.deadline,
            arrived: now,
        };
        self.batcher.handle_request(request, now)?;
        self.next_request += 1;
        self.waiting.insert(id, ticket);
        Ok(id)
    }

    /// Whether the caller has to look for what is due: there is work for a session, and nobody was asked.
    pub(super) fn begins_drive(&mut self, now: Instant) -> bool {
        let begins = !self.drive_is_due && self.batcher.is_due(now);
        self.drive_is_due |= begins;
        begins
    }

    /// Its caller has gone.
    pub(super) fn cancel(&mut self, id: RequestId) {
        if self.batcher.handle_cancel(id) == Cancelled::Dropped {
            self.waiting.remove(&id);
        }
    }

    /// Everything that is due now.
    pub(super) fn due(&mut self, now: Instant) -> Deeds {
        self.drive_is_due = false;
        let mut deeds = Deeds::default();
        while let Some(action) = self.batcher.poll_action(now) {
            match action {
                Action::Run { session, batch, items } => {
                    deeds.batches.extend(self.begin(session, &batch, items, now));
                }
                Action::Drop { id, reason } => {
                    deeds.drops.extend(self.waiting.remove(&id).map(|ticket| (ticket, reason)));
                }
            }
        }
        deeds.load = self.batcher.load();
        deeds
    }

    fn begin(
        &mut self,
        session: SessionId,
        batch: &[RequestId],
        items: u32,
        now: Instant,
    ) -> Option<Batch> {
        let seat = self.seats.get_mut(&session)?;
        let (mut runner, was_lost) = (seat.runner.take()?, seat.was_lost);
        if self.batcher.gives_way(session) {
            runner.give_way();
        }
        let member = |id: &RequestId| Some((*id, self.waiting.remove(id)?));
        let members = batch.iter().filter_map(member).collect();
        let waits = was_lost || !runner.is_ready();
        let expected = if waits { Duration::MAX } else { self.batcher.expected(items) };
        Some(Batch { session, runner, members, items, expected, began: now })
    }

    /// A batch has run. Gives the runner back where its session was retired meanwhile.
    pub(super) fn finished(
        &mut self,
        (session, runner): (SessionId, Runner),
        run: scaling::Run,
        learns: bool,
    ) -> Option<Runner> {
        self.batcher.handle_finished(session, learns.then_some(run.ran));
        if self.express != Some(session) {
            self.scaler.handle_run(run);
            self.ran_in_window = true;
        }
        if self.retiring == Some(session) {
            self.retiring = None;
            self.seats.remove(&session);
            return Some(runner);
        }
        self.seats.insert(session, Seat::of(runner));
        None
    }

    /// A session ended under its batch. It stays: when it is asked again, it waits for its successor.
    pub(super) fn lost(
        &mut self,
        (session, runner): (SessionId, Runner),
        members: Vec<(RequestId, Ticket)>,
        now: Instant,
    ) {
        self.waiting.extend(members);
        self.batcher.handle_session_lost(session, now);
        self.seats.insert(session, Seat { runner: Some(runner), was_lost: true });
        self.batcher.handle_session(session);
    }

    /// When something is due though nothing happens; the keeper will wake then.
    pub(super) fn wakes_at(&mut self) -> Option<Instant> {
        let measures = self.ran_in_window || self.seats() > self.sessions_min as usize;
        let scaling = measures.then(|| self.scaler.poll_timeout());
        let waiting = self.batcher.poll_timeout();
        let express = self.batcher.express_timeout();
        self.wakes_at = waiting.into_iter().chain(scaling).chain(express).min();
        self.wakes_at
    }

    /// Whether the keeper has to wake earlier than it will.
    pub(super) fn wakes_earlier(&self) -> bool {
        let due = self.batcher.poll_timeout();
        due.is_some_and(|due| self.wakes_at.is_none_or(|wakes_at| due < wakes_at))
    }

    /// Whether the keeper sleeps although there is something to measure.
    pub(super) fn keeper_sleeps(&self) -> bool {
        self.wakes_at.is_none()
    }

    /// Whether another number of sessions is wanted now.
    pub(super) fn poll_change(&mut self, now: Instant) -> Option<Change> {
        if now >= self.scaler.poll_timeout() {
            self.ran_in_window = false;
        }
        let wanted = self.scaler.poll_sessions(now)? as usize;
        if wanted > self.seats() {
            return Some(Change::Open);
        }
        let last = *self.seats.keys().rev().find(|session| self.express != Some(**session))?;
        if wanted == self.seats() || self.retiring.is_some() {
            return None;
        }
        if self.batcher.handle_retire(last) {
            return self.seats.remove(&last)?.runner.map(Box::new).map(Change::Close);
        }
        self.retiring = Some(last);
        None
    }

    /// Whether the express session is to be opened, or closed, now.
    pub(super) fn poll_express(&mut self, now: Instant) -> Option<Change> {
        match self.batcher.poll_express(now)? {
            ExpressChange::Open => Some(Change::Open),
            ExpressChange::Close(session) => {
                self.express = None;
                self.seats.remove(&session)?.runner.map(Box::new).map(Change::Close)
            }
        }
    }

    /// The end: what waits is told so by the end of its channel.
    pub(super) fn close(&mut self) -> Vec<Runner> {
        self.waiting.clear();
        std::mem::take(&mut self.seats).into_values().filter_map(|seat| seat.runner).collect()
    }
}
