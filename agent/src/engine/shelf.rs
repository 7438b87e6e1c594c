//! The models in memory, and those on their way. What must stay and what may go is decided by
//! `protocol::residency`; here it is carried out, and requests wait for it.
//!
//! All requests for one model share one load, and loads follow each other, so that their memory does
//! not add up and each can be measured. Whoever waits for a model counts among its users: it cannot
//! be taken away between its load and their turn.

use super::marks::Marks;
use super::source::{Loaded, Source};
use crate::counters::Counters;
use models::memory;
use models::model::LoadedModel;
use protocol::id::ModelName;
use protocol::problem::{Problem, ProblemCode};
use protocol::residency::{CannotBegin, Residency, Standing, TooLarge};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// One loadable model: a version that was replaced and the one in its place are two.
pub(super) type Id = u64;

/// How a load ended; nothing while it lasts.
type Outcome = Option<Result<(), Problem>>;

struct Inner {
    policy: Residency<Id>,
    loaded: BTreeMap<Id, Arc<LoadedModel>>,
    loading: BTreeMap<Id, watch::Receiver<Outcome>>,
    next: Id,
}

/// All models of the device.
pub(crate) struct Shelf {
    inner: Mutex<Inner>,
    /// A model was left, loaded or removed: there may be room.
    changed: Notify,
    /// One load at a time.
    loader: tokio::sync::Mutex<()>,
    counters: Arc<Counters>,
    pub(super) marks: Arc<Marks>,
}

/// A model's place on the shelf; it ends with this.
pub(super) struct Membership {
    pub(super) shelf: Arc<Shelf>,
    pub(super) id: Id,
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut inner = self.shelf.inner();
        inner.policy.remove(self.id);
        inner.loading.remove(&self.id);
        let gone = inner.loaded.remove(&self.id).into_iter().collect();
        drop(inner);
        discard(gone);
        self.shelf.changed.notify_waiters();
    }
}

/// Somebody uses a model, or waits for it.
pub(super) struct Use {
    shelf: Arc<Shelf>,
    id: Id,
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut inner = self.shelf.inner();
        let gone = inner.policy.leave(self.id);
        let gone = self.shelf.take(&mut inner, &gone);
        drop(inner);
        discard(gone);
        self.shelf.changed.notify_waiters();
    }
}

/// A model in memory that stays there while this is held.
pub(super) struct Lease {
    pub(super) model: Arc<LoadedModel>,
    _use: Use,
}

impl Shelf {
    pub(super) fn new(budget_bytes: u64, counters: Arc<Counters>, marks: Arc<Marks>) -> Self {
        let policy = Residency::new(budget_bytes);
        let (loaded, loading) = (BTreeMap::new(), BTreeMap::new());
        let inner = Mutex::new(Inner { policy, loaded, loading, next: 0 });
        let loader = tokio::sync::Mutex::new(());
        Self { inner, changed: Notify::new(), loader, counters, marks }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a model that is not in memory yet, with the best guess of its size.
    pub(super) fn add(self: &Arc<Self>, size_bytes: u64) -> Result<Membership, TooLarge> {
        let mut inner = self.inner();
        inner.next += 1;
        let id = inner.next;
        inner.policy.add(id, size_bytes)?;
        Ok(Membership { shelf: self.clone(), id })
    }

    pub(super) fn enter(self: &Arc<Self>, id: Id) -> Use {
        self.inner().policy.enter(id);
        Use { shelf: self.clone(), id }
    }

    /// Whether there is room without unloading anything.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.inner().policy.free_bytes() >= bytes
    }

    /// Where a model stands, and how much memory it takes.
    pub(super) fn standing(&self, id: Id) -> Option<(Standing, u64)> {
        let inner = self.inner();
        inner.policy.standing(id).zip(inner.policy.size_bytes(id))
    }

