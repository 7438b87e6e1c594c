//! The real [`Graph`]: what `cargo metadata` resolves for the workspace, for all platforms.

use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Node};

use super::graph::{Graph, Kind};

/// Why the workspace's graph could not be read.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Cargo failed; most often because packages for other platforms are not on this machine yet.
    #[error(
        "`cargo metadata` failed for {manifest}; without a network, run `cargo fetch` once before"
    )]
    Cargo {
        /// The manifest that was asked for.
        manifest: PathBuf,
        /// What cargo said.
        source: Box<cargo_metadata::Error>,
    },
    /// Cargo answered without resolving anything.
    #[error("`cargo metadata` resolved nothing for {manifest}")]
    Unresolved {
        /// The manifest that was asked for.
        manifest: PathBuf,
    },
}

/// The graph of the workspace whose root is the folder `root`.
///
/// # Errors
/// When cargo fails or answers without a resolved graph.
pub fn workspace_graph(root: &Path) -> Result<Graph, MetadataError> {
    let manifest = root.join("Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(&manifest).exec().map_err(|source| {
        MetadataError::Cargo { manifest: manifest.clone(), source: Box::new(source) }
    })?;
    let nodes = metadata.resolve.as_ref().map(|resolve| resolve.nodes.as_slice());
    let nodes = nodes.ok_or(MetadataError::Unresolved { manifest })?;
    Ok(graph(&metadata, nodes))
}

fn graph(metadata: &Metadata, nodes: &[Node]) -> Graph {
    let mut graph = Graph::default();
    for package in &metadata.packages {
        graph.add(
            &package.id.repr,
            package.name.as_str(),
            metadata.workspace_members.contains(&package.id),
        );
    }
    for node in nodes {
        for dep in &node.deps {
            for kind in dep.dep_kinds.iter().filter_map(|info| kind(info.kind)) {
                graph.import(&node.id.repr, &dep.pkg.repr, kind);
            }
        }
    }
    graph
}

fn kind(kind: DependencyKind) -> Option<Kind> {
    match kind {
        DependencyKind::Normal => Some(Kind::Normal),
        DependencyKind::Build => Some(Kind::Build),
        DependencyKind::Development => Some(Kind::Dev),
        _ => None,
    }
}
