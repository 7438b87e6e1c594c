//! What goes into the child and what comes out of it. Both ends are one program, so the shape may
//! change freely; but what comes out was written beside a model that nobody trusts, so it is bounded
//! and typed, and nothing but a person's eyes ever acts on its words.

use confine::{Confinement, Limits};
use models::probing::Batching;
use protocol::manifest::Manifest;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the child is to do, as JSON on its stdin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// ONNX Runtime.
    pub(crate) library: PathBuf,
    /// What to try; nothing but the confinement itself when absent.
    pub(crate) trial: Option<Trial>,
    pub(crate) limits: Limits,
    /// Refuse to try anything where the system cannot confine in full.
    pub(crate) require_full: bool,
}

/// A bundle, and how the agent would run it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) folder: PathBuf,
    /// Its signature is the agent's to verify, before.
    pub(crate) manifest: Manifest,
    pub(crate) sessions: usize,
    pub(crate) threads: usize,
    /// The execution provider to run on.
    pub(crate) provider: Provider,
}

/// Where models run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    Cpu,
}

/// One line of the child's stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// What begins now: what the child was at, if this is the last that is heard of it.
    Stage(Stage),
    /// The end.
    Verdict(Box<Verdict>),
}

/// What the child is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    Starting,
    Reading,
    Loading,
    WarmingUp,
    Probing,
    Batching,
    Unloading,
}

impl Stage {
    /// As in "it crashed ...".
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "before the model was read",
            Self::Reading => "while its files were read",
            Self::Loading => "while loading",
            Self::WarmingUp => "in its first run",
            Self::Probing => "while answering its probes",
            Self::Batching => "while answering probes in batches",
            Self::Unloading => "while unloading",
        }
    }
}

/// How the child's work ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// How far the child was confined.
    pub(crate) confinement: Confinement,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// There was nothing to try.
    Confined,
    /// The model does what its manifest says.
    Proven(Proof),
    Refused(Refusal),
}

impl Outcome {
    /// With words that are fit for a status: the runtime's quote the model.
    pub(super) fn in_plain_words(mut self) -> Self {
        match &mut self {
            Self::Refused(refusal) => refusal.why = plain(&refusal.why),
            Self::Proven(Proof { batching: Some(batching), .. }) => {
                batching.failure = batching.failure.as_deref().map(plain);
            }
            Self::Proven(_) | Self::Confined => {}
        }
        self
    }
}

/// One line, without control characters, and short.
pub(super) fn plain(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let short: String = line.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect();
    if short.len() < line.len() { short + "..." } else { short }
}

/// What is kept of a sentence, in characters.
const WORDS_MAX: usize = 300;

/// What is known of a model that has proven itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Proof {
    pub(crate) provider: Provider,
    /// From the first byte of the bundle to the first run.
    pub(crate) load_ms: u64,
    /// The first run.
    pub(crate) warm_up_ms: f64,
    /// Mean of the runs after it.
    pub(crate) run_ms: f64,
    /// How many probes it answered as expected.
    pub(crate) probes: usize,
    /// The largest `|a - b| / (1 + |b|)` of them.
    pub(crate) worst_difference: f64,
    /// Whether neighbours in a batch change an answer; absent for a model that takes no batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batching: Option<Batching>,
    /// The most that the child held in memory, the runtime with it; where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// Why a model was refused by a child that lived to say so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefusalKind {
    /// The child could not get ready: the runtime's library, a thread.
    Environment,
    /// This system confines less than the configuration asks for.
    Confinement,
    /// The files are not what was signed.
    Bundle,
    /// The model does not load.
    Model,
    /// The model does not answer its probes as it should.
    Probes,
    /// The model wanted more memory than it may have.
    Memory,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_made_plain() {
        assert_eq!(plain(" one\n\ttwo\u{1b}[31m \0"), "one two[31m ...");
        assert_eq!(plain("one two"), "one two");
        assert_eq!(plain(&"x".repeat(5000)), "x".repeat(WORDS_MAX) + "...");
    }
}
