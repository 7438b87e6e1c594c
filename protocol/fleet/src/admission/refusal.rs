//! Why a request was refused: what the caller is told, and what is counted.

use std::time::Duration;

use protocol::problem::{Problem, ProblemCode};

/// A request that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", .kind.message())]
pub struct Refused {
    /// Why.
    pub kind: RefusalKind,
    /// When to try again; zero where that would not help.
    pub retry_after: Duration,
}

/// The reasons, each counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalKind {
    /// The caller (device or key) asks more often than it may.
    CallerRate,
    /// The caller has as many requests in flight as it may.
    CallerConcurrency,
    /// The tenant asks more often than it may.
    TenantRate,
    /// The tenant has as many requests in flight as it may.
    TenantConcurrency,
    /// More identities are active than are remembered.
    TooManyIdentities,
    /// No such model here.
    UnknownModel,
    /// The tensors in flight fill their memory.
    TensorMemory,
    /// As much is in flight for the model as helps it, and there are more tenants than places.
    ModelBusy,
    /// As much is in flight for the model as helps it, and the tenant holds its share of that.
    TenantShare,
    /// The answer would come after the deadline.
    CannotMakeIt,
}

impl RefusalKind {
    /// All kinds, in the order of [`RefusalKind::index`].
    pub const ALL: [Self; 10] = [
        Self::CallerRate,
        Self::CallerConcurrency,
        Self::TenantRate,
        Self::TenantConcurrency,
        Self::TooManyIdentities,
        Self::UnknownModel,
        Self::TensorMemory,
        Self::ModelBusy,
        Self::TenantShare,
        Self::CannotMakeIt,
    ];

    /// Its place in [`RefusalKind::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// A word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallerRate => "caller_rate",
            Self::CallerConcurrency => "caller_concurrency",
            Self::TenantRate => "tenant_rate",
            Self::TenantConcurrency => "tenant_concurrency",
            Self::TooManyIdentities => "too_many_identities",
            Self::UnknownModel => "unknown_model",
            Self::TensorMemory => "tensor_memory",
            Self::ModelBusy => "model_busy",
            Self::TenantShare => "tenant_share",
            Self::CannotMakeIt => "cannot_make_it",
        }
    }

    fn code(self) -> ProblemCode {
        match self {
            Self::UnknownModel => ProblemCode::NotFound,
            Self::CannotMakeIt => ProblemCode::DeadlineExceeded,
            _ => ProblemCode::Overloaded,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::CallerRate => "this device or key asks more often than it may",
            Self::CallerConcurrency => "this device or key has as many requests open as it may",
            Self::TenantRate => "this tenant asks more often than it may",
            Self::TenantConcurrency => "this tenant has as many requests open as it may",
            Self::TooManyIdentities => "more devices and keys are active than this server follows",
            Self::UnknownModel => "this server does not serve the model",
            Self::TensorMemory => "the requests in progress fill the server's memory for tensors",
            Self::ModelBusy => "the model has as much to do as it can answer soon",
            Self::TenantShare => "this tenant uses its share of a busy model",
            Self::CannotMakeIt => "an answer would come after the deadline",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::CallerRate | Self::TenantRate => {
                "send at an even pace, or ask the operator for a higher rate"
            }
            Self::CallerConcurrency | Self::TenantConcurrency => {
                "wait for answers before sending more, or ask the operator for a higher limit"
            }
            Self::UnknownModel => "push it with: outrigger model push",
            Self::CannotMakeIt => "allow more time, or try again after retry_after_ms",
            _ => "try again after retry_after_ms",
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Problem::new(refused.kind.code(), refused.kind.message())
            .hint(refused.kind.hint())
            .retry_after_ms(to_ms(refused.retry_after))
    }
}

/// Rounded up: who comes back a moment early is refused again.
fn to_ms(time: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

/// What was taken and refused so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests taken.
    pub admitted: u64,
    refused: [u64; RefusalKind::ALL.len()],
}

impl Counts {
    /// Requests refused for this reason.
    pub fn refused(&self, kind: RefusalKind) -> u64 {
        self.refused[kind.index()]
    }

    /// Requests refused for any reason.
    pub fn refused_all(&self) -> u64 {
        self.refused.iter().sum()
    }

    pub(super) fn refuse(&mut self, kind: RefusalKind) {
        self.refused[kind.index()] += 1;
    }
}
