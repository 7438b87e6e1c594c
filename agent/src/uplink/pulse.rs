//! Whether a node still lives: carries out what `edge::pulse` decides. While requests wait for a node from which nothing is
//! heard, it is asked for a sign of life on a stream of its own; a node that gives none is taken for dead. While nothing
//! happens, the connection is nudged now and then, so that nobody on the way forgets it.
//!
//! Nobody wakes up in between.

use ::link::connection::Connection;
use ::link::frames::{self, LinkError};
use edge::pulse::{Action, Pulse, Seen};
use protocol::wire::{self, NodeState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

#[cfg(test)]
mod tests;

/// The requests that wait for one node.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    count: AtomicU32,
    asleep: AtomicBool,
    awake: Notify,
    none: Notify,
}

impl Waiting {
    pub(super) fn begin(&self) {
        self.count.fetch_add(1, SeqCst);
        if self.asleep.swap(false, SeqCst) {
            self.awake.notify_one();
        }
    }

    pub(super) fn end(&self) {
        if self.count.fetch_sub(1, SeqCst) == 1 {
            self.none.notify_waiters();
        }
    }

    /// Waits until none is left. Whoever calls this lets no new one begin.
    pub(super) async fn ended(&self) {
        loop {
            let none = self.none.notified(); // before it is looked, so that it is not missed
            if self.count.load(SeqCst) == 0 {
                return;
            }
            none.await;
        }
    }

    fn is_any(&self) -> bool {
        self.count.load(SeqCst) > 0
    }

    /// Waits until a request begins. Whoever begins one while this falls asleep wakes it.
    async fn begun(&self) {
        self.asleep.store(true, SeqCst);
        if !self.is_any() {
            self.awake.notified().await;
        }
        self.asleep.store(false, SeqCst);
    }
}

/// Watches over a connection until it ends, or nothing is heard on it for too long. What the node says of itself goes to
/// `said`; `path_changed` is called when another path is tried; `max` is the longest wait between two nudges.
pub(super) async fn watch(
    connection: &Connection,
    waiting: &Waiting,
    said: impl Fn(NodeState),
    path_changed: impl Fn(),
    max: Duration,
) {
    // An error is the connection's: it ends by itself then.
    let _ = follow(connection, waiting, said, path_changed, max).await;
}

async fn follow(
    connection: &Connection,
    waiting: &Waiting,
    said: impl Fn(NodeState),
    path_changed: impl Fn(),
    max: Duration,
) -> Result<(), LinkError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    frames::send(&mut send, &wire::Pulse {}).await?;
    let patience_ms = AtomicU32::new(0);
    let listen = async {
        loop {
            let state: NodeState = frames::receive(&mut receive).await?;
            patience_ms.store(state.patience_ms, Relaxed);
            said(state);
        }
    };
    let beat = async {
        let seen = || Seen {
            heard: connection.heard(),
            challenges: connection.challenges(),
            round_trip: connection.rtt(),
            carrier: connection.carrier(),
            waiting: waiting.is_any(),
            patience: Duration::from_millis(patience_ms.load(Relaxed).into()),
        };
        let mut pulse = Pulse::new(max, &seen(), now());
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(pulse.poll_timeout().into()) => {}
                () = waiting.begun(), if !pulse.is_attentive() => {}
            }
            match pulse.look(&seen(), now()) {
                None => {}
                Some(Action::Ask) => frames::send(&mut send, &wire::Pulse {}).await?,
                Some(Action::Nudge) => connection.nudge(),
                Some(Action::ChangePath) => {
                    let changed = connection.change_path().unwrap_or(false);
                    changed.then(&path_changed);
                }
                Some(Action::Dead) => return Ok(()),
            }
        }
    };
    tokio::select! { end = listen => end, end = beat => end }
}

/// The time by which timers go.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
