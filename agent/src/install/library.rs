//! The bundles on this device: `bundles/<hash>/` holds a whole bundle with its signed manifest and
//! appears by one rename; `incoming/` holds what is on its way.

use super::bases::{Here, share};
use crate::counters::Counters;
use crate::peers::Peers;
use crate::uplink::Uplink;
use crate::uplink::blob::{FetchError, Incoming};
use crate::uplink::gate::Gate;
use ::link::durable::{self, Access};
use edge::update::Target;
use models::bundle::MANIFEST_FILE as KEPT_FILE;
use protocol::id::ContentHash;
use protocol::manifest::{Manifest, SignedManifest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is kept of a bundle beside its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    pub(crate) signed: SignedManifest,
    pub(crate) cloud_variant: bool,
}

/// Why a bundle is not here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibraryError {
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is damaged", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("the bundle cannot be kept")]
    Write(#[from] io::Error),
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

/// The folders.
pub(crate) struct Library {
    bundles: PathBuf,
    incoming: Arc<Incoming>,
    counters: Arc<Counters>,
}

impl Library {
    pub(crate) fn open(
        state_dir: &Path,
        through: (Arc<Gate>, Option<Arc<Peers>>),
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let bundles = state_dir.join("bundles");
        durable::create_private_folder(&bundles)?;
        let incoming = Incoming::new(state_dir.join("incoming"), through, counters.clone())?;
        Ok(Self { bundles, incoming: Arc::new(incoming), counters })
    }

    /// Where files are while they arrive.
    pub(crate) fn incoming(&self) -> Arc<Incoming> {
        self.incoming.clone()
    }

    /// Where a bundle is, or would be.
    pub(crate) fn folder(&self, bundle: ContentHash) -> PathBuf {
        self.bundles.join(bundle.to_string())
    }

    /// Removes every bundle but these, what an interrupted installation left, and downloads that nobody goes on with.
    pub(crate) fn sweep(&self, keep: &[Target]) -> io::Result<()> {
        self.incoming.sweep()?;
        let keep: BTreeSet<String> = keep.iter().map(|t| t.bundle.to_string()).collect();
        for entry in std::fs::read_dir(&self.bundles)? {
            let entry = entry?;
            if !keep.contains(entry.file_name().to_string_lossy().as_ref()) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }

    /// What was kept of a bundle.
    pub(crate) fn read(&self, bundle: ContentHash) -> Result<Kept, LibraryError> {
        let path = self.folder(bundle).join(KEPT_FILE);
        let bytes = std::fs::read(&path)
            .map_err(|source| LibraryError::Read { path: path.clone(), source })?;
        serde_json::from_slice(&bytes).map_err(|source| LibraryError::Damaged { path, source })
    }

    /// Fetches the files of a bundle and puts it into its place, whole.
    pub(crate) async fn fetch(
        &self,
        uplink: &Uplink,
        manifest: &Manifest,
        kept: &Kept,
    ) -> Result<(), LibraryError> {
        let bundle = kept.signed.bundle();
        let folder = self.folder(bundle);
        if folder.is_dir() {
            return Ok(()); // whole, because it appears by rename; its hashes are checked next
        }
        let staging = self.bundles.join(format!("{bundle}.staging"));
        durable::create_private_folder(&staging)?;
        let here = durable::aside(|| Here::read(&self.bundles));
        for (name, file) in &manifest.files {
            let place = staging.join(name);
            if place.exists() {
                continue;
            }
            if let Some(same) = durable::aside(|| here.same(file.sha256)) {
                durable::aside(|| share(&same, &place))?;
                self.counters.file_shared(file.size_bytes);
                continue;
            }
            let _alone = self.incoming.alone(file.sha256).await;
            let bases = here.bases(&manifest.model, name);
            let whole = self.incoming.fetch(uplink, (*file).into(), &bases).await?;
            durable::rename(&whole, &place)?;
        }
        let json = serde_json::to_vec(kept).expect("strings are always JSON");
        durable::write(&staging.join(KEPT_FILE), &json, Access::Private)?;
        Ok(durable::rename(&staging, &folder)?)
    }

    /// Throws a bundle away.
    pub(crate) fn remove(&self, bundle: ContentHash) {
        // What cannot be removed now is swept at the next start.
        let _ = std::fs::remove_dir_all(self.folder(bundle));
    }
}
