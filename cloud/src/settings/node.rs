//! The part of one server among several nodes.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

use super::Objection;

/// What a server does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    #[default]
    All,
    /// Everything, but leaves deferrals to the inference nodes, where there are any.
    Control,
    /// Answers requests, and hears all else from a control node.
    Inference,
}

impl Role {
    /// `all`, `control` or `inference`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Control => "control",
            Self::Inference => "inference",
        }
    }
}

/// The part of one server among several nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// What it does.
    pub role: Role,
    /// For an inference node: the control node, as `HOST:PORT`.
    pub join: String,
    /// For an inference node: the one-time token with which it joins.
    pub token_file: PathBuf,
    /// For an inference node: where agents reach it; what it listens on when empty.
    pub advertise: String,
}

impl Node {
    pub(super) fn check(&self, found: &mut Vec<Objection>) {
        let is_inference = self.role == Role::Inference;
        if is_inference && self.join.is_empty() {
            let hint = "name it with --join HOST:PORT";
            found.push(Objection::new("node.join", "an inference node has no control node", hint));
        }
        if !is_inference && !self.join.is_empty() {
            let hint = "add --role inference, or leave it out";
            found.push(Objection::new("node.join", "only an inference node joins another", hint));
        }
        for (key, text) in [("node.join", &self.join), ("node.advertise", &self.advertise)] {
            if !text.is_empty() && split_address(text).is_none() {
                let error = format!("{text:?} is not HOST:PORT");
                found.push(Objection::new(key, error, "for example: cloud.example:8443"));
            }
        }
    }
}

/// `HOST` and `PORT` of `HOST:PORT`; an IPv6 address stands in brackets.
pub(crate) fn split_address(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port.parse().ok()?)).filter(|_| !host.is_empty())
}
