//! Commands about models.

pub(crate) mod assign;
pub(crate) mod calibrate;
pub(crate) mod compress;
pub(crate) mod diff;
pub(crate) mod distill_edge;
pub(crate) mod evaluate;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod policy;
pub(crate) mod prune;
pub(crate) mod push;

use protocol::id::{ModelName, Variant, Version};
use serde::Deserialize;

use crate::client::Client;
use crate::output::{percent, short, size};

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
}

/// What [`Bundle::row`] shows.
const COLUMNS: [&str; 7] =
    ["model", "version", "variant", "bundle", "size", "threshold", "expected deferral"];

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
}

/// Every bundle that the cloud holds.
fn bundles(client: &Client) -> anyhow::Result<Vec<Bundle>> {
    Ok(serde_json::from_value(client.list("/v1/models", "models")?)?)
}
