//! The shadow: a candidate is given what the active version has just answered, and its answers are
//! compared and thrown away. `edge::shadow` decides when it may run, and when enough was seen.
//!
//! It runs in this process, on the very session that will answer, so that what is compared and timed is
//! what applications will get, and one budget holds for the memory of both. A confined child has loaded,
//! run and probed it before; and should a live request take the agent down, that was written down before,
//! and is held against it at the next start.
//!
//! Of sequences one is followed at a time, from its first piece on: the candidate keeps a state of its own
//! beside the active version's. Nothing leaves the device.

use crate::engine::{ActiveModel, EdgeAnswer, Seen};
use edge::probation::Fault;
use edge::shadow::{Compared, Outcome, Shadow, ShadowPolicy, WAITING_MAX};
use models::compare::{Apart, apart};
use models::stream::{Piece, StreamState};
use protocol::id::ModelName;
use protocol::infer::{InferRequest, PlacementHint, SequenceId};
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::Tensor;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A larger request waits alone, so that those that wait take no more memory than it.
const LARGE_BYTES: usize = 1 << 20;
/// How long the candidate may take for one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request waits for a moment in which the active version is idle.
const IDLE_PATIENCE: Duration = Duration::from_secs(5);
/// A followed sequence without a piece for so long makes room for another.
const SEQUENCE_PATIENCE: Duration = Duration::from_secs(10);

/// The two versions.
pub(super) struct Beside<'a> {
    pub(super) active: Arc<ActiveModel>,
    pub(super) candidate: &'a Arc<ActiveModel>,
    pub(super) policy: ShadowPolicy,
    /// What a run of the active version took when it proved itself, if that was on the same provider.
    pub(super) proven_run: Option<Duration>,
}

/// What a shadow has shown.
pub(super) struct Shown {
    /// How many live requests, and probes, were compared.
    pub(super) seen: (usize, usize),
    /// What a run of the active version took meanwhile.
    pub(super) usual: Option<Duration>,
    pub(super) end: Result<(), Fault>,
}

/// What the active version has answered.
struct Sample {
    request: InferRequest,
    outputs: Vec<Tensor>,
    label: Option<String>,
    took: Duration,
    /// Which of the sequences that were followed, for a piece of one.
    followed: Option<u64>,
}

struct Tap {
    shadow: Mutex<Shadow>,
    queue: mpsc::Sender<Sample>,
    followed: Mutex<Followed>,
}

/// The sequence that is followed.
#[derive(Default)]
struct Followed {
    key: Option<(Option<Arc<str>>, SequenceId)>,
    seen: Option<Instant>,
    count: u64,
}

impl Followed {
    /// The number of this piece's sequence, if it is followed, from now on or already.
    fn enter(&mut self, request: &InferRequest, may_begin: bool, now: Instant) -> Option<u64> {
        let sequence = request.sequence.as_ref()?;
        let key = Some((sequence.owner.clone(), sequence.id.clone()));
        if sequence.start {
            let idle = self.seen.is_none_or(|seen| now - seen > SEQUENCE_PATIENCE);
            if self.key == key || idle {
                self.key = None;
            }
            if self.key.is_none() && may_begin {
                (self.key, self.count) = (key.clone(), self.count + 1);
            }
        }
        if self.key != key {
            return None;
        }
        self.seen = Some(now);
        if sequence.end {
            self.key = None;
        }
        Some(self.count)
    }
}

impl Tap {
    fn shadow(&self) -> MutexGuard<'_, Shadow> {
        self.shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, seen: &Seen<'_>) {
        let Ok(answer) = seen.end else { return };
        let now = Instant::now();
        let may_begin = self.shadow().handle_request(now);
        let followed = self.followed().enter(seen.request, may_begin, now);
        let is_piece = seen.request.sequence.is_some();
        if (is_piece && followed.is_none()) || (!is_piece && !may_begin) {
            return;
        }
        let bytes: usize = seen.request.inputs.iter().map(|input| input.data().len()).sum();
        let alone = self.queue.capacity() == WAITING_MAX;
        if bytes > LARGE_BYTES && !is_piece && !alone {
            return;
        }
        let sample = Sample {
            request: seen.request.clone(), // reference-counted bytes
            outputs: answer.outputs.clone(),
            label: answer.label.clone(),
            took: Duration::from_micros(answer.infer_us),
            followed,
        };
        if self.queue.try_send(sample).is_err() && is_piece {
            self.followed().key = None; // a piece is missing: it cannot be followed any more
        }
    }
}