    /// The budget, if there is one, and what models take of it.
    pub(super) fn budget(&self) -> (Option<u64>, u64) {
        let inner = self.inner();
        (inner.policy.budget_bytes(), inner.policy.resident_bytes())
    }

    /// The only load at this time.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.loader.lock().await
    }

    /// Makes room for a load, when nobody uses those that take it; waits for that until `patience`
    /// ends, or all who wanted the model have left.
    pub(super) async fn make_room(&self, id: Id, patience: Duration) -> Result<(), Problem> {
        let until = Instant::now() + patience;
        loop {
            let changed = self.changed.notified();
            let (begun, wanted) = self.try_begin(id);
            match begun {
                Ok(gone) => {
                    unload(gone).await;
                    return Ok(());
                }
                Err(CannotBegin::NotOnDemand) => return Err(removed()),
                Err(error @ CannotBegin::NoRoom { .. }) => {
                    let waited =
                        wanted && tokio::time::timeout_at(until.into(), changed).await.is_ok();
                    if !waited {
                        return Err(no_room(&error));
                    }
                }
            }
        }
    }

    fn try_begin(&self, id: Id) -> (Result<Vec<Arc<LoadedModel>>, CannotBegin>, bool) {
        let mut inner = self.inner();
        let wanted = inner.policy.uses(id) > 0;
        let begun = inner.policy.begin(id).map(|gone| self.take(&mut inner, &gone));
        (begun, wanted)
    }

    /// Takes models that may go off the shelf.
    fn take(&self, inner: &mut Inner, gone: &[Id]) -> Vec<Arc<LoadedModel>> {
        self.counters.evicted(gone.len());
        gone.iter().filter_map(|id| inner.loaded.remove(id)).collect()
    }

    /// Puts a loaded model onto the shelf.
    pub(super) fn settle(&self, id: Id, loaded: Loaded) -> Result<(), TooLarge> {
        let mut inner = self.inner();
        let settled = inner.policy.loaded(id, loaded.private_bytes);
        let there = inner.policy.standing(id).is_some();
        let mut gone = Vec::new();
        let result = settled.map(|ids| gone = self.take(&mut inner, &ids));
        if there {
            inner.loaded.insert(id, Arc::new(loaded.model));
        } else {
            gone.push(Arc::new(loaded.model)); // removed meanwhile, or too large
        }
        drop(inner);
        discard(gone);
        self.changed.notify_waiters();
        result
    }

    /// The load came to nothing.
    pub(super) fn failed(&self, id: Id) {
        self.inner().policy.failed(id);
        self.changed.notify_waiters();
    }

    /// The model, loaded if it is not in memory. Waits for that no longer than three quarters of the
    /// time that is left: the run, or asking the cloud, takes time as well.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        source: &Arc<Source>,
        deadline: Instant,
    ) -> Result<Lease, Problem> {
        let using = self.enter(source.id());
        let now = Instant::now();
        let until = now + deadline.saturating_duration_since(now).mul_f64(0.75);
        loop {
            let mut outcome = match self.look(source)? {
                Look::There(model) => return Ok(Lease { model, _use: using }),
                Look::OnItsWay(outcome) => outcome,
            };
            let usual = source.usual_load();
            if Instant::now() + usual > until {
                return Err(self.refuse(source.name(), usual));
            }
            let ended = outcome.wait_for(Option::is_some);
            match tokio::time::timeout_at(until.into(), ended).await {
                Ok(Ok(ended)) => {
                    if let Some(Err(problem)) = &*ended {
                        return Err(problem.clone());
                    }
                }
                Ok(Err(_)) => return Err(self.lost(source)),
                Err(_) => return Err(self.refuse(source.name(), usual)),
            }
        }
    }

    /// The task of a load ended without a word, which is a fault in this program.
    fn lost(&self, source: &Source) -> Problem {
        self.inner().loading.remove(&source.id());
        self.failed(source.id());
        source.failed("the load broke off")
    }

    fn refuse(&self, name: &ModelName, usual: Duration) -> Problem {
        self.counters.not_resident();
        let text = format!("the model {:?} is being loaded into memory", name.as_str());
        let retry_ms = u32::try_from(usual.as_millis()).unwrap_or(u32::MAX).clamp(100, 60_000);
        Problem::new(ProblemCode::Overloaded, text)
            .hint("allow more time with the parameter \"timeout\", or raise [runtime] memory_budget_mb")
            .retry_after_ms(retry_ms)
    }

    /// What is there; starts a load where there is none.
    fn look(self: &Arc<Self>, source: &Arc<Source>) -> Result<Look, Problem> {
        let id = source.id();
        let mut inner = self.inner();
        if let Some(model) = inner.loaded.get(&id) {
            return Ok(Look::There(model.clone()));
        }
        if inner.policy.standing(id).is_none() {
            return Err(removed());
        }
        if let Some(outcome) = inner.loading.get(&id) {
            return Ok(Look::OnItsWay(outcome.clone()));
        }
        if let Some(problem) = source.recent_failure() {
            return Err(problem);
        }
        let (sender, outcome) = watch::channel(None);
        inner.loading.insert(id, outcome.clone());
        drop(inner);
        tokio::spawn(self.clone().load(source.clone(), sender));
        Ok(Look::OnItsWay(outcome))
    }

    /// One load for all who wait.
    async fn load(self: Arc<Self>, source: Arc<Source>, sender: watch::Sender<Outcome>) {
        let result = self.try_load(&source).await;
        if let Err(problem) = &result {
            self.counters.load_failed(source.name(), problem);
        }
        self.inner().loading.remove(&source.id()); // before anybody looks again
        let _ = sender.send(Some(result)); // nobody may wait any more
    }

    async fn try_load(&self, source: &Arc<Source>) -> Result<(), Problem> {
        self.make_room(source.id(), ROOM_PATIENCE).await?;
        let turn = self.turn().await;
        let own = source.clone();
        let _at_work = self.marks.enter(source.bundle_hash());
        let loaded = tokio::task::spawn_blocking(move || own.load_again()).await;
        drop(turn);
        let loaded = loaded.unwrap_or_else(|panic| Err(panic.to_string()));
        let settled = loaded.and_then(|loaded| {
            self.settle(source.id(), loaded).map_err(|too_large| too_large.to_string())
        });
        match settled {
            Ok(()) => {
                self.counters.came_back(source.name());
                Ok(())
            }
            Err(why) => {
                self.failed(source.id());
                Err(source.failed(&why))
            }
        }
    }
}

