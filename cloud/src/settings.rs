//! What a person can set, in sections: each is a struct that its owner gets whole.
//!
//! A value is taken from the first of these that has it: a flag, the environment
//! (`OUTRIGGER_CLOUD_SECTION_KEY`), the file, the default ([`layers`]). Every setting has a default
//! that can be written down, so that `cloud/packaging/cloud.toml` shows all of them; an empty text
//! means none. Whatever does not exist is an error, so that a typing mistake is not a silent no; what
//! is wrong is a [`Finding`], with the place where it was said.

use link::otlp::{self, OtlpSettings};
use serde::{Deserialize, Serialize};

mod findings;
pub mod layers;
mod node;
mod oidc;
mod sections;
mod serving;

pub use findings::{Finding, Origin};
pub use layers::{Flag, Loaded, Sources};
pub(crate) use node::split_address;
pub use node::{Node, Role};
pub use oidc::Oidc;
pub use sections::{
    AccessLog, Blobs, Drain, Log, LogFormat, Metrics, Rollouts, Runtime, Server, Telemetry,
};
pub use serving::{Model, Models, Serving};

/// All sections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where it listens, and what it keeps.
    pub server: Server,
    /// The files of bundles.
    pub blobs: Blobs,
    /// What devices have recorded.
    pub telemetry: Telemetry,
    /// How versions reach devices in stages.
    pub rollouts: Rollouts,
    /// Its part among several nodes.
    pub node: Node,
    /// How models run.
    pub runtime: Runtime,
    /// How they are served.
    pub serving: Serving,
    /// How single ones are, where that is otherwise.
    pub models: Models,
    /// Where operators sign in.
    pub oidc: Oidc,
    /// How it ends.
    pub drain: Drain,
    /// What is logged.
    pub log: Log,
    /// A line for every request.
    pub access_log: AccessLog,
    /// Who may read figures without a key.
    pub metrics: Metrics,
    /// Which collector is told of all that.
    pub otlp: OtlpSettings,
}

/// A value that can be read, and makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// `section.key`.
    pub key: &'static str,
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub hint: String,
}

impl Objection {
    /// An objection to the value of a key.
    pub fn new(key: &'static str, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { key, error: error.into(), hint: hint.into() }
    }
}

impl Settings {
    /// What of it makes no sense.
    pub fn objections(&self) -> Vec<Objection> {
        let mut found = Vec::new();
        self.server.check(&mut found);
        self.rollouts.check(&mut found);
        self.node.check(&mut found);
        self.runtime.check(&mut found);
        self.serving.check(&self.models, &mut found);
        self.oidc.check(&mut found);
        self.log.check(&mut found);
        self.metrics.check(&mut found);
        if let Err(otlp::Objection { key, error, hint }) = self.otlp.check() {
            let key = if key == "sample" { "otlp.sample" } else { "otlp.endpoint" };
            found.push(Objection::new(key, error, hint));
        }
        found
    }
}
