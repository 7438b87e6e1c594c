//! The waiting requests of one model: by priority, by turn, and by the moment at which waiting on
//! is of no use.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use protocol::limits::PRIORITY_MAX;

use super::fair::{Group, Level, Ticket};
use super::{Request, RequestId};

/// Runs in a row that may begin with a higher priority while a lower one waits. So a priority with
/// waiting requests begins at least one of every `PASSED_OVER_MAX + LEVELS` runs.
pub const PASSED_OVER_MAX: u32 = 8;
/// Priorities: 0 to [`PRIORITY_MAX`].
const LEVELS: usize = PRIORITY_MAX as usize + 1;

/// A request that waits.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) request: Request,
    /// Whether it ran before, on a session that was lost.
    pub(super) retried: bool,
    /// When it is dropped unless it started.
    pub(super) doomed_at: Instant,
    /// Deadline for the order: see [`super::Policy::patience`].
    pub(super) due: Instant,
}

impl Waiting {
    pub(super) fn group(&self) -> Group {
        match self.retried {
            true => Group::Alone(self.request.id),
            false => Group::Shape(self.request.shape),
        }
    }

    fn ticket(&self) -> Ticket {
        Ticket {
            flow: self.request.flow,
            weight: self.request.weight,
            group: self.group(),
            place: (self.due, self.request.id),
        }
    }

    fn level(&self) -> usize {
        usize::from(self.request.priority.min(PRIORITY_MAX))
    }
}

/// All waiting requests.
#[derive(Debug, Default)]
pub(super) struct Queue {
    requests: BTreeMap<RequestId, Waiting>,
    levels: [Level; LEVELS],
    passed_over: [u32; LEVELS],
    doomed: BTreeSet<(Instant, RequestId)>,
    items: u64,
}

impl Queue {
    pub(super) fn insert(&mut self, waiting: Waiting) {
        let id = waiting.request.id;
        self.levels[waiting.level()].insert(&waiting.ticket());
        self.doomed.insert((waiting.doomed_at, id));
        self.items += u64::from(waiting.request.items);
        self.requests.insert(id, waiting);
    }

    pub(super) fn remove(&mut self, id: RequestId) -> Option<Waiting> {
        let waiting = self.requests.remove(&id)?;
        self.levels[waiting.level()].remove(&waiting.ticket());
        self.doomed.remove(&(waiting.doomed_at, id));
        self.items -= u64::from(waiting.request.items);
        Some(waiting)
    }

    /// Removes a request that is about to run; its flow pays for it.
    pub(super) fn serve(&mut self, id: RequestId) -> Option<Waiting> {
        let waiting = self.requests.get(&id)?;
        self.levels[waiting.level()].serve(&waiting.ticket(), waiting.request.items);
        self.remove(id)
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Waiting> {
        self.requests.get(&id)
    }

    /// The request that the next run begins with.
    pub(super) fn first(&self) -> Option<RequestId> {
        let waiting = || (0..LEVELS).rev().filter(|level| !self.levels[*level].is_empty());
        let starved = |level: &usize| self.passed_over[*level] >= PASSED_OVER_MAX;
        let level = waiting().filter(starved).max_by_key(|level| self.passed_over[*level]);
        self.levels[level.or_else(|| waiting().next())?].first()
    }

    /// The request of this group whose turn it is, from the highest priority down.
    pub(super) fn first_in(&mut self, group: Group) -> Option<RequestId> {
        self.levels.iter_mut().rev().find_map(|level| level.first_in(group))
    }

    /// Whether the tenant of a request is behind its share, and still would be with it done.
    pub(super) fn is_behind(&self, id: RequestId) -> bool {
        self.requests.get(&id).is_some_and(|waiting| {
            self.levels[waiting.level()].is_behind(&waiting.ticket(), waiting.request.items)
        })
    }

    /// Of this priority and higher ones, the request of the flow that is furthest behind.
    pub(super) fn first_behind(&self, least: u8) -> Option<RequestId> {
        let levels = self.levels[usize::from(least.min(PRIORITY_MAX))..].iter().rev();
        levels.filter_map(Level::first).find(|id| self.is_behind(*id))
    }

    /// The request of the same priority that is next where the flow of this one is passed over.
    pub(super) fn first_besides(&self, id: RequestId) -> Option<RequestId> {
        let waiting = self.requests.get(&id)?;
        self.levels[waiting.level()].first_besides(waiting.request.flow)
    }

    /// Nothing has waited or run for a while.
    pub(super) fn end_busy_period(&mut self) {
        self.levels.iter_mut().for_each(Level::end_busy_period);
    }

    /// A run begins with this request: every other priority that waits was passed over.
    pub(super) fn begin_run(&mut self, with: &Waiting) {
        for (level, passed) in self.passed_over.iter_mut().enumerate() {
            let waits = !self.levels[level].is_empty() && level != with.level();
            *passed = if waits { *passed + 1 } else { 0 };
        }
    }

    /// The request that is dropped first, and when.
    pub(super) fn first_doomed(&self) -> Option<(Instant, RequestId)> {
        self.doomed.first().copied()
    }

    /// Another moment at which this request is dropped.
    pub(super) fn doom_at(&mut self, id: RequestId, at: Instant) {
        if let Some(waiting) = self.requests.get_mut(&id) {
            self.doomed.remove(&(waiting.doomed_at, id));
            waiting.doomed_at = at;
            self.doomed.insert((at, id));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn items(&self) -> u64 {
        self.items
    }

    /// Flows that are remembered, over all priorities.
    pub(super) fn flows(&self) -> usize {
        self.levels.iter().map(Level::flows).sum()
    }
}