enum Look {
    There(Arc<LoadedModel>),
    OnItsWay(watch::Receiver<Outcome>),
}

/// How long a load waits for room while somebody wants it. Requests have deadlines of their own.
const ROOM_PATIENCE: Duration = Duration::from_secs(60);

fn removed() -> Problem {
    Problem::new(ProblemCode::NotFound, "the model was replaced or unloaded a moment ago")
        .hint("ask again")
}

fn no_room(error: &CannotBegin) -> Problem {
    Problem::new(ProblemCode::Overloaded, format!("no room for the model: {error}"))
        .hint("try again when less models are in use, or raise [runtime] memory_budget_mb")
        .retry_after_ms(250)
}

/// Ends models and gives their memory back, before anything is loaded in their place.
async fn unload(gone: Vec<Arc<LoadedModel>>) {
    if !gone.is_empty() {
        // A panic would be one of the runtime's own; the model is gone all the same.
        let _ = tokio::task::spawn_blocking(move || end(gone)).await;
    }
}

/// The same without waiting for it.
fn discard(gone: Vec<Arc<LoadedModel>>) {
    if gone.is_empty() {
        return;
    }
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || end(gone))),
        Err(_) => end(gone), // the program ends
    }
}

/// Ending a session joins its threads.
fn end(gone: Vec<Arc<LoadedModel>>) {
    drop(gone);
    memory::give_back();
}
