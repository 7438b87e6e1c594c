//! Forming one batch for one idle session.

use std::time::Instant;

use super::fair::Group;
use super::queue::Waiting;
use super::{Action, Batcher, Member, RequestId, Running};

/// Requests that a batch passes over because they do not fit, before it is closed.
pub const SKIPS_MAX: usize = 8;

/// A batch that still takes requests in.
struct Open {
    members: Vec<Waiting>,
    items: u32,
    /// The earliest deadline of the members.
    deadline: Instant,
    skipped: Vec<Waiting>,
}

/// Whether a request joins the batch.
enum Fit {
    Joins,
    /// Not this batch: too many items, or somebody's deadline.
    Skipped,
    /// Not even alone could it be answered in time.
    Hopeless,
}

impl Batcher {
    /// The next batch, if a session is idle and something waits. Requests that it finds hopeless
    /// on the way are among the drops afterwards.
    pub(super) fn form(&mut self, now: Instant) -> Option<Action> {
        let Some(session) = self.idle.first().copied() else { return self.form_express(now) };
        let (mut batch, of_heavy) = self.begin(now)?;
        let group = batch.members.first()?.group();
        if self.policy.batch_invariant && matches!(group, Group::Shape(_)) {
            self.fill(&mut batch, group, of_heavy, now);
            if !of_heavy && !batch.skipped.is_empty() {
                self.account_waste(batch.members[0].request.shape, batch.items);
            }
        }
        for waiting in batch.skipped.drain(..) {
            self.queue.insert(waiting);
        }
        self.idle.remove(&session);
        let ids: Vec<RequestId> = batch.members.iter().map(|w| w.request.id).collect();
        self.running_on.extend(ids.iter().map(|id| (*id, session)));
        let shape = batch.members.first()?.request.shape;
        let member = |waiting| Member { waiting, cancelled: false };
        let members = batch.members.into_iter().map(member).collect();
        let disturbed = self.running.keys().any(|session| self.express.is(*session));
        let run = Running { members, shape, items: batch.items, of_heavy, disturbed };
        self.running.insert(session, run);
        Some(Action::Run { session, batch: ids, items: batch.items })
    }

    /// The first request of a batch, and whether its tenant is not behind its share.
    fn begin(&mut self, now: Instant) -> Option<(Open, bool)> {
        loop {
            let id = self.queue.first()?;
            let id = self.instead_of(id, now).unwrap_or(id);
            if self.is_hopeless(id, now) {
                self.drop_hopeless(id, now);
                continue;
            }
            let of_heavy = !self.queue.is_behind(id);
            let first = self.queue.serve(id)?;
            self.queue.begin_run(&first);
            let (items, deadline) = (first.request.items, first.request.deadline);
            let open = Open { members: vec![first], items, deadline, skipped: Vec::new() };
            return Some((open, of_heavy));
        }
    }

    fn fill(&mut self, batch: &mut Open, group: Group, of_heavy: bool, now: Instant) {
        let Group::Shape(shape) = group else { return };
        let room = self.curves.of(shape).best_size(self.policy.max_batch_size);
        let apart = self.keeps_apart(now);
        while batch.items < room && batch.skipped.len() < SKIPS_MAX {
            let Some(id) = self.queue.first_in(group) else { return };
            let fit = match apart && self.queue.is_behind(id) == of_heavy {
                true => Fit::Skipped,
                false => self.fits(id, batch, room, now),
            };
            match fit {
                Fit::Joins => {
                    let Some(waiting) = self.queue.serve(id) else { return };
                    batch.items += waiting.request.items;
                    batch.deadline = batch.deadline.min(waiting.request.deadline);
                    batch.members.push(waiting);
                }
                Fit::Skipped => batch.skipped.extend(self.queue.remove(id)),
                Fit::Hopeless => self.drop_hopeless(id, now),
            }
        }
    }

    fn fits(&self, id: RequestId, batch: &Open, room: u32, now: Instant) -> Fit {
        let Some(waiting) = self.queue.get(id) else { return Fit::Skipped };
        if self.is_hopeless(id, now) {
            return Fit::Hopeless;
        }
        let request = &waiting.request;
        let items = batch.items.saturating_add(request.items);
        let curve = self.curves.of(request.shape);
        let deadline = batch.deadline.min(request.deadline);
        let short = curve.at_least(items) <= self.policy.max_batch_run;
        if items <= room && short && now + curve.safe(items) <= deadline {
            Fit::Joins
        } else {
            Fit::Skipped
        }
    }

    pub(super) fn is_hopeless(&self, id: RequestId, now: Instant) -> bool {
        let latest = self.queue.get(id).and_then(|w| self.latest_start(&w.request));
        latest.is_none_or(|latest| latest < now)
    }
}
