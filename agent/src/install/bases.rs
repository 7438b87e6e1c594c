//! What is here already of a bundle that is to be fetched: files that another version has too, and files of other
//! versions from which a delta may lead to its own.

use super::library::Kept;
use crate::program::hash;
use crate::uplink::blob::Base;
use models::bundle::MANIFEST_FILE as KEPT_FILE;
use protocol::id::{ContentHash, ModelName, Version};
use protocol::manifest::Manifest;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// An installed bundle, as its manifest has it.
struct Installed {
    folder: PathBuf,
    manifest: Manifest,
}

/// The bundles that are installed here.
pub(super) struct Here(Vec<Installed>);

impl Here {
    /// Reads the folder of bundles. One that cannot be read is of no use as a base, and no reason to stop.
    pub(super) fn read(bundles: &Path) -> Self {
        let entries = std::fs::read_dir(bundles).into_iter().flatten().flatten();
        let read = |folder: PathBuf| {
            let kept = std::fs::read(folder.join(KEPT_FILE)).ok()?;
            let kept: Kept = serde_json::from_slice(&kept).ok()?;
            let manifest = Manifest::from_json(kept.signed.manifest.as_bytes()).ok()?;
            Some(Installed { folder, manifest })
        };
        Self(entries.filter_map(|entry| read(entry.path())).collect())
    }

    /// The same file under another version.
    pub(super) fn same(&self, file: ContentHash) -> Option<PathBuf> {
        let files = self.0.iter().flat_map(|bundle| {
            bundle.manifest.files.iter().map(|(name, file)| (bundle.folder.join(name), file))
        });
        let mut same = files.filter(|(_, other)| other.sha256 == file).map(|(path, _)| path);
        let hash = |path: &Path| hash(&mut File::open(path)?);
        same.find(|path| hash(path).is_ok_and(|actual: ContentHash| actual == file))
    }

    /// Files of that name in other versions of the model, the newest first.
    pub(super) fn bases(&self, model: &ModelName, name: &str) -> Vec<Base> {
        let own = self.0.iter().filter(|bundle| bundle.manifest.model == *model);
        let mut found: Vec<(Version, Base)> = own
            .filter_map(|bundle| {
                let file = bundle.manifest.files.get(name)?;
                let base = Base { hash: file.sha256, path: bundle.folder.join(name) };
                Some((bundle.manifest.version, base))
            })
            .collect();
        found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        found.into_iter().map(|(_, base)| base).collect()
    }
}

/// A file of a whole bundle.
pub(crate) struct Served {
    pub(crate) path: PathBuf,
    /// As the manifest has it.
    pub(crate) size_bytes: u64,
}

/// The file of this hash in the folder of bundles. Its bytes are not looked at: who asks compares them. Blocks.
pub(crate) fn served(bundles: &Path, hash: ContentHash) -> Option<Served> {
    Here::read(bundles).0.iter().find_map(|bundle| {
        let mut files = bundle.manifest.files.iter();
        let (name, file) = files.find(|(_, file)| file.sha256 == hash)?;
        Some(Served { path: bundle.folder.join(name), size_bytes: file.size_bytes })
    })
}

/// Puts a file of another version into its place, without its bytes where the file system can.
pub(super) fn share(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to).or_else(|_| {
        std::fs::copy(from, to)?;
        File::open(to)?.sync_all()
    })
}
