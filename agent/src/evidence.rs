//! Evidence of how models answer here, for a cloud that looks closely: sums without content, sent on the control
//! stream as often as the desired state asks for them, and not at all where it does not.
//!
//! Counting goes on always, so that a roll-out finds what a version did before it began. Each loaded version counts for
//! itself from a life of its own on, whose number is drawn at random: what is said twice, late or never does no harm
//! (`protocol::evidence`).

use crate::engine::EdgeAnswer;
use models::compare::are_numbers;
use protocol::evidence::bucket;
use protocol::id::{ModelName, Version};
use protocol::infer::{InferResponse, Placement, Reason};
use protocol::problem::{Problem, ProblemCode};
use protocol::wire::ModelEvidence;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What one version has done in this life.
pub(crate) struct Served {
    life: u64,
    sums: Mutex<Sums>,
    calls_per_check: AtomicU32,
}

#[derive(Default)]
struct Sums {
    requests: u64,
    errors: u64,
    not_numbers: u64,
    deferred: u64,
    checked: u64,
    disagreed: u64,
    judged: u64,
    confidence_micros: u64,
    crashes: u32,
    runs: Vec<u64>,
}

impl Default for Served {
    fn default() -> Self {
        Self {
            life: u64::from_le_bytes(::link::entropy()),
            sums: Mutex::default(),
            calls_per_check: AtomicU32::new(0),
        }
    }
}

impl Served {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The edge model answered; `accepted` unless that is to be deferred.
    #[allow(clippy::cast_precision_loss)] // microseconds of a run
    pub(crate) fn ran(&self, answer: &EdgeAnswer, accepted: bool) {
        let numbers = are_numbers(&answer.outputs);
        let bucket = bucket(answer.infer_us as f64);
        let mut sums = self.sums();
        if sums.runs.len() <= bucket {
            sums.runs.resize(bucket + 1, 0);
        }
        sums.runs[bucket] += 1;
        sums.deferred += u64::from(!accepted);
        if !numbers {
            sums.not_numbers += 1;
            sums.errors += 1;
        }
        if let Some(confidence) = answer.confidence {
            sums.judged += 1;
            sums.confidence_micros += micros(confidence);
        }
    }

    /// A request ended. What is wrong with the request itself, or with how many there are, says nothing of the version.
    pub(crate) fn ended(&self, result: &Result<InferResponse, Problem>) {
        let failed = match result {
            Ok(response) => {
                self.sums().deferred += u64::from(was_passed_over(response));
                false
            }
            Err(problem) if is_the_versions(problem) => true,
            Err(_) => return,
        };
        let mut sums = self.sums();
        sums.requests += 1;
        sums.errors += u64::from(failed);
    }

    /// The version failed, and the cloud answered in its place: nobody else sees that it failed.
    pub(crate) fn stood_in(&self, failure: &Problem) {
        self.sums().errors += u64::from(is_the_versions(failure));
    }

    /// An accepted answer was compared with the cloud's.
    pub(crate) fn checked(&self, disagreement: f64) {
        let mut sums = self.sums();
        sums.checked += 1;
        sums.disagreed += u64::from(disagreement > 0.0);
    }

    /// Of so many calls one is to be checked while a cloud looks closely; 0 while none does.
    pub(crate) fn calls_per_check(&self) -> u32 {
        self.calls_per_check.load(Ordering::Relaxed)
    }

    pub(crate) fn check_one_of(&self, calls: u32) {
        self.calls_per_check.store(calls, Ordering::Relaxed);
    }

    /// So often has this version ended the agent, before this life.
    pub(crate) fn has_crashed(&self, times: u32) {
        self.sums().crashes = times;
    }

    /// The sums so far.
    pub(crate) fn row(&self, name: &ModelName, version: Version, provider: &str) -> ModelEvidence {
        let sums = self.sums();
        ModelEvidence {
            name: name.to_string(),
            version: version.get(),
            life: self.life,
            requests: sums.requests,
            errors: sums.errors,
            deferred: sums.deferred,
            checked: sums.checked,
            disagreed: sums.disagreed,
            judged: sums.judged,
            confidence_micros: sums.confidence_micros,
            runs: sums.runs.clone(),
            not_numbers: sums.not_numbers,
            crashes: sums.crashes,
            provider: provider.to_owned(),
        }
    }
}

/// Whether the cloud was asked at once, because this version hardly ever serves or takes too long: that is deferral too,
/// which no answer of its own shows.
fn was_passed_over(response: &InferResponse) -> bool {
    use Reason::{EdgeSlower, EdgeTooSlow, UsuallyDeferred};
    let verdict = &response.verdict;
    verdict.placement == Placement::Cloud
        && matches!(verdict.reason, EdgeSlower | EdgeTooSlow | UsuallyDeferred)
}

/// Whether a failure says something of the version.
fn is_the_versions(problem: &Problem) -> bool {
    use ProblemCode::{DeadlineExceeded, InferenceFailed, Internal};
    matches!(problem.code, InferenceFailed | Internal | DeadlineExceeded)
}

/// A confidence in millionths; what is none counts as 0.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to a million
fn micros(confidence: f32) -> u64 {
    if confidence.is_nan() { 0 } else { (f64::from(confidence.clamp(0.0, 1.0)) * 1e6) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::tensor::Tensor;

    fn answer(values: &[f32], confidence: f32, infer_us: u64) -> EdgeAnswer {
        EdgeAnswer {
            outputs: vec![Tensor::from_f32("y", vec![1, 2], values).unwrap()],
            confidence: Some(confidence),
            label: None,
            stream: None,
            queue_us: 0,
            infer_us,
        }
    }

    #[test]
    fn each_thing_counts_where_it_belongs() {
        let served = Served::default();
        served.ran(&answer(&[0.0, 1.0], 0.75, 40), true);
        served.ran(&answer(&[0.0, 1.0], 0.25, 20), false);
        served.ran(&answer(&[f32::NAN, 1.0], f32::NAN, 20), true);
        let failed = |code| Err(Problem::new(code, "no"));
        for code in [ProblemCode::InvalidRequest, ProblemCode::Overloaded, ProblemCode::Internal] {
            served.ended(&failed(code));
        }
        let failure = |code| Problem::new(code, "no");
        served.stood_in(&failure(ProblemCode::InferenceFailed));
        served.stood_in(&failure(ProblemCode::Overloaded));
        served.checked(0.0);
        served.checked(0.5);
        served.has_crashed(2);
        let row = served.row(&"m".parse().unwrap(), Version::FIRST, "cpu");
        assert_eq!((row.requests, row.errors, row.not_numbers), (1, 3, 1));
        assert_eq!((row.deferred, row.checked, row.disagreed, row.crashes), (1, 2, 1, 2));
        assert_eq!((row.judged, row.confidence_micros), (3, 1_000_000));
        assert_eq!(row.runs, [2, 0, 1]);
        assert_ne!(Served::default().life, row.life);
        served.check_one_of(20);
        assert_eq!(served.calls_per_check(), 20);
    }
}
