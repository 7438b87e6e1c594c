//! Commands about the devices' own program.

pub(crate) mod assign;
pub(crate) mod push;
pub(crate) mod status;

use protocol::id::DeviceId;
use protocol::release::{ReleaseVersion, SignedRelease};
use serde::Deserialize;

use crate::client::Client;

/// What the cloud holds of it.
#[derive(Deserialize)]
pub(crate) struct Releases {
    pub(crate) releases: Vec<Build>,
    assignments: Vec<Assignment>,
}

/// One build.
#[derive(Deserialize)]
pub(crate) struct Build {
    version: ReleaseVersion,
    target: String,
    size_bytes: u64,
    pub(crate) signed: SignedRelease,
}

/// A version for one device, or for all.
#[derive(Deserialize)]
struct Assignment {
    device: Option<DeviceId>,
    version: ReleaseVersion,
}

impl Releases {
    /// Asks the cloud.
    pub(crate) fn get(client: &Client) -> anyhow::Result<Self> {
        client.get("/v1/agent/releases")
    }
}
