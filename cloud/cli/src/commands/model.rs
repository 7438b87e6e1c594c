//! Commands about models.

pub(crate) mod assign;
pub(crate) mod calibrate;
pub(crate) mod compress;
pub(crate) mod diff;
pub(crate) mod distill_edge;
pub(crate) mod evaluate;
pub(crate) mod float16;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod policy;
pub(crate) mod prune;
pub(crate) mod push;
pub(crate) mod sign;
pub(crate) mod verify;

use anyhow::Context;
use models::authoring::dataset::Dataset;
use protocol::id::{ModelName, Variant, Version};
use serde::Deserialize;
use std::path::Path;

use crate::client::Client;
use crate::output::{exact_percent, percent, short, size};

/// Data that a command names, with the name in the error.
pub(crate) fn dataset(path: &Path) -> anyhow::Result<Dataset> {
    Dataset::open(path).with_context(|| format!("cannot read the data {}", path.display()))
}

/// A bundle as the API lists it.
#[derive(Debug, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) model: ModelName,
    pub(crate) version: Version,
    pub(crate) variant: Variant,
    bundle: String,
    size_bytes: u64,
    threshold: Option<f64>,
    deferral_rate: Option<f64>,
    risk: Option<f64>,
    memory: Option<String>,
    memory_bytes: Option<u64>,
}

/// What [`Bundle::row`] shows.
const COLUMNS: [&str; 7] =
    ["model", "version", "variant", "bundle", "size", "threshold", "expected deferral"];
/// What [`Bundle::listed_row`] shows.
const LISTED_COLUMNS: [&str; 10] = [
    "model",
    "version",
    "variant",
    "bundle",
    "size",
    "threshold",
    "expected deferral",
    "risk",
    "in memory",
    "takes",
];

impl Bundle {
    fn row(&self) -> Vec<String> {
        vec![
            self.model.to_string(),
            self.version.to_string(),
            self.variant.to_string(),
            short(&self.bundle),
            size(self.size_bytes),
            self.threshold.map_or_else(|| "-".to_owned(), |t| format!("{t:.4}")),
            percent(self.deferral_rate),
        ]
    }

    /// The same, what is promised of accepted answers, and whether the cloud has it in memory.
    fn listed_row(&self) -> Vec<String> {
        let absent = || "-".to_owned();
        let risk = match (self.threshold, self.risk) {
            (None, _) => absent(),
            (Some(_), None) => "unverified".to_owned(),
            (Some(_), Some(risk)) => exact_percent(risk),
        };
        let memory = self.memory.clone().unwrap_or_else(absent);
        [self.row(), vec![risk, memory, self.memory_bytes.map_or_else(absent, size)]].concat()
    }
}

/// Every bundle that the cloud holds.
fn bundles(client: &Client) -> anyhow::Result<Vec<Bundle>> {
    Ok(serde_json::from_value(client.list("/v1/models", "models")?)?)
}
