//! The values that go into a batcher and come out of it.

use std::time::{Duration, Instant};

use protocol::limits;

/// A request, unique among those that the batcher holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A session of the model, numbered by its owner; lower ones are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

/// Who shares fairly with whom: a tenant, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// Requests with the same key can be one batch: their shapes agree but for the number of items
/// (after padding, where the caller pads). Usually a hash of the shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeKey(pub u64);

/// A request whose tensors have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// Whose it is.
    pub flow: FlowId,
    /// The share of its tenant; 1 is usual.
    pub weight: u32,
    /// Items in it: the first dimension of its inputs. They are never split.
    pub items: u32,
    /// What it can be batched with.
    pub shape: ShapeKey,
    /// 0 to [`limits::PRIORITY_MAX`]; higher is served first.
    pub priority: u8,
    /// When the answer is of no use any more.
    pub deadline: Instant,
    /// When it arrived.
    pub arrived: Instant,
}

/// The rules of one model's batcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether requests may share a run at all. Only for a model that was proven batch-invariant
    /// when it was loaded: a batch mate must not change an answer.
    pub batch_invariant: bool,
    /// Items in a batch at most. A request that is larger by itself runs alone.
    pub max_batch_size: u32,
    /// How long a batch may run: what others may have to wait for a session. It bounds the harm
    /// that one tenant's full batches do to another's small request. A request that takes longer
    /// by itself runs alone.
    pub max_batch_run: Duration,
    /// How long a request may wait for a session before it is dropped. It never delays anything.
    pub max_queue_delay: Duration,
    /// A request is never overtaken, inside its flow and priority, by one that came later than
    /// this after it: its place in the order is that of a deadline this long after its arrival.
    pub patience: Duration,
    /// Requests that may wait.
    pub max_waiting: usize,
    /// Whether a session more may be opened for tenants that are behind their share: where the system
    /// can prefer it to the others.
    pub express: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            batch_invariant: false,
            max_batch_size: 16,
            max_batch_run: Duration::from_millis(100),
            max_queue_delay: Duration::from_secs(10),
            patience: Duration::from_secs(1),
            max_waiting: limits::QUEUE_MAX_REQUESTS,
            express: false,
        }
    }
}

/// What the owner of the sessions has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run these requests on this session, as one batch in this order.
    Run {
        /// Where.
        session: SessionId,
        /// What; at least one.
        batch: Vec<RequestId>,
        /// Items in all of them.
        items: u32,
    },
    /// Answer this request with a failure; it will not run.
    Drop {
        /// Which.
        id: RequestId,
        /// Why.
        reason: DropReason,
    },
}

/// Why a request ends without a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Its caller gave it up.
    Cancelled,
    /// Its deadline has passed.
    Expired,
    /// Its deadline lies ahead, but a run started now would end after it.
    CannotMakeIt,
    /// It waited for [`Policy::max_queue_delay`].
    QueuedTooLong,
    /// Its session was lost for the second time: it may be the cause.
    SessionLost,
}

impl DropReason {
    /// All reasons, for counters.
    pub const ALL: [Self; 5] = [
        Self::Cancelled,
        Self::Expired,
        Self::CannotMakeIt,
        Self::QueuedTooLong,
        Self::SessionLost,
    ];

    /// A word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::CannotMakeIt => "cannot_make_it",
            Self::QueuedTooLong => "queued_too_long",
            Self::SessionLost => "session_lost",
        }
    }
}

/// Why a request was not taken; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// As many wait as may wait. Admission keeps below that; this is the last line.
    #[error("{waiting} requests wait for this model")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
    /// A request of this name is waiting or running: a fault of the caller.
    #[error("request {} is waiting or running already", .0.0)]
    Duplicate(RequestId),
    /// A request without items.
    #[error("a request has at least one item")]
    NoItems,
}

/// What became of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It waited, and is dropped.
    Dropped,
    /// It runs: the run goes on, and nobody wants its answer.
    Running,
    /// No such request; it has ended.
    Unknown,
}

/// How much there is to do: what admission decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Sessions that there are, without those that retire.
    pub sessions: u32,
    /// Those of them that run something.
    pub busy: u32,
    /// Items that run, on any session.
    pub running_items: u32,
    /// Requests that wait.
    pub waiting_requests: u32,
    /// Items that wait.
    pub waiting_items: u32,
    /// Time of one item in a batch of the best size, on one session; zero before the first run.
    pub item_time: Duration,
    /// Time of a run of a single item, on the safe side; zero before the first run.
    pub run_time: Duration,
    /// Items in a batch of the best size.
    pub batch_items: u32,
    /// Time of a batch of the best size.
    pub batch_time: Duration,
}

impl Load {
    /// How long all sessions take for so many items, in full batches.
    pub fn time_for(&self, items: u64) -> Duration {
        let ns = self.item_time.as_nanos() * u128::from(items) / u128::from(self.sessions.max(1));
        Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// How long a run of so many items takes, about: between a single item and the best size.
    pub fn run_of(&self, items: u64) -> Duration {
        let best = u64::from(self.batch_items.max(1));
        let beyond = self.batch_time.saturating_sub(self.run_time);
        let share = beyond.as_nanos() * u128::from(items.clamp(1, best) - 1);
        let share = share / u128::from((best - 1).max(1));
        self.run_time + Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// How long the waiting items will keep all sessions busy.
    pub fn backlog(&self) -> Duration {
        self.time_for(self.waiting_items.into())
    }
}