impl Beside<'_> {
    /// Lasts until enough was seen. To be dropped at any time.
    pub(super) async fn run(self) -> Shown {
        let (queue, mut samples) = mpsc::channel(WAITING_MAX);
        let shadow = Mutex::new(Shadow::new(self.policy.clone(), Instant::now()));
        let tap = Arc::new(Tap { shadow, queue, followed: Mutex::default() });
        let own = tap.clone();
        let _tapped = self.active.tap(Arc::new(move |seen| own.see(seen)));
        let mut stream = None;
        loop {
            let (outcome, due) = {
                let shadow = tap.shadow();
                (shadow.outcome(Instant::now()), shadow.poll_timeout())
            };
            let end = match outcome {
                Some(Outcome::Agreed) => Ok(()),
                Some(Outcome::Refused(fault)) => Err(fault),
                Some(Outcome::ReplayProbes) => {
                    self.replay(&tap).await;
                    continue;
                }
                None => {
                    tokio::select! {
                        Some(sample) = samples.recv() => self.answer(&tap, sample, &mut stream).await,
                        () = tokio::time::sleep_until(due.into()) => {}
                    }
                    continue;
                }
            };
            let shadow = tap.shadow();
            return Shown { seen: shadow.seen(), usual: shadow.usual(), end };
        }
    }

    /// Has the candidate answer a live request, in an idle moment.
    async fn answer(&self, tap: &Tap, sample: Sample, stream: &mut Option<(u64, StreamState)>) {
        if !self.candidate.has_place() {
            return tap.shadow().no_room();
        }
        let start = sample.request.sequence.as_ref().is_some_and(|sequence| sequence.start);
        let state = match (sample.followed, stream.take()) {
            (None, kept) => {
                *stream = kept;
                None
            }
            (Some(_), _) if start => Some(StreamState::default()),
            (Some(number), Some((kept, state))) if number == kept => Some(state),
            (Some(_), _) => return, // its beginning was left out
        };
        let idle = tokio::time::timeout(IDLE_PATIENCE, self.active.until_idle()).await.is_ok();
        if !idle || (sample.followed.is_none() && !tap.shadow().may_run(Instant::now())) {
            return;
        }
        let last = sample.request.sequence.as_ref().is_some_and(|sequence| sequence.end);
        let piece = state.map(|state| Piece { state, last });
        let (end, took) = self.ask(tap, &sample.request, piece).await;
        let compared = self.compare(&sample.outputs, sample.label.as_ref(), end.as_ref());
        if let (Some(number), Ok(EdgeAnswer { stream: Some(state), .. })) = (sample.followed, end) {
            *stream = Some((number, state));
        }
        if let Some(compared) = compared {
            tap.shadow().compared(compared, sample.took, took);
        }
    }

    /// Has the candidate answer the probes of the active version, one after the other.
    async fn replay(&self, tap: &Tap) {
        tap.shadow().begin_probes();
        let active = self.active.clone();
        let probes = tokio::task::spawn_blocking(move || active.probes()).await;
        let Ok(Ok(probes)) = probes else { return };
        for probe in probes {
            let names = probe.outputs.iter().map(|output| output.name().to_owned()).collect();
            let request = request(&self.active.manifest().model, probe.inputs, names);
            let (end, took) = self.ask(tap, &request, None).await;
            if let Some(compared) = self.compare(&probe.outputs, None, end.as_ref()) {
                tap.shadow().probed(compared, self.proven_run, took);
            }
        }
    }

    /// Its answer, the time on the model itself, and what that takes of the processor on the account.
    async fn ask(
        &self,
        tap: &Tap,
        request: &InferRequest,
        piece: Option<Piece>,
    ) -> (Result<EdgeAnswer, Problem>, Duration) {
        let start = Instant::now();
        let end = self.candidate.run(request, piece, start + PATIENCE).await;
        let took = match &end {
            Ok(answer) => Duration::from_micros(answer.infer_us),
            Err(_) => start.elapsed(),
        };
        tap.shadow().spent(took.saturating_mul(self.candidate.threads()));
        (end, took)
    }

    /// What a pair of answers says; nothing where the candidate did not get to answer.
    fn compare(
        &self,
        outputs: &[Tensor],
        label: Option<&String>,
        end: Result<&EdgeAnswer, &Problem>,
    ) -> Option<Compared> {
        let answer = match end {
            Ok(answer) => answer,
            Err(problem) if problem.code == ProblemCode::Overloaded => return None,
            Err(problem) => return Some(Compared::Failed(problem.to_string())),
        };
        let classes = self.active.manifest().classes.as_ref();
        let rule = (classes.map(|c| c.logits.as_str()), classes.and_then(|c| c.blank));
        match (apart(outputs, &answer.outputs, rule)?, label.zip(answer.label.as_ref())) {
            (Apart::NotNumbers, _) => Some(Compared::Failed("its answer holds NaN".into())),
            (_, Some((one, other))) => Some(Compared::Differs(f64::from(u8::from(one != other)))),
            (Apart::Differs(share), None) => Some(Compared::Differs(share)),
        }
    }
}

fn request(model: &ModelName, inputs: Vec<Tensor>, outputs: Vec<String>) -> InferRequest {
    InferRequest {
        model: model.clone(),
        version: None,
        id: String::new(),
        inputs,
        outputs,
        deadline_ms: None,
        priority: 0,
        hint: PlacementHint::Edge,
        sequence: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::infer::Sequence;

    fn piece(id: u64, start: bool, end: bool) -> InferRequest {
        let mut request = request(&"m".parse().unwrap(), Vec::new(), Vec::new());
        request.sequence = Some(Sequence { owner: None, id: SequenceId::Number(id), start, end });
        request
    }

    #[test]
    fn one_sequence_at_a_time_is_followed_from_its_beginning() {
        let now = Instant::now();
        let mut followed = Followed::default();
        let mut enter = |request: InferRequest, may| followed.enter(&request, may, now);
        assert_eq!(enter(piece(1, false, false), true), None, "its beginning was not seen");
        assert_eq!(enter(piece(1, true, false), false), None, "there is no time for it");
        assert_eq!(enter(piece(1, false, false), true), None);
        assert_eq!(enter(piece(2, true, false), true), Some(1));
        assert_eq!(enter(piece(3, true, false), true), None, "one at a time");
        assert_eq!(enter(piece(2, false, false), false), Some(1), "whatever it takes");
        assert_eq!(enter(piece(2, false, true), false), Some(1));
        assert_eq!(enter(piece(2, false, false), true), None, "it has ended");
        assert_eq!(enter(piece(3, true, false), true), Some(2));
        let later = now + SEQUENCE_PATIENCE * 2;
        assert_eq!(followed.enter(&piece(4, true, false), true, later), Some(3), "3 is silent");
    }
}
