//! Whom the cloud named, and where they are; kept in a file.

use ::link::durable::{self, Access};
use protocol::id::{ContentHash, DeviceId};
use protocol::limits::PEERS_MAX;
use protocol::wire::DesiredState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

pub(crate) const NAMED_FILE: &str = "peers.json";

/// By their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Named(pub(super) BTreeMap<DeviceId, SocketAddr>);

/// The file: what one fleet's cloud said.
#[derive(Serialize, Deserialize)]
struct File {
    ca_hash: ContentHash,
    peers: BTreeMap<DeviceId, SocketAddr>,
}

impl Named {
    /// What a desired state says; an entry that cannot be read is left out.
    pub(super) fn of(desired: &DesiredState) -> Self {
        let peers = desired.peers.iter().take(PEERS_MAX);
        let peers = peers.filter_map(|p| Some((p.device.parse().ok()?, p.address.parse().ok()?)));
        Self(peers.collect())
    }

    /// What was kept; nothing where that is of another fleet.
    pub(super) fn read(folder: &Path, ca_hash: ContentHash) -> io::Result<Self> {
        let bytes = match std::fs::read(folder.join(NAMED_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let file: File = serde_json::from_slice(&bytes)?;
        let is_own = file.ca_hash == ca_hash;
        Ok(Self(if is_own { file.peers } else { BTreeMap::new() }))
    }

    pub(super) fn write(&self, folder: &Path, ca_hash: ContentHash) -> io::Result<()> {
        let file = File { ca_hash, peers: self.0.clone() };
        durable::write(&folder.join(NAMED_FILE), &serde_json::to_vec(&file)?, Access::Private)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::wire::Peer;

    #[test]
    fn kept_for_its_own_fleet_and_without_what_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let peer = |device: &str, address: &str| Peer {
            device: device.to_owned(),
            address: address.to_owned(),
        };
        let peers = vec![peer("d-1", "10.0.0.1:1"), peer("", "10.0.0.1:1"), peer("d-2", "nowhere")];
        let named = Named::of(&DesiredState { peers, ..Default::default() });
        assert_eq!(named.0.len(), 1);
        let (own, other) = (ContentHash::of(b"own"), ContentHash::of(b"other"));
        assert_eq!(Named::read(folder.path(), own).unwrap(), Named::default());
        named.write(folder.path(), own).unwrap();
        assert_eq!(Named::read(folder.path(), own).unwrap(), named);
        assert_eq!(Named::read(folder.path(), other).unwrap(), Named::default());
    }
}
