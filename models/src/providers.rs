//! Execution providers: which accelerator runs a model, and why no other does.
//!
//! ONNX Runtime falls back to the CPU without a word: a provider that was compiled in may lack its
//! driver, one that opens may take none of the model's nodes, one that takes them may compute
//! something else, or be slower. So a provider counts only after [`choose`] has seen all of that
//! with this model on this machine. What was found is a [`Choice`], which can be kept and shown.

use std::fmt;
use std::str::FromStr;

use protocol::wire::inference::model_instance_group::Kind;
use serde::{Deserialize, Deserializer, Serialize};

mod choose;
mod device;
mod reason;

pub use choose::{ChooseError, SLOWER_AT_MOST, choose};
pub use device::{DriverAbsent, identity, nvidia_driver};
pub use reason::Reason;

/// Who computes a model's nodes.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// ONNX Runtime's own code, which is always there.
    #[default]
    Cpu,
    /// NVIDIA TensorRT.
    TensorRt,
    /// NVIDIA CUDA.
    Cuda,
    /// Intel OpenVINO.
    OpenVino,
    /// Apple CoreML.
    CoreMl,
    /// Microsoft DirectML.
    DirectMl,
    /// Qualcomm QNN.
    Qnn,
    /// XNNPACK: other code for the CPU.
    Xnnpack,
}

/// Every provider beside the CPU, in the order in which they are tried.
pub const ACCELERATORS: [Provider; 7] = [
    Provider::TensorRt,
    Provider::Cuda,
    Provider::OpenVino,
    Provider::CoreMl,
    Provider::DirectMl,
    Provider::Qnn,
    Provider::Xnnpack,
];

/// What kind of processor a provider computes on, in the words of the standard's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// The CPU.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// Whichever the provider itself chooses, or another kind.
    Auto,
}

impl Processor {
    /// The standard's own name for it.
    pub fn instance_kind(self) -> Kind {
        match self {
            Self::Cpu => Kind::Cpu,
            Self::Gpu => Kind::Gpu,
            Self::Auto => Kind::Auto,
        }
    }
}

impl Provider {
    /// The name, as configurations and reports have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::TensorRt => "tensorrt",
            Self::Cuda => "cuda",
            Self::OpenVino => "openvino",
            Self::CoreMl => "coreml",
            Self::DirectMl => "directml",
            Self::Qnn => "qnn",
            Self::Xnnpack => "xnnpack",
        }
    }

    /// What it computes on.
    pub fn processor(self) -> Processor {
        match self {
            Self::Cpu | Self::Xnnpack => Processor::Cpu,
            Self::TensorRt | Self::Cuda | Self::DirectMl => Processor::Gpu,
            Self::OpenVino | Self::CoreMl | Self::Qnn => Processor::Auto,
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name that is no accelerator's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProvider {
    /// Not known here.
    #[error("there is no execution provider {name:?}; known are {}", known())]
    Unknown {
        /// The name.
        name: String,
    },
    /// The CPU needs no place in an order.
    #[error("leave \"cpu\" out: it is what remains when no other provider proves itself")]
    Cpu,
    /// Named twice.
    #[error("the execution provider {0:?} is named twice")]
    Twice(String),
}

fn known() -> String {
    ACCELERATORS.map(Provider::as_str).join(", ")
}

impl FromStr for Provider {
    type Err = InvalidProvider;

    fn from_str(name: &str) -> Result<Self, InvalidProvider> {
        if name == Self::Cpu.as_str() {
            return Err(InvalidProvider::Cpu);
        }
        let found = ACCELERATORS.into_iter().find(|provider| provider.as_str() == name);
        found.ok_or_else(|| InvalidProvider::Unknown { name: name.to_owned() })
    }
}

/// Which accelerators are tried, and in which order. The CPU comes after all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Order(Vec<Provider>);

impl Default for Order {
    fn default() -> Self {
        Self(ACCELERATORS.to_vec())
    }
}

impl Order {
    /// An order by names; none means the CPU alone.
    ///
    /// # Errors
    /// [`InvalidProvider`].
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, InvalidProvider> {
        let mut order = Vec::new();
        for name in names {
            let provider = name.as_ref().parse()?;
            if order.contains(&provider) {
                return Err(InvalidProvider::Twice(name.as_ref().to_owned()));
            }
            order.push(provider);
        }
        Ok(Self(order))
    }

    /// The providers, first choice first.
    pub fn providers(&self) -> &[Provider] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Order {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        Self::parse(&names).map_err(serde::de::Error::custom)
    }
}

/// How many of a model's nodes a provider computes. They are counted after the graph was
/// simplified, so there may be fewer than in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCount {
    /// Those that it took.
    pub taken: usize,
    /// All of them; the CPU computes the rest.
    pub all: usize,
}

/// How an accelerator's answers to the probes compare with the CPU's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Agreement {
    /// The same bits.
    Exact,
    /// Within the tolerance. What was calibrated on other bits is not verified on these.
    Within,
}

/// Median times of one request, pre- and post-processing included, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// On the provider.
    pub provider_us: u64,
    /// On the CPU.
    pub cpu_us: u64,
}

/// A provider that is not used, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PassedOver {
    /// The provider.
    pub provider: Provider,
    /// Why.
    pub reason: Reason,
}

/// Who computes a model on this machine, and what speaks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The provider.
    pub provider: Provider,
    /// What it took; absent for the CPU, which takes all.
    pub nodes: Option<NodeCount>,
    /// How its answers compare with the CPU's.
    pub probes: Agreement,
    /// How fast it is; absent where nothing was there to be compared with the CPU.
    pub timing: Option<Timing>,
    /// All others that were wanted, in their order.
    pub passed_over: Vec<PassedOver>,
}

impl Choice {
    /// The CPU, because of all others something was found.
    pub fn cpu(passed_over: Vec<PassedOver>) -> Self {
        let (provider, probes) = (Provider::Cpu, Agreement::Exact);
        Self { provider, nodes: None, probes, timing: None, passed_over }
    }
}

#[cfg(test)]
mod tests;
