//! The express session: what a tenant that asks little has, while another one floods.
//!
//! A run that has begun is not interrupted, so behind a flood each request of another tenant would wait for
//! the rest of one run, however fair the order is. So where it is needed there is one session more than the
//! cores are for. It runs nothing but what a tenant *behind its share* waits for, one request at a time,
//! while runs of a tenant that is not behind hold all others; and its owner sees to it that the system
//! prefers it to them: they give way, and go on when it is done. While it is there, who is behind shares
//! no run with who is not.
//!
//! Nobody gets more than a share by it. Behind is who would still be behind with this request done (by the
//! tags of `fair`). A request that runs by itself may cost more than it would in a larger batch: that is
//! summed, and one part in [`WASTE_SHARE`] of the time of all sessions goes into it at most. So what is done
//! in all stays at least 95 % of what it would be.

use std::time::{Duration, Instant};

use super::{Action, Batcher, Member, RequestId, Running, SessionId, ShapeKey};

/// Of the sessions' time, one part in so many may be lost because requests run alone.
const WASTE_SHARE: u32 = 25;
/// What may be lost at once.
const WASTE_BURST: Duration = Duration::from_millis(50);
/// It is closed when nobody has needed it for so long.
const IDLE: Duration = Duration::from_secs(60);
/// Where it did not open, it is not asked for again before this.
const HOLD: Duration = Duration::from_secs(60);

/// A change that the owner of the sessions has to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpressChange {
    /// Open the express session, and tell by [`Batcher::handle_express`] or [`Batcher::handle_no_express`].
    Open,
    /// Close it.
    Close(SessionId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Standing {
    #[default]
    Absent,
    /// Somebody waits who could use it.
    Wanted,
    Opening,
    There(SessionId),
    /// It did not open.
    Held(Instant),
}

/// What a batcher knows of its express session.
#[derive(Debug, Default)]
pub(super) struct Express {
    standing: Standing,
    used_at: Option<Instant>,
    /// What runs of single requests have cost beyond what they would have in batches, less what is granted.
    waste: Duration,
    waste_at: Option<Instant>,
}

impl Express {
    pub(super) fn is(&self, session: SessionId) -> bool {
        self.standing == Standing::There(session)
    }

    fn session(&self) -> Option<SessionId> {
        match self.standing {
            Standing::There(session) => Some(session),
            _ => None,
        }
    }

    /// Somebody could use it, and it is not there.
    fn miss(&mut self, now: Instant) {
        match self.standing {
            Standing::Absent => self.standing = Standing::Wanted,
            Standing::Held(until) if until <= now => self.standing = Standing::Wanted,
            _ => {}
        }
    }

    fn may_waste(&mut self, sessions: u32, now: Instant) -> bool {
        let since = now - self.waste_at.unwrap_or(now);
        self.waste_at = Some(now);
        self.waste = self.waste.saturating_sub(since * sessions / WASTE_SHARE);
        self.waste <= WASTE_BURST
    }
}

impl Batcher {
    /// The express session is there and idle.
    pub fn handle_express(&mut self, session: SessionId, now: Instant) {
        self.express.standing = Standing::There(session);
        self.express.used_at = Some(now);
    }

    /// It did not open.
    pub fn handle_no_express(&mut self, now: Instant) {
        self.express.standing = Standing::Held(now + HOLD);
    }

    /// A change to be made now.
    pub fn poll_express(&mut self, now: Instant) -> Option<ExpressChange> {
        match self.express.standing {
            Standing::Wanted => {
                self.express.standing = Standing::Opening;
                Some(ExpressChange::Open)
            }
            Standing::There(session) if self.express_timeout().is_some_and(|at| at <= now) => {
                self.express.standing = Standing::Absent;
                Some(ExpressChange::Close(session))
            }
            _ => None,
        }
    }

    /// When to call [`Batcher::poll_express`] though nothing has happened.
    pub fn express_timeout(&self) -> Option<Instant> {
        let session = self.express.session()?;
        let is_idle = !self.running.contains_key(&session);
        self.express.used_at.filter(|_| is_idle).map(|at| at + IDLE)
    }

    /// Whether runs on the other sessions have to give way, because there is an express session.
    pub fn gives_way(&self, session: SessionId) -> bool {
        self.express.session().is_some_and(|express| express != session)
    }

    /// Whether who is behind its share must not share a run with who is not: it would wait for the other's
    /// items, and could not be preferred to them.
    pub(super) fn keeps_apart(&mut self, now: Instant) -> bool {
        let sessions = self.sessions();
        self.express.session().is_some() && self.express.may_waste(sessions, now)
    }

    /// So many items run by themselves for that reason.
    pub(super) fn account_waste(&mut self, shape: ShapeKey, items: u32) {
        let alone = self.curves.of(shape).typical(items).unwrap_or_default();
        self.express.waste += alone.saturating_sub(self.load().item_time * items);
    }

    /// One request on the express session, if somebody waits who is behind.
    pub(super) fn form_express(&mut self, now: Instant) -> Option<Action> {
        if !self.policy.express {
            return None;
        }
        loop {
            let id = self.first_behind()?;
            let Some(session) = self.express.session() else {
                self.express.miss(now);
                return None;
            };
            let sessions = self.sessions();
            if self.running.contains_key(&session) || !self.express.may_waste(sessions, now) {
                return None;
            }
            if self.is_hopeless(id, now) {
                self.drop_hopeless(id, now);
                continue;
            }
            let waiting = self.queue.serve(id)?;
            let (shape, items) = (waiting.request.shape, waiting.request.items);
            self.account_waste(shape, items);
            self.express.used_at = Some(now);
            self.running.values_mut().for_each(|run| run.disturbed = true);
            self.running_on.insert(id, session);
            let members = vec![Member { waiting, cancelled: false }];
            // The others have a little of its core.
            let run = Running { members, shape, items, of_heavy: false, disturbed: true };
            self.running.insert(session, run);
            return Some(Action::Run { session, batch: vec![id], items });
        }
    }

    /// Whether a request waits that the express session could run now, or could if it were there.
    pub(super) fn express_is_due(&self, now: Instant) -> bool {
        let is_of_use = match self.express.standing {
            Standing::There(session) => !self.running.contains_key(&session),
            Standing::Absent => true,
            Standing::Held(until) => until <= now,
            Standing::Wanted | Standing::Opening => false,
        };
        self.policy.express && is_of_use && self.first_behind().is_some()
    }

    /// The request of who is furthest behind; where others hold the sessions who are not behind, and whose
    /// priority is no higher.
    fn first_behind(&self) -> Option<RequestId> {
        let priority =
            |run: &Running| run.members.first().map(|first| first.waiting.request.priority);
        let heavy = self.running.values().filter(|run| run.of_heavy);
        self.queue.first_behind(heavy.filter_map(priority).min()?)
    }

    /// Another request to begin with, where this one is better left to the express session: for as long as
    /// a run takes.
    pub(super) fn instead_of(&mut self, id: RequestId, now: Instant) -> Option<RequestId> {
        let request = self.queue.get(id).map(|waiting| waiting.request)?;
        let patient_until = request.arrived + self.curves.of(request.shape).safe(request.items);
        let is_left = now < patient_until && self.queue.is_behind(id) && self.keeps_apart(now);
        self.queue.first_besides(id).filter(|_| is_left)
    }
}
