//! Carrying out what the book says is due.
//!
//! A drive begins when a request comes and a session is idle. Before it looks it lets every task that
//! is ready go first, which costs a lone call nothing, and lets requests that arrived together share
//! a run. While a worker runs a batch the drive waits as a task, and its thread moves other requests'
//! bytes. One request alone that is expected to take no longer than [`SHORT`] is waited for right there:
//! the thread is held for about as long as it would take to leave it and come back. Only where a run
//! holds a thread for longer is it made on one of the runtime's threads for work that blocks.

use fleet::scaling;
use models::error::RunError;
use models::runner::{Asked, Question};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::book::{Batch, Deeds};
use super::{Lane, Ran, Unanswered, keeper};

/// What a thread of the runtime may be held for.
const SHORT: Duration = Duration::from_micros(200);

/// A boxed future, because a drive may begin others.
type Drive = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs what is due, beginning with `first`, until nothing is.
pub(super) fn drive(lane: Arc<Lane>, first: Option<Batch>) -> Drive {
    Box::pin(async move {
        let mut next = first;
        loop {
            if let Some(batch) = next.take() {
                match lane.run_elsewhere(batch).await {
                    Err(batch) if batch.is_quick() => lane.run(batch),
                    Err(batch) => lane.send_to_thread(batch),
                    Ok(()) => {}
                }
            }
            tokio::task::yield_now().await;
            next = lane.hand_out(lane.due(), |batch| !batch.holds_a_thread());
            if next.is_none() {
                return;
            }
        }
    })
}

/// The same on a thread that may be held: whatever is next runs here.
fn drive_blocking(lane: &Arc<Lane>, first: Batch) {
    let mut next = Some(first);
    while let Some(batch) = next.take() {
        lane.run(batch);
        next = lane.hand_out(lane.due(), |_| true);
    }
}

impl Lane {
    /// What is due, with those told that are dropped, and the gate told how much there is to do.
    fn due(self: &Arc<Self>) -> Vec<Batch> {
        let now = Instant::now();
        let (Deeds { batches, drops, load }, express) = {
            let mut book = self.book();
            (book.due(now), book.poll_express(now))
        };
        keeper::change_express(self, express);
        for (ticket, reason) in drops {
            self.door.dropped(reason);
            let _ = ticket.end.send(Err(Unanswered::Dropped(reason))); // or its caller has gone
        }
        self.door.report(self.slot, load);
        batches
    }

    /// Keeps the first batch that may run here, and lets others run elsewhere.
    fn hand_out(
        self: &Arc<Self>,
        batches: Vec<Batch>,
        here: impl Fn(&Batch) -> bool,
    ) -> Option<Batch> {
        let mut kept = None;
        for batch in batches {
            if kept.is_none() && here(&batch) {
                kept = Some(batch);
            } else {
                self.send_off(batch);
            }
        }
        kept
    }

    fn send_off(self: &Arc<Self>, batch: Batch) {
        if batch.holds_a_thread() {
            self.send_to_thread(batch);
        } else {
            drop(self.runtime.spawn(drive(self.clone(), Some(batch))));
        }
    }

    fn send_to_thread(self: &Arc<Self>, batch: Batch) {
        let lane = self.clone();
        drop(self.runtime.spawn_blocking(move || drive_blocking(&lane, batch)));
    }

    /// Looks for what is due though nothing has happened.
    pub(super) fn tend(self: &Arc<Self>) {
        for batch in self.due() {
            self.send_off(batch);
        }
    }

    /// One run, from the session to its callers.
    fn run(&self, mut batch: Batch) {
        let questions: Vec<&Question> = batch.members.iter().map(|(_, t)| &t.question).collect();
        let asked = batch.runner.ask(&questions);
        self.conclude(batch, asked);
    }

    /// The same without holding this thread; gives a batch back that has to hold one.
    async fn run_elsewhere(&self, mut batch: Batch) -> Result<(), Batch> {
        if batch.is_quick() || batch.expected == Duration::MAX {
            return Err(batch);
        }
        let questions: Vec<&Question> = batch.members.iter().map(|(_, t)| &t.question).collect();
        let asked = batch.runner.ask_elsewhere(&questions).await;
        let Some(asked) = asked else { return Err(batch) };
        self.conclude(batch, asked);
        Ok(())
    }

    /// Tells the callers of a run what became of it, and frees the session.
    fn conclude(&self, batch: Batch, asked: Result<Asked, RunError>) {
        let Batch { session, runner, members, items, began, .. } = batch;
        let took = began.elapsed();
        self.door.ran(members.len());
        let Ok(asked) = asked else {
            return self.book().lost((session, runner), members, Instant::now());
        };
        let requests = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let waited = members.iter().map(|(_, ticket)| began - ticket.since).sum();
        let ran = asked.ran.unwrap_or(took);
        let run = scaling::Run { requests, items, waited, ran };
        let mut book = self.book();
        let surplus = book.finished((session, runner), run, asked.ran.is_some());
        let wake = book.keeper_sleeps();
        drop(book);
        if wake {
            self.changed.notify_one();
        }
        if let Some(runner) = surplus {
            drop(self.runtime.spawn_blocking(move || drop(runner)));
        }
        for ((_, ticket), given) in members.into_iter().zip(asked.given) {
            let own_items = ticket.question.mates().map_or(1, |mates| mates.items);
            let own = ran * own_items / items.max(1);
            let (question, queue) = (ticket.question, began - ticket.since);
            let infer = took;
            let given =
                given.map(|given| Ran { question, given, queue, infer, own, began, requests });
            let _ = ticket.end.send(given.map_err(Unanswered::from)); // or its caller has gone
        }
    }
}

impl Batch {
    /// Whether nobody would gain by leaving the thread to others meanwhile.
    fn is_quick(&self) -> bool {
        self.expected <= SHORT && (self.members.len() == 1 || !self.runner.runs_elsewhere())
    }

    /// Whether it is no work for a thread that moves bytes for others.
    fn holds_a_thread(&self) -> bool {
        let waits = self.expected == Duration::MAX;
        waits || (self.expected > SHORT && !self.runner.runs_elsewhere())
    }
}
