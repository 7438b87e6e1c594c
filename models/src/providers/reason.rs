//! Why a provider is not used, for people and for machines.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DriverAbsent, Provider};

/// Why a provider is not used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reason {
    /// Another one comes before it and is used.
    Later {
        /// That one.
        used: Provider,
    },
    /// This build of the library does not have it.
    NotBuiltIn,
    /// The system has no driver for it.
    DriverAbsent {
        /// What was looked for.
        looked_for: String,
    },
    /// The program ended while it was tried, more than once.
    EndsTheProgram {
        /// How often.
        times: u32,
    },
    /// No session opens on it.
    DoesNotOpen {
        /// What the library said.
        message: String,
    },
    /// A session opens, and runs on the CPU all the same.
    TookNoNode {
        /// How many there are.
        all: usize,
    },
    /// The library does not tell where the model runs, so it cannot be known.
    Untold,
    /// It cannot answer a probe.
    Fails {
        /// Which, from 0.
        probe: usize,
        /// What it said.
        message: String,
    },
    /// It computes something else than the CPU.
    Differs {
        /// On which probe, from 0.
        probe: usize,
        /// In which output, and how.
        difference: String,
    },
    /// It takes an item for another class than the CPU.
    OtherClass {
        /// On which probe, from 0.
        probe: usize,
    },
    /// It gives the same, later.
    Slower {
        /// Its median, in microseconds.
        provider_us: u64,
        /// The CPU's.
        cpu_us: u64,
    },
}

impl From<DriverAbsent> for Reason {
    fn from(_: DriverAbsent) -> Self {
        Self::DriverAbsent { looked_for: DriverAbsent::looked_for() }
    }
}

impl Reason {
    /// The kind as a word, the same as in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Later { .. } => "later",
            Self::NotBuiltIn => "not-built-in",
            Self::DriverAbsent { .. } => "driver-absent",
            Self::EndsTheProgram { .. } => "ends-the-program",
            Self::DoesNotOpen { .. } => "does-not-open",
            Self::TookNoNode { .. } => "took-no-node",
            Self::Untold => "untold",
            Self::Fails { .. } => "fails",
            Self::Differs { .. } => "differs",
            Self::OtherClass { .. } => "other-class",
            Self::Slower { .. } => "slower",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later { used } => write!(f, "{used} comes first and is used"),
            Self::NotBuiltIn => f.write_str("this build of ONNX Runtime does not have it"),
            Self::DriverAbsent { looked_for } => {
                write!(f, "the driver is absent: there is none of {looked_for}")
            }
            Self::EndsTheProgram { times } => {
                write!(f, "the program ended {times} times while it was tried")
            }
            Self::DoesNotOpen { message } => write!(f, "no session opens on it: {message}"),
            Self::TookNoNode { all } => write!(f, "it takes none of the model's {all} nodes"),
            Self::Untold => f.write_str("the library does not tell what would run on it"),
            Self::Fails { probe, message } => write!(f, "it fails on probe {probe}: {message}"),
            Self::Differs { probe, difference } => {
                write!(f, "it computes probe {probe} differently from the CPU: {difference}")
            }
            Self::OtherClass { probe } => {
                write!(f, "it takes probe {probe} for another class than the CPU does")
            }
            Self::Slower { provider_us, cpu_us } => {
                let (own, cpu) = (Milliseconds(*provider_us), Milliseconds(*cpu_us));
                write!(f, "slower than the CPU: {own} against {cpu}")
            }
        }
    }
}

/// Microseconds, shown so that two figures differ where they differ.
struct Milliseconds(u64);

impl fmt::Display for Milliseconds {
    #[allow(clippy::cast_precision_loss)] // for people
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0 as f64 / 1000.0;
        if ms < 1.0 { write!(f, "{ms:.3} ms") } else { write!(f, "{ms:.1} ms") }
    }
}
