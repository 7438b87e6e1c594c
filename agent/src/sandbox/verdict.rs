//! What goes into the child and what comes out of it. Both ends are one program, so the shape may
//! change freely; but what comes out was written beside a model that nobody trusts, so it is bounded
//! and typed, and nothing but a person's eyes ever acts on its words.

use confine::{Confinement, Limits};
use models::probing::Batching;
use protocol::manifest::Manifest;
use protocol::measurement::Timed;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the child is to do, as JSON on its stdin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// ONNX Runtime.
    pub(crate) library: PathBuf,
    pub(crate) work: Work,
    pub(crate) limits: Limits,
    /// Refuse to try anything where the system cannot confine in full.
    pub(crate) require_full: bool,
}

/// What is wanted of a child.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Work {
    /// Nothing but the confinement itself.
    Confine,
    /// Whether a bundle may answer.
    Prove(Box<Trial>),
    /// How long models take that will not answer.
    Measure(Course),
}

impl Work {
    /// What the child must be able to read, beside the runtime.
    pub(crate) fn folder(&self) -> Option<&Path> {
        match self {
            Self::Confine => None,
            Self::Prove(trial) => Some(&trial.folder),
            Self::Measure(course) => Some(&course.folder),
        }
    }
}

/// Models that run in turn, all of them on the same inputs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Course {
    pub(crate) folder: PathBuf,
    /// Names of ONNX files in it; the first is the yardstick.
    pub(crate) models: Vec<String>,
    /// The name of a `ModelInferRequest` in it.
    pub(crate) inputs: String,
    pub(crate) threads: usize,
    /// How long they may run, all together.
    pub(crate) time: Duration,
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
    Timing,
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
            Self::Timing => "while it was timed",
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
    /// The models of a course ran, or not, in its order.
    Timed(Timing),
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
            Self::Timed(timing) => timing.models.iter_mut().for_each(|model| {
                if let Timed::Failed(why) = model {
                    *why = plain(why);
                }
            }),
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

/// How long models took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timing {
    pub(crate) models: Vec<Timed>,
    /// The most that the child held in memory, with all of them; where the system tells.
    pub(crate) peak_memory_bytes: Option<u64>,
}

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
    /// The inputs of a course are none, or its first model does not run, so there is no yardstick.
    Course,
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
