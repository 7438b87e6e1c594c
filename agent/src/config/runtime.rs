//! How models run: for all of them, and for one by its name.

use models::backend::SessionOptions;
use models::memory::allowed_bytes;
use models::model::ModelOptions;
use models::providers::Order;
use protocol::id::ModelName;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How models run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Runtime {
    /// The ONNX Runtime library; found by itself when absent.
    pub(crate) library: Option<PathBuf>,
    /// Sessions per model. Two sessions of one thread beat one session of two.
    pub(crate) sessions: usize,
    /// Threads per session.
    pub(crate) threads: usize,
    /// Requests that may wait for one session; one more is refused at once.
    pub(crate) queue: usize,
    /// The execution providers that are tried, first choice first; none for the CPU alone.
    pub(crate) providers: Order,
    /// Whether idle threads spin. Spinning halves the throughput of whatever shares the core.
    pub(crate) spinning: bool,
    /// Whether memory is kept in an arena between runs: faster, and it holds the peak's memory.
    pub(crate) arena: bool,
    /// A model that takes more memory than this after its probes is refused; 0 for no limit.
    pub(crate) memory_limit_mb: u64,
    /// The most that CUDA's arena and TensorRT's workspace take per session; 0 for no limit.
    pub(crate) device_memory_limit_mb: u64,
    /// The memory of all models together; half of what this machine or its control group allows
    /// when absent, and 0 for no limit.
    pub(crate) memory_budget_mb: Option<u64>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            library: None,
            sessions: 1,
            threads: 1,
            queue: 64,
            providers: Order::default(),
            spinning: false,
            arena: true,
            memory_limit_mb: 0,
            device_memory_limit_mb: 0,
            memory_budget_mb: None,
        }
    }
}

/// What is different for one model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ModelRuntime {
    sessions: Option<usize>,
    threads: Option<usize>,
    queue: Option<usize>,
    providers: Option<Order>,
    spinning: Option<bool>,
    arena: Option<bool>,
    memory_limit_mb: Option<u64>,
    device_memory_limit_mb: Option<u64>,
}

/// The models that have something of their own.
pub(crate) type ModelRuntimes = BTreeMap<ModelName, ModelRuntime>;

/// How one model runs, all considered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terms {
    pub(crate) options: ModelOptions,
    pub(crate) order: Order,
    /// The most that it may take.
    pub(crate) memory_limit_bytes: Option<u64>,
}

impl Runtime {
    /// How a model runs that has, or has not, something of its own.
    pub(crate) fn terms(&self, own: Option<&ModelRuntime>) -> Terms {
        let none = ModelRuntime::default();
        let own = own.unwrap_or(&none);
        let limit = |mb: u64| (mb > 0).then(|| mb.saturating_mul(MB));
        let device = own.device_memory_limit_mb.unwrap_or(self.device_memory_limit_mb);
        let session = SessionOptions {
            threads: own.threads.unwrap_or(self.threads),
            spinning: own.spinning.unwrap_or(self.spinning),
            arena: own.arena.unwrap_or(self.arena),
            device_memory_bytes: limit(device),
            ..SessionOptions::default()
        };
        let options = ModelOptions {
            sessions: own.sessions.unwrap_or(self.sessions),
            queue_capacity: own.queue.unwrap_or(self.queue),
            session,
        };
        let order = own.providers.as_ref().unwrap_or(&self.providers).clone();
        let memory_limit_bytes = limit(own.memory_limit_mb.unwrap_or(self.memory_limit_mb));
        Terms { options, order, memory_limit_bytes }
    }

    /// The memory of all models together, in bytes; 0 for no limit.
    pub(crate) fn memory_budget_bytes(&self) -> u64 {
        match self.memory_budget_mb {
            Some(mb) => mb.saturating_mul(MB),
            None => allowed_bytes().map_or(0, |bytes| bytes / 2),
        }
    }
}

const MB: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_has_of_its_own_goes_before_what_all_have() {
        let runtime: Runtime =
            toml::from_str("threads = 2\nproviders = [\"cuda\"]\nmemory_limit_mb = 5").unwrap();
        let own: ModelRuntime =
            toml::from_str("threads = 3\nproviders = []\narena = false\nmemory_limit_mb = 0")
                .unwrap();
        let all = runtime.terms(None);
        assert_eq!((all.options.session.threads, all.options.queue_capacity), (2, 64));
        assert_eq!(all.order, Order::parse(&["cuda"]).unwrap());
        assert_eq!(all.memory_limit_bytes, Some(5_000_000));
        let terms = runtime.terms(Some(&own));
        assert_eq!((terms.options.session.threads, terms.options.session.arena), (3, false));
        assert!(terms.order.providers().is_empty() && terms.memory_limit_bytes.is_none());
    }

    #[test]
    fn typing_mistakes_are_errors_that_help() {
        let error = |text| toml::from_str::<Runtime>(text).unwrap_err().to_string();
        assert!(error("providers = [\"gpu\"]").contains("known are tensorrt, cuda"));
        assert!(error("provider = []").contains("unknown field"));
        assert!(toml::from_str::<ModelRuntime>("library = \"x\"").is_err());
    }

    #[test]
    fn the_budget_is_what_is_said_or_half_of_what_there_is() {
        let budget = |text| toml::from_str::<Runtime>(text).unwrap().memory_budget_bytes();
        assert_eq!(budget("memory_budget_mb = 3"), 3_000_000);
        assert_eq!(budget("memory_budget_mb = 0"), 0);
        assert_eq!(budget(""), allowed_bytes().map_or(0, |bytes| bytes / 2));
    }
}
