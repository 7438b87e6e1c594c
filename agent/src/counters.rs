//! What is counted, in one place. Each event is one method that counts and, where a person would
//! want to read of it, logs; so counters and logs cannot drift apart.

use crate::metrics::Latencies;
use protocol::id::ModelName;
use protocol::infer::{Placement, Verdict};
use protocol::problem::{Problem, ProblemCode};
use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    let mut texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

/// The agent's counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    edge: AtomicU64,
    cloud: AtomicU64,
    edge_degraded: AtomicU64,
    invalid: AtomicU64,
    overloaded: AtomicU64,
    deadline_exceeded: AtomicU64,
    failed: AtomicU64,
    forbidden: AtomicU64,
    uplink_bytes: AtomicU64,
    downlink_bytes: AtomicU64,
    connects: AtomicU64,
    connect_failures: AtomicU64,
    renewals: AtomicU64,
    renewal_failures: AtomicU64,
    installs: AtomicU64,
    install_failures: AtomicU64,
    installs_refused: AtomicU64,
    loads: AtomicU64,
    unloads: AtomicU64,
    latencies: Latencies,
}

/// The counters at one moment.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Counted {
    answers: Answers,
    refusals: Refusals,
    link: LinkCounts,
    installs: Installs,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Answers {
    edge: u64,
    cloud: u64,
    edge_degraded: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Refusals {
    invalid: u64,
    overloaded: u64,
    deadline_exceeded: u64,
    failed: u64,
    forbidden: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct LinkCounts {
    uplink_bytes: u64,
    downlink_bytes: u64,
    connects: u64,
    connect_failures: u64,
    renewals: u64,
    renewal_failures: u64,
}

#[derive(Debug, Clone, Default, Serialize)]
struct Installs {
    done: u64,
    failed: u64,
    refused: u64,
    loads: u64,
    unloads: u64,
}

impl Counters {
    /// A request to this model was answered, `took` after it was read.
    pub(crate) fn answered(&self, model: &ModelName, verdict: &Verdict, took: Duration) {
        self.latencies.record(model, verdict, took);
        let counter = match verdict.placement {
            Placement::Edge => &self.edge,
            Placement::Cloud => &self.cloud,
            Placement::EdgeDegraded => &self.edge_degraded,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// A request was refused or failed.
    pub(crate) fn refused(&self, problem: &Problem) {
        let counter = match problem.code {
            ProblemCode::InvalidRequest | ProblemCode::NotFound | ProblemCode::TooLarge => {
                &self.invalid
            }
            ProblemCode::Overloaded => &self.overloaded,
            ProblemCode::DeadlineExceeded => &self.deadline_exceeded,
            ProblemCode::Unauthorised => &self.forbidden,
            _ => {
                tracing::warn!(code = problem.code.as_str(), %problem, "a request failed");
                &self.failed
            }
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Tensor bytes went to the cloud.
    pub(crate) fn sent(&self, bytes: u64) {
        self.uplink_bytes.fetch_add(bytes, Relaxed);
    }

    /// Blob or tensor bytes came from the cloud.
    pub(crate) fn received(&self, bytes: u64) {
        self.downlink_bytes.fetch_add(bytes, Relaxed);
    }

    /// The cloud is connected.
    pub(crate) fn connected(&self, endpoint: &str) {
        self.connects.fetch_add(1, Relaxed);
        tracing::info!(endpoint, "connected to the cloud");
    }

    /// The cloud could not be reached, or the connection ended.
    pub(crate) fn disconnected(&self, endpoint: &str, why: &str, retry_in_ms: u128) {
        self.connect_failures.fetch_add(1, Relaxed);
        tracing::warn!(endpoint, why, retry_in_ms, "not connected to the cloud");
    }

    /// The certificate was renewed.
    pub(crate) fn renewed(&self) {
        self.renewals.fetch_add(1, Relaxed);
        tracing::info!("the certificate was renewed");
    }

    /// The certificate could not be renewed.
    pub(crate) fn renewal_failed(&self, why: &str) {
        self.renewal_failures.fetch_add(1, Relaxed);
        tracing::warn!(why, "the certificate was not renewed");
    }

    /// A version became active.
    pub(crate) fn installed(&self, model: &ModelName, version: u64) {
        self.installs.fetch_add(1, Relaxed);
        tracing::info!(%model, version, "active");
    }

    /// An application let a model answer again.
    pub(crate) fn loaded(&self, model: &ModelName) {
        self.loads.fetch_add(1, Relaxed);
        tracing::info!(%model, "loaded");
    }

    /// An application stopped a model from answering.
    pub(crate) fn unloaded(&self, model: &ModelName) {
        self.unloads.fetch_add(1, Relaxed);
        tracing::info!(%model, "unloaded");
    }

    /// An installation failed; `passing` tells whether it will be tried again.
    pub(crate) fn install_failed(&self, model: &ModelName, passing: bool, why: &str) {
        let counter = if passing { &self.install_failures } else { &self.installs_refused };
        counter.fetch_add(1, Relaxed);
        tracing::warn!(%model, passing, why, "not installed");
    }

    /// How long answers took.
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// The counters now.
    pub(crate) fn read(&self) -> Counted {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Counted {
            answers: Answers {
                edge: get(&self.edge),
                cloud: get(&self.cloud),
                edge_degraded: get(&self.edge_degraded),
            },
            refusals: Refusals {
                invalid: get(&self.invalid),
                overloaded: get(&self.overloaded),
                deadline_exceeded: get(&self.deadline_exceeded),
                failed: get(&self.failed),
                forbidden: get(&self.forbidden),
            },
            link: LinkCounts {
                uplink_bytes: get(&self.uplink_bytes),
                downlink_bytes: get(&self.downlink_bytes),
                connects: get(&self.connects),
                connect_failures: get(&self.connect_failures),
                renewals: get(&self.renewals),
                renewal_failures: get(&self.renewal_failures),
            },
            installs: Installs {
                done: get(&self.installs),
                failed: get(&self.install_failures),
                refused: get(&self.installs_refused),
                loads: get(&self.loads),
                unloads: get(&self.unloads),
            },
        }
    }
}
