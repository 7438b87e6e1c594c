//! Who looks on while a model answers: the watch over a version on probation, and the tap through which a
//! candidate is given the same requests. Neither changes an answer, nor waits for anything.

use super::{ActiveModel, EdgeAnswer};
use protocol::infer::InferRequest;
use protocol::problem::Problem;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A run that has ended.
pub(crate) struct Seen<'a> {
    pub(crate) request: &'a InferRequest,
    pub(crate) end: Result<&'a EdgeAnswer, &'a Problem>,
    /// From the question to the end, with the wait for a session.
    pub(crate) took: Duration,
    /// Whether no other run was under way when it began.
    pub(crate) alone: bool,
}

/// Called at the end of each run, by whoever asked.
pub(crate) type Observer = Arc<dyn Fn(&Seen<'_>) + Send + Sync>;

/// The observers of one model.
#[derive(Default)]
pub(super) struct Observers {
    /// Whether there is one, so that a call that nobody looks at costs no lock.
    any: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Default, Clone)]
struct Inner {
    watch: Option<Observer>,
    tap: Option<Observer>,
}

/// Takes the tap away again.
pub(crate) struct Tapped(Arc<ActiveModel>);

impl Drop for Tapped {
    fn drop(&mut self) {
        self.0.observers.set(|inner| inner.tap = None);
    }
}

impl Observers {
    pub(super) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    pub(super) fn watch(&self, observer: Observer) {
        self.set(|inner| inner.watch = Some(observer));
    }

    pub(super) fn tap(model: &Arc<ActiveModel>, observer: Observer) -> Tapped {
        model.observers.set(|inner| inner.tap = Some(observer));
        Tapped(model.clone())
    }

    pub(super) fn show(&self, seen: &Seen<'_>) {
        let inner = self.inner().clone(); // nobody looks on with the lock held
        inner.watch.iter().chain(&inner.tap).for_each(|observer| observer(seen));
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.inner();
        change(&mut inner);
        self.any.store(inner.watch.is_some() || inner.tap.is_some(), Relaxed);
    }
}
