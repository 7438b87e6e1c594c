//! The watch over accepted answers: what `edge::audit` decides, for each model that answers here,
//! kept over restarts.

use crate::counters::Counters;
use crate::engine::ActiveModel;
use crate::state::State;
use ::link::durable::aside;
use edge::audit::{Audit, AuditPolicy};
use protocol::id::{ContentHash, ModelName};
use protocol::manifest::Calibration;
use protocol::problem::chain;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Findings without an alarm are written down this often at most, to spare flash: what a power cut
/// takes is a minute's evidence.
const KEEP_EVERY: Duration = Duration::from_secs(60);

/// How the accepted answers of one model do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AuditStatus {
    /// Accepted answers that were compared with the cloud's.
    pub(crate) checked: u64,
    /// Of these, how many differed.
    pub(crate) disagreed: f64,
    /// The share that may differ.
    pub(crate) bound: f64,
    /// The evidence that more do...
    pub(crate) evidence: f64,
    /// ...and how much of it raises an alarm.
    pub(crate) alarm_at: f64,
    /// Alarms so far.
    pub(crate) alarms: u8,
    /// The threshold that they have raised; absent where none was, or where nothing is accepted.
    pub(crate) raised: Option<f32>,
}

struct Watched {
    bundle: ContentHash,
    audit: Audit,
    kept: Instant,
}

/// All watches.
pub(crate) struct Audits {
    state: Arc<State>,
    counters: Arc<Counters>,
    policy: Mutex<AuditPolicy>,
    watched: Mutex<BTreeMap<ModelName, Watched>>,
}

/// What a bundle promises of disagreement: all that is seen here. Its risk is of answers that are wrong
/// where the cloud's are right, which takes a label to see.
fn bound(calibration: &Calibration) -> Option<f64> {
    calibration.bound.as_ref()?.disagreement()
}

/// What a call's answer is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    /// The threshold that alarms have raised.
    pub(crate) raised: Option<f32>,
    /// How many alarms there were.
    pub(crate) level: u8,
    /// Whether the answer is to be checked, should it be accepted.
    pub(crate) drawn: bool,
}

impl Audits {
    pub(crate) fn new(state: Arc<State>, counters: Arc<Counters>, policy: AuditPolicy) -> Self {
        Self { state, counters, policy: Mutex::new(policy), watched: Mutex::default() }
    }

    /// From now on these rules; a bundle that is watched keeps its bound until the agent restarts.
    pub(crate) fn set_policy(&self, policy: AuditPolicy) {
        *self.policy() = policy;
    }

    fn policy(&self) -> MutexGuard<'_, AuditPolicy> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<ModelName, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call of a model whose answers may be deferred.
    pub(crate) fn call(&self, model: &ActiveModel) -> Watch {
        let (policy, asked) = (*self.policy(), model.served().calls_per_check());
        self.with(model, |audit| {
            let drawn = audit.draws(&policy, asked, || u64::from_le_bytes(::link::entropy()));
            Watch { raised: audit.raised(), level: audit.level(), drawn }
        })
    }

    /// An edge answer was accepted.
    pub(crate) fn accepted(&self, model: &ActiveModel, score: f32) {
        self.with(model, |audit| audit.accepted(score));
    }

    /// An answer that was accepted at this level was compared with the cloud's; whether that raised
    /// an alarm.
    pub(crate) fn checked(&self, model: &ActiveModel, level: u8, disagreement: f64) -> bool {
        let name = &model.manifest().model;
        self.counters.checked(disagreement);
        let alarm = self.with(model, |audit| audit.checked(level, disagreement));
        if let Some(alarm) = &alarm {
            self.counters.alarmed(name, alarm);
        }
        self.keep(name, alarm.is_some());
        alarm.is_some()
    }

    /// Writes findings down: at once after an alarm, else now and then.
    fn keep(&self, name: &ModelName, at_once: bool) {
        let mut all = self.watched();
        let Some(watched) = all.get_mut(name) else { return };
        if !at_once && watched.kept.elapsed() < KEEP_EVERY {
            return;
        }
        watched.kept = Instant::now();
        let (bundle, findings) = (watched.bundle, watched.audit.findings().clone());
        drop(all); // no call waits for the disk
        let kept = aside(|| self.state.keep_findings(bundle, &findings));
        if let Err(error) = kept {
            tracing::warn!(%name, error = chain(&error), "what checks have found is not kept");
        }
    }

    fn with<T>(&self, model: &ActiveModel, then: impl FnOnce(&mut Audit) -> T) -> T {
        let (name, bundle) = (&model.manifest().model, model.target().bundle);
        let mut watched = self.watched();
        if watched.get(name).is_none_or(|watched| watched.bundle != bundle) {
            let bound = model.manifest().calibration.as_ref().and_then(bound);
            watched.insert(name.clone(), self.begin(bundle, bound));
        }
        let watched = watched.get_mut(name).expect("it was inserted");
        then(&mut watched.audit)
    }

    fn begin(&self, bundle: ContentHash, bound: Option<f64>) -> Watched {
        let saved = aside(|| self.state.findings(bundle)).unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "what checks had found cannot be read");
            None
        });
        let audit = Audit::new(&self.policy(), bound, saved);
        Watched { bundle, audit, kept: Instant::now() }
    }

    /// How the accepted answers of a model do; nothing for one that was not asked yet.
    pub(crate) fn status(&self, name: &ModelName) -> Option<AuditStatus> {
        let watched = self.watched();
        let audit = &watched.get(name)?.audit;
        let findings = audit.findings();
        Some(AuditStatus {
            checked: findings.checked,
            disagreed: findings.disagreed,
            bound: findings.test.bound(),
            evidence: findings.test.evidence(),
            alarm_at: audit.alarm_at(),
            alarms: audit.level(),
            raised: audit.raised().filter(|raised| raised.is_finite()),
        })
    }
}
