//! Where the inference nodes are, as the control node said last; kept in a file, so that they are
//! found after a restart while the control node is away.

use super::CloudAddress;
use ::link::durable::{self, Access};
use protocol::id::{ContentHash, NodeId};
use protocol::limits::NODES_MAX;
use protocol::wire::DesiredState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub(crate) const LISTED_FILE: &str = "nodes.json";

/// Who can be asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) nodes: BTreeMap<NodeId, CloudAddress>,
    /// Whether the control node answers no deferrals itself.
    pub(super) nodes_only: bool,
}

/// The file: what one fleet's control node said.
#[derive(Serialize, Deserialize)]
struct File {
    ca_hash: ContentHash,
    nodes: BTreeMap<NodeId, String>,
    nodes_only: bool,
}

impl Listed {
    /// What a desired state says; an entry that this build cannot read is left out.
    pub(super) fn of(desired: &DesiredState) -> Self {
        let nodes = desired.nodes.iter().take(NODES_MAX);
        let nodes = nodes.filter_map(|n| Some((n.id.parse().ok()?, n.address.parse().ok()?)));
        Self { nodes: nodes.collect(), nodes_only: desired.nodes_only }
    }

    /// What was kept; nothing where that is of another fleet.
    pub(super) fn read(folder: &Path, ca_hash: ContentHash) -> io::Result<Self> {
        let bytes = match std::fs::read(folder.join(LISTED_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let file: File = serde_json::from_slice(&bytes)?;
        if file.ca_hash != ca_hash {
            return Ok(Self::default());
        }
        let nodes = file.nodes.into_iter().take(NODES_MAX);
        let nodes = nodes.filter_map(|(id, address)| Some((id, address.parse().ok()?)));
        Ok(Self { nodes: nodes.collect(), nodes_only: file.nodes_only })
    }

    pub(super) fn write(&self, folder: &Path, ca_hash: ContentHash) -> io::Result<()> {
        let nodes = self.nodes.iter().map(|(id, address)| (id.clone(), address.to_string()));
        let file = File { ca_hash, nodes: nodes.collect(), nodes_only: self.nodes_only };
        durable::write(&folder.join(LISTED_FILE), &serde_json::to_vec(&file)?, Access::Private)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::wire::InferenceNode;

    #[test]
    fn kept_for_its_own_fleet_and_without_what_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let entry = |id: &str, address: &str| InferenceNode {
            id: id.to_owned(),
            address: address.to_owned(),
        };
        let nodes =
            vec![entry("n-1", "127.0.0.1:1"), entry("", "127.0.0.1:1"), entry("n-2", "nowhere")];
        let listed = Listed::of(&DesiredState { nodes, nodes_only: true, ..Default::default() });
        assert_eq!(listed.nodes.len(), 1);
        let own = ContentHash::of(b"own");
        assert_eq!(Listed::read(folder.path(), own).unwrap(), Listed::default());
        listed.write(folder.path(), own).unwrap();
        assert_eq!(Listed::read(folder.path(), own).unwrap(), listed);
        let other = ContentHash::of(b"other");
        assert_eq!(Listed::read(folder.path(), other).unwrap(), Listed::default());
        std::fs::write(folder.path().join(LISTED_FILE), "{").unwrap();
        assert!(Listed::read(folder.path(), own).is_err());
    }
}
