//! How models are served and who may ask how much: everything that an operator may want otherwise,
//! with its default, in one place.

use fleet::admission::{GatePolicy, LimitPolicy, Quota, Terms};
use fleet::batch;
use fleet::scaling::ScalingPolicy;
use protocol::id::{ModelName, TenantName};
use protocol::limits::CALLER_REQUESTS_MAX;
use std::collections::BTreeMap;
use std::time::Duration;

use super::accelerators::Accelerators;

/// Sessions of one model at most, unless its settings say otherwise; fewer on fewer cores.
const SESSIONS_MAX: u32 = 4;

/// Settings of the part of the server that answers.
#[derive(Debug, Clone, Default)]
pub struct ServingSettings {
    /// Memory of all models together, in bytes; 0 for no end.
    pub memory_bytes: u64,
    /// Who may ask how much.
    pub admission: AdmissionSettings,
    /// Of every model that is not named below.
    pub model: ModelSettings,
    /// Of these models.
    pub models: BTreeMap<ModelName, ModelSettings>,
    /// On what they run.
    pub accelerators: Accelerators,
}

impl ServingSettings {
    /// What holds for a model.
    pub fn of(&self, model: &ModelName) -> &ModelSettings {
        self.models.get(model).unwrap_or(&self.model)
    }
}

/// Who may ask how much.
#[derive(Debug, Clone)]
pub struct AdmissionSettings {
    /// What all requests share.
    pub gate: GatePolicy,
    /// Of every tenant that is not named below.
    pub terms: Terms,
    /// Of these tenants.
    pub tenants: BTreeMap<TenantName, Terms>,
}

impl Default for AdmissionSettings {
    fn default() -> Self {
        let caller = Quota { rate: None, concurrency: CALLER_REQUESTS_MAX };
        let terms = Terms { caller, ..Terms::default() };
        Self { gate: GatePolicy::default(), terms, tenants: BTreeMap::new() }
    }
}

impl AdmissionSettings {
    /// What a tenant, and each of its devices and keys, may ask.
    pub fn terms_of(&self, tenant: &TenantName) -> Terms {
        self.tenants.get(tenant).copied().unwrap_or(self.terms)
    }
}

/// How one model is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSettings {
    /// Whether requests may share a run, where the model was proven to allow it.
    pub batching: bool,
    /// Items that share a run at most.
    pub max_batch_size: u32,
    /// How long a run of several requests may take, in milliseconds.
    pub max_batch_run_ms: u32,
    /// How long a request may wait for a session, in milliseconds. It never delays anything.
    pub max_queue_delay_ms: u32,
    /// Sessions at least.
    pub sessions_min: u32,
    /// Sessions at most; as many as the cores allow, and no more than 4, when absent. Only then may there be
    /// an express session beside them.
    pub sessions_max: Option<u32>,
    /// Threads of each session.
    pub threads: u32,
    /// How many items may be in flight: found between these bounds.
    pub in_flight: LimitPolicy,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            batching: true,
            max_batch_size: 32,
            max_batch_run_ms: 100,
            max_queue_delay_ms: 10_000,
            sessions_min: 1,
            sessions_max: None,
            threads: 1,
            in_flight: LimitPolicy::default(),
        }
    }
}

impl ModelSettings {
    pub(super) fn max_batch_run(&self) -> Duration {
        Duration::from_millis(self.max_batch_run_ms.into())
    }

    /// The batcher's rules; `batch_invariant` is what was found at load. On devices no run can be preferred
    /// to others; and who says how many sessions there are at most gets no other.
    pub(super) fn batches(&self, batch_invariant: bool, devices: Option<u32>) -> batch::Policy {
        batch::Policy {
            batch_invariant: batch_invariant && self.batching,
            max_batch_size: self.max_batch_size.max(1),
            max_batch_run: self.max_batch_run(),
            max_queue_delay: Duration::from_millis(self.max_queue_delay_ms.into()),
            express: devices.is_none() && self.sessions_max.is_none(),
            ..batch::Policy::default()
        }
    }

    /// How many sessions: for the cores; or for so many devices, each of which has one at least, and
    /// another that brings data while the first one computes.
    pub(super) fn scaling(&self, devices: Option<u32>) -> ScalingPolicy {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cores = u32::try_from(cores).unwrap_or(u32::MAX);
        let fits = match devices {
            None => ScalingPolicy::for_cores(cores, self.threads),
            Some(devices) => ScalingPolicy::for_devices(devices),
        };
        let most = if devices.is_none() { fits.max.min(SESSIONS_MAX) } else { fits.max };
        let max = self.sessions_max.unwrap_or(most).max(1);
        let min = self.sessions_min.max(fits.min).clamp(1, max);
        ScalingPolicy { min, max, start: fits.start.clamp(min, max), ..fits }
    }
}
