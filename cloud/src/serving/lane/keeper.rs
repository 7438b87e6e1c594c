//! What happens in a lane without an event: requests that cannot be answered in time any more are
//! dropped when that is known, and sessions are opened and closed as they are needed.

use models::model::ModelError;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::sync::Notify;

use super::Lane;
use super::book::Change;

/// Looks after a lane until it is dropped.
pub(super) fn start(lane: &Arc<Lane>) {
    let task = keep(Arc::downgrade(lane), lane.changed.clone());
    drop(lane.runtime.spawn(task));
}

async fn keep(lane: Weak<Lane>, changed: Arc<Notify>) {
    while let Some(wakes_at) = lane.upgrade().map(|lane| lane.book().wakes_at()) {
        match wakes_at {
            Some(at) => drop(tokio::time::timeout_at(at.into(), changed.notified()).await),
            None => changed.notified().await,
        }
        let Some(lane) = lane.upgrade() else { return };
        lane.tend();
        scale(&lane);
    }
}

fn scale(lane: &Arc<Lane>) {
    let change = lane.book().poll_change(Instant::now());
    make(lane, change, open);
}

/// Opens or closes the session that is kept for tenants which are behind their share.
pub(super) fn change_express(lane: &Arc<Lane>, change: Option<Change>) {
    make(lane, change, open_express);
}

/// A change, on a thread that may block.
fn make(lane: &Arc<Lane>, change: Option<Change>, open: fn(&Arc<Lane>)) {
    match change {
        None => {}
        Some(Change::Close(runner)) => drop(lane.runtime.spawn_blocking(move || drop(runner))),
        Some(Change::Open) => {
            let lane = lane.clone();
            drop(lane.runtime.clone().spawn_blocking(move || open(&lane)));
        }
    }
}

fn open_express(lane: &Arc<Lane>) {
    let opened = lane.sessions.open();
    if let Err(error) = &opened {
        warn(lane, error);
    }
    lane.book().seat_express(opened.ok(), Instant::now());
    lane.tend();
}

fn warn(lane: &Lane, error: &ModelError) {
    let (model, error) = (&lane.sessions.manifest().model, protocol::problem::chain(error));
    tracing::warn!(%model, error, "no further session of the model opens");
}

/// One more session. Where it does not open, the others go on.
fn open(lane: &Arc<Lane>) {
    match lane.sessions.open() {
        Ok(runner) => {
            lane.book().seat(runner);
            lane.tend();
        }
        Err(error) => warn(lane, &error),
    }
}
