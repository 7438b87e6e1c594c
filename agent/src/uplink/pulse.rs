//! Whether a node still lives. QUIC itself gives a silent peer up after ten seconds; a request with a
//! deadline of two cannot wait for that. So while requests wait for a node from which nothing is heard,
//! it is asked for a sign of life; a node that gives none is taken for dead, and its requests are asked
//! of another. A slow model is no dead node: the sign comes from the process, not from the model.
//!
//! Before that the connection goes on from another port: a NAT on the way that forgot this device, or
//! was changed for another with its address, lets the packets of a fresh mapping through, and QUIC's
//! migration saves every request. The cloud need not be heard for that, only to hear.
//!
//! Nothing is sent, and nobody wakes up, while no request is under way.

use ::link::connection::Connection;
use ::link::frames::{self, LinkError};
use protocol::carrier::Carrier;
use protocol::wire::{NodeState, Pulse};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How often it is looked whether something was heard.
const TICK: Duration = Duration::from_millis(100);
/// After so many looks without a request under way, nobody looks until the next one.
const IDLE_TICKS: u32 = 10;
/// Silence after which a sign of life is asked for.
const ASK_AFTER: Duration = Duration::from_millis(150);
/// Silence after which another path is tried; more where a round to it takes long.
const CHANGE_PATH_AFTER: Duration = Duration::from_millis(300);
/// As many rounds as that.
const CHANGE_PATH_AFTER_ROUNDS: u32 = 2;
/// Silence after which a node is dead; more where a round to it takes long.
const DEAD_AFTER: Duration = Duration::from_millis(600);
/// As many rounds as that.
const DEAD_AFTER_ROUNDS: u32 = 4;
/// The same over TCP, where everything waits for a packet that was lost twice.
const DEAD_AFTER_OVER_TCP: Duration = Duration::from_secs(2);

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

    /// Sleeps until a request begins. Whoever begins one while this falls asleep wakes it.
    async fn sleep(&self) {
        self.asleep.store(true, SeqCst);
        if self.count.load(SeqCst) == 0 {
            self.awake.notified().await;
        }
        self.asleep.store(false, SeqCst);
    }
}

/// Watches over a connection until it ends, or nothing is heard on it while somebody waits. What the
/// node says of itself goes to `said`; `path_changed` is called when another path is tried.
pub(super) async fn watch(
    connection: &Connection,
    waiting: &Waiting,
    said: impl Fn(NodeState),
    path_changed: impl Fn(),
) {
    // An error is the connection's: it ends by itself then.
    let _ = follow(connection, waiting, said, path_changed).await;
}

async fn follow(
    connection: &Connection,
    waiting: &Waiting,
    said: impl Fn(NodeState),
    path_changed: impl Fn(),
) -> Result<(), LinkError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    frames::send(&mut send, &Pulse {}).await?;
    let listen = async {
        loop {
            said(frames::receive(&mut receive).await?);
        }
    };
    let beat = async {
        let mut heard = Heard::new(connection);
        let mut idle = 0;
        loop {
            tokio::time::sleep(TICK).await;
            if waiting.count.load(SeqCst) == 0 {
                idle += 1;
                if idle >= IDLE_TICKS {
                    waiting.sleep().await;
                    idle = 0;
                }
                heard = Heard::new(connection);
                continue;
            }
            idle = 0;
            match heard.look(connection) {
                Silence::Short => {}
                Silence::Ask => frames::send(&mut send, &Pulse {}).await?,
                Silence::ChangePath => {
                    if connection.change_path().unwrap_or(false) {
                        path_changed();
                    }
                }
                Silence::Dead => return Ok(()),
            }
        }
    };
    tokio::select! { end = listen => end, end = beat => end }
}

enum Silence {
    Short,
    Ask,
    ChangePath,
    Dead,
}

/// When something was heard last.
struct Heard {
    number: u64,
    at: Instant,
    asked: bool,
    path_changed: bool,
}

impl Heard {
    fn new(connection: &Connection) -> Self {
        let (number, at) = (connection.heard(), Instant::now());
        Self { number, at, asked: false, path_changed: false }
    }

    fn look(&mut self, connection: &Connection) -> Silence {
        let now = Self::new(connection);
        if now.number != self.number {
            *self = now;
            return Silence::Short;
        }
        let silent = now.at.saturating_duration_since(self.at);
        let dead_after = match connection.carrier() {
            Carrier::Quic => DEAD_AFTER,
            Carrier::Tcp => DEAD_AFTER_OVER_TCP,
        };
        if silent >= dead_after.max(connection.rtt() * DEAD_AFTER_ROUNDS) {
            return Silence::Dead;
        }
        let try_another = CHANGE_PATH_AFTER.max(connection.rtt() * CHANGE_PATH_AFTER_ROUNDS);
        if silent >= try_another && !self.path_changed {
            self.path_changed = true;
            return Silence::ChangePath;
        }
        if silent < ASK_AFTER || self.asked {
            return Silence::Short;
        }
        self.asked = true;
        Silence::Ask
    }
}
