//! How models are served: for all of them, and for single ones.

use fleet::admission::{GatePolicy, LimitPolicy};
use protocol::id::ModelName;
use protocol::limits::CALLER_REQUESTS_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::Objection;
use crate::serving::settings::{AdmissionSettings, ModelSettings, ServingSettings};

/// Threads and sessions beyond this are a typing mistake.
const THREADS_MAX: u32 = 256;
/// As many sessions as a worker can have.
const SESSIONS_MAX: u32 = 16;

/// How models are served that `[models.NAME]` says nothing else of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serving {
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
    /// Sessions at most; as many as the cores allow, and no more than 4, when 0.
    pub sessions_max: u32,
    /// Threads of each session.
    pub threads: u32,
    /// Items in flight that are allowed in any case.
    pub in_flight_min: u32,
    /// Items in flight that are never exceeded; in between the number is found by measurement.
    pub in_flight_max: u32,
    /// Tensors of all requests in flight, in MiB.
    pub tensor_memory_mb: u32,
    /// Requests of one device or key in flight.
    pub caller_requests: u32,
    /// The highest priority that a caller gets.
    pub priority_max: u8,
}

impl Default for Serving {
    fn default() -> Self {
        let model = ModelSettings::default();
        let LimitPolicy { min, max, .. } = model.in_flight;
        let bytes = GatePolicy::default().tensor_bytes;
        Self {
            batching: model.batching,
            max_batch_size: model.max_batch_size,
            max_batch_run_ms: model.max_batch_run_ms,
            max_queue_delay_ms: model.max_queue_delay_ms,
            sessions_min: model.sessions_min,
            sessions_max: model.sessions_max.unwrap_or(0),
            threads: model.threads,
            in_flight_min: min,
            in_flight_max: max,
            tensor_memory_mb: u32::try_from(bytes >> 20).unwrap_or(u32::MAX),
            caller_requests: CALLER_REQUESTS_MAX,
            priority_max: 0,
        }
    }
}

/// What holds for one model instead; absent is as in `[serving]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batching: Option<bool>,
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_size: Option<u32>,
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_run_ms: Option<u32>,
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_delay_ms: Option<u32>,
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_min: Option<u32>,
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_max: Option<u32>,
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_min: Option<u32>,
    /// As in [`Serving`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_max: Option<u32>,
}

/// The models that are named.
pub type Models = BTreeMap<ModelName, Model>;

impl Serving {
    fn model(&self) -> ModelSettings {
        ModelSettings {
            batching: self.batching,
            max_batch_size: self.max_batch_size,
            max_batch_run_ms: self.max_batch_run_ms,
            max_queue_delay_ms: self.max_queue_delay_ms,
            sessions_min: self.sessions_min,
            sessions_max: Some(self.sessions_max).filter(|sessions| *sessions > 0),
            threads: self.threads,
            in_flight: LimitPolicy {
                min: self.in_flight_min,
                max: self.in_flight_max,
                ..LimitPolicy::default()
            },
        }
    }

    /// This, where the model says nothing else.
    fn with(&self, model: &Model) -> Self {
        Self {
            batching: model.batching.unwrap_or(self.batching),
            max_batch_size: model.max_batch_size.unwrap_or(self.max_batch_size),
            max_batch_run_ms: model.max_batch_run_ms.unwrap_or(self.max_batch_run_ms),
            max_queue_delay_ms: model.max_queue_delay_ms.unwrap_or(self.max_queue_delay_ms),
            sessions_min: model.sessions_min.unwrap_or(self.sessions_min),
            sessions_max: model.sessions_max.unwrap_or(self.sessions_max),
            threads: model.threads.unwrap_or(self.threads),
            in_flight_min: model.in_flight_min.unwrap_or(self.in_flight_min),
            in_flight_max: model.in_flight_max.unwrap_or(self.in_flight_max),
            ..self.clone()
        }
    }

    /// What the server is made with.
    pub fn settings(&self, models: &Models, memory_bytes: u64) -> ServingSettings {
        let mut admission = AdmissionSettings::default();
        admission.gate.tensor_bytes = u64::from(self.tensor_memory_mb) << 20;
        admission.terms.caller.concurrency = self.caller_requests;
        admission.terms.priority_max = self.priority_max;
        let own = models.iter().map(|(name, model)| (name.clone(), self.with(model).model()));
        let (model, models) = (self.model(), own.collect());
        ServingSettings { memory_bytes, admission, model, models, ..ServingSettings::default() }
    }

    pub(super) fn check(&self, models: &Models, found: &mut Vec<Objection>) {
        found.extend(self.objections().map(|(key, error, hint)| Objection::new(key, error, hint)));
        for (name, model) in models {
            // The same rules; the place is the model's.
            let objections = self.with(model).objections();
            found.extend(objections.filter(|_| *model != Model::default()).map(
                |(key, error, hint)| {
                    let key = key.trim_start_matches("serving.");
                    Objection::new("models", format!("{name}: {key}: {error}"), hint)
                },
            ));
        }
    }

    fn objections(&self) -> impl Iterator<Item = (&'static str, String, &'static str)> + use<> {
        let sessions_max = if self.sessions_max == 0 { SESSIONS_MAX } else { self.sessions_max };
        let rules = [
            ("serving.max_batch_size", self.max_batch_size, 1, u32::MAX),
            ("serving.sessions_max", self.sessions_max, 0, SESSIONS_MAX),
            ("serving.sessions_min", self.sessions_min, 1, sessions_max),
            ("serving.threads", self.threads, 1, THREADS_MAX),
            ("serving.in_flight_min", self.in_flight_min, 1, self.in_flight_max),
            ("serving.tensor_memory_mb", self.tensor_memory_mb, 1, u32::MAX),
            ("serving.caller_requests", self.caller_requests, 1, u32::MAX),
        ];
        rules.into_iter().filter(|(_, value, min, max)| value < min || value > max).map(
            |(key, value, min, max)| {
                let error = match max {
                    u32::MAX => format!("{value} is less than {min}"),
                    _ => format!("{value} is not between {min} and {max}"),
                };
                (key, error, "cloud/packaging/cloud.toml shows every default")
            },
        )
    }
}
