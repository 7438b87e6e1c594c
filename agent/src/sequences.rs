//! The states of sequences (streams with state), from one request of a sequence to the next.
//!
//! A state belongs to the sequence of one application, never to a worker: any worker answers the next
//! piece. Requests of one sequence are answered one after the other, in the order in which they came;
//! a request without an answer leaves the state as it was, so that it may be sent again. How many
//! sequences are kept, and how long, decides `edge::sequences`.
//!
//! A sequence lives with the version of the model that it began with. When another one takes its
//! place, the sequence ends with an error: going on with the old one would hold two versions in memory
//! for as long as a microphone talks.

use crate::config;
use crate::counters::Counters;
use crate::engine::ActiveModel;
use edge::sequences::{Outcome, SequencePolicy, SequenceRefusal, Sequences, Turn};
use models::stream::{Piece, StreamState};
use protocol::id::{ContentHash, ModelName};
use protocol::infer::{Sequence, SequenceId};
use protocol::limits::SEQUENCE_WAITING_MAX;
use protocol::oip::SequenceLimits;
use protocol::problem::{Problem, ProblemCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::OwnedMutexGuard;

/// Whose sequence of which model.
type Key = (ModelName, Option<Arc<str>>, SequenceId);

/// Where a sequence stands. Whoever holds the lock is the one whose request is answered; the others
/// wait in their order.
type Standing = Arc<tokio::sync::Mutex<Stand>>;

#[derive(Debug)]
struct Stand {
    /// What computes it.
    bundle: ContentHash,
    state: StreamState,
}

/// All sequences of this device.
pub(crate) struct SequenceStates {
    table: Mutex<Sequences<Key, Standing>>,
    limits: SequenceLimits,
    counters: Arc<Counters>,
}

/// A request's turn in its sequence. Dropped without an answer, it leaves the sequence as it was.
pub(crate) struct Place<'s> {
    states: &'s SequenceStates,
    key: Key,
    turn: Turn,
    last: bool,
    stand: Option<OwnedMutexGuard<Stand>>,
    outcome: Outcome,
}

impl SequenceStates {
    pub(crate) fn new(config: &config::Sequences, counters: Arc<Counters>) -> Self {
        let limits = SequenceLimits { count: config.count, idle: config.idle() };
        let policy = SequencePolicy {
            count_max: config.count,
            size_max_bytes: config.memory_bytes(),
            waiting_max: SEQUENCE_WAITING_MAX,
            idle: limits.idle,
        };
        Self { table: Mutex::new(Sequences::new(policy)), limits, counters }
    }

    /// How many are kept, and how long.
    pub(crate) fn limits(&self) -> SequenceLimits {
        self.limits
    }

    /// Frees, for ever, what nobody asks of any more.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.limits.idle.max(Duration::from_secs(1))).await;
            self.table().expire(Instant::now());
            self.count_forgotten();
        }
    }

    /// Waits for the turn of a request, until its deadline.
    ///
    /// # Errors
    /// The model takes no sequences, this one is unknown, or there is no place.
    pub(crate) async fn enter(
        &self,
        model: &ActiveModel,
        name: &ModelName,
        sequence: &Sequence,
        deadline: Instant,
    ) -> Result<Place<'_>, Problem> {
        if !model.description().takes_sequences {
            let text =
                format!("the model {:?} keeps no state, so it takes no sequences", name.as_str());
            return Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("leave the parameter \"sequence_id\" out"));
        }
        let bundle = model.target().bundle;
        let key = (name.clone(), sequence.owner.clone(), sequence.id.clone());
        let entered = self.find(&key, sequence.start, bundle);
        self.count_forgotten();
        let (standing, turn) = entered.map_err(|refusal| refused(&sequence.id, refusal))?;
        let mut place = Place {
            states: self,
            key,
            turn,
            last: sequence.end,
            stand: None,
            outcome: Outcome::AsItWas,
        };
        // The first poll takes a place in the queue of the lock, which is a fair one.
        let locked = tokio::time::timeout_at(deadline.into(), standing.lock_owned()).await;
        let stand = locked.map_err(|_| late())?;
        if stand.bundle != bundle {
            self.table().forget(&place.key, turn);
            return Err(changed(&sequence.id, model));
        }
        place.stand = Some(stand);
        Ok(place)
    }

    fn find(
        &self,
        key: &Key,
        start: bool,
        bundle: ContentHash,
    ) -> Result<(Standing, Turn), SequenceRefusal> {
        let now = Instant::now();
        if !start {
            return self.table().go_on(key, now);
        }
        let stand = Stand { bundle, state: StreamState::default() };
        let standing = Arc::new(tokio::sync::Mutex::new(stand));
        let turn = self.table().begin(key, standing.clone(), now)?;
        self.counters.sequence_begun();
        Ok((standing, turn))
    }

    fn count_forgotten(&self) {
        let forgotten = self.table().take_forgotten();
        self.counters.sequences_forgotten(forgotten);
    }

    fn table(&self) -> MutexGuard<'_, Sequences<Key, Standing>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// What the model is given.
    pub(crate) fn piece(&self) -> Piece {
        let state = self.stand.as_ref().map(|stand| stand.state.clone()).unwrap_or_default();
        Piece { state, last: self.last }
    }

    /// The request was answered, and the sequence stands there now.
    pub(crate) fn answered(mut self, state: Option<StreamState>) {
        if self.last {
            self.outcome = Outcome::Ended;
            self.states.counters.sequence_ended();
        } else if let (Some(stand), Some(state)) = (self.stand.as_mut(), state) {
            self.outcome = Outcome::Goes { size_bytes: state.size_bytes() };
            stand.state = state;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.states.table().leave(&self.key, self.turn, self.outcome, Instant::now());
        self.states.count_forgotten();
    }
}

fn refused(id: &SequenceId, refusal: SequenceRefusal) -> Problem {
    let problem = |code, text: String| Problem::new(code, text);
    match refusal {
        SequenceRefusal::Unknown => {
            problem(ProblemCode::InvalidRequest, format!("the sequence {id} is unknown or expired"))
                .hint("begin it again with sequence_start")
        }
        SequenceRefusal::Waiting { .. } => {
            problem(ProblemCode::Overloaded, format!("sequence {id}: {refusal}"))
                .hint("send the next request of a sequence when the one before is answered")
                .retry_after_ms(100)
        }
        SequenceRefusal::Full { .. } => problem(ProblemCode::Overloaded, refusal.to_string())
            .hint("end sequences with sequence_end, or allow more in [sequences] of agent.toml")
            .retry_after_ms(1000),
    }
}

fn changed(id: &SequenceId, model: &ActiveModel) -> Problem {
    let version = model.target().version;
    let text = format!("the sequence {id} began with another version of the model than {version}");
    Problem::new(ProblemCode::InvalidRequest, text).hint("begin it again with sequence_start")
}

fn late() -> Problem {
    let text = "the requests before this one in its sequence were not done before the deadline";
    Problem::new(ProblemCode::DeadlineExceeded, text)
        .hint("allow more time with the parameter \"timeout\" (microseconds)")
}
