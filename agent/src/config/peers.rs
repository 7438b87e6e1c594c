//! Whether chunks of models go to devices nearby, and come from them.

use super::ConfigError;
use edge::peers::UploadPolicy;
use protocol::id::SiteName;
use serde::Deserialize;
use std::net::SocketAddr;

/// The slowest that may be configured: whoever asks gives up a peer that is slower than a fourth of it.
const UPLOAD_MIN_BYTES_PER_S: u64 = 64 << 10;

/// Devices of one site, that carry chunks to each other.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Peers {
    /// Whether this device serves its site, and is served by it.
    pub(crate) enabled: bool,
    /// The site: devices of one tenant that name the same one are peers.
    pub(crate) site: SiteName,
    /// Where peers are served, over TCP.
    pub(crate) listen: SocketAddr,
    /// Where peers reach that, as `IP:PORT`; found out when empty.
    pub(crate) address: String,
    /// The fastest that one peer is served, in bytes per second; 0 for as fast as it goes.
    pub(crate) upload_bytes_per_s: u64,
    /// The most that peers are served in a day, in bytes; 0 for no limit. Counted anew after a restart.
    pub(crate) upload_bytes_per_day: u64,
    /// Answers to peers at a time.
    pub(crate) uploads: usize,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            enabled: false,
            site: SiteName::default(),
            listen: SocketAddr::from(([0, 0, 0, 0], 8444)),
            address: String::new(),
            upload_bytes_per_s: 0,
            upload_bytes_per_day: 0,
            uploads: 4,
        }
    }
}

impl Peers {
    pub(crate) fn policy(&self) -> UploadPolicy {
        UploadPolicy { bytes_per_day: self.upload_bytes_per_day, at_once: self.uploads }
    }

    /// Where peers reach this device, if that is said.
    pub(crate) fn told(&self) -> Option<SocketAddr> {
        self.address.parse().ok()
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !self.address.is_empty() && self.told().is_none() {
            return Err(ConfigError::Peers { field: "address", why: "is not IP:PORT" });
        }
        if (1..UPLOAD_MIN_BYTES_PER_S).contains(&self.upload_bytes_per_s) {
            let why = "is so slow that peers would give this device up; 65536 is the least";
            return Err(ConfigError::Peers { field: "upload_bytes_per_s", why });
        }
        Ok(())
    }
}
