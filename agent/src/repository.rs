//! Who says what may be installed here. Without a repository, an operator whose key this device learned
//! at enrolment. With one, two have to: targets, whose keys are offline, and the director, for this very
//! device (`protocol::tuf`). A device that has adopted a root never goes back: neither an operator's
//! signature nor anything that the cloud can sign makes it install what targets do not name.
//!
//! What was admitted once is remembered, so that it answers again after a restart without a cloud.

use crate::clock::Clock;
use crate::state::{State, StateError};
use crate::uplink::{Uplink, UplinkError};
use ::link::connection::Connection;
use ::link::durable::aside;
use ::link::frames::{self, LinkError};
use protocol::id::{ContentHash, DeviceId, ModelName, Variant, Version};
use protocol::manifest::{InvalidManifest, InvalidSignature, Manifest, SignedManifest, SignerKey};
use protocol::problem::ProblemCode;
use protocol::release::{InvalidRelease, Release, SignedRelease};
use protocol::tuf::Refused;
use protocol::tuf::client::{Answer, Step, Wanted, trusted_root};
use protocol::tuf::install::{Admission, Asked, Endorsement, target_path};
use protocol::tuf::introduction::Introduction;
use protocol::tuf::metadata::{Lifetime, ROOT, max_bytes};
use protocol::wire::{self, MetadataHeader, MetadataRequest};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a bundle is not admitted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepositoryError {
    #[error("refused by the repository")]
    Refused(#[from] Refused),
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    #[error(transparent)]
    Release(#[from] InvalidRelease),
    #[error("neither targets nor the director have named this bundle here")]
    NotAdmitted,
    #[error("the root that was introduced is another one")]
    OtherRoot,
    #[error("the cloud says nothing of the repository yet")]
    Untold,
    #[error("the repository cannot be reached")]
    Link(#[from] LinkError),
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error(transparent)]
    State(#[from] StateError),
}

/// What a repository needs.
pub(crate) struct Repository {
    pub(crate) state: Arc<State>,
    pub(crate) uplink: Uplink,
    pub(crate) clock: Arc<Clock>,
    pub(crate) device: DeviceId,
    pub(crate) operators: Vec<SignerKey>,
    /// What the cloud said last.
    pub(crate) told: Mutex<Option<wire::Repository>>,
    /// Lifetime over an update: two of them would undo each other's rollback protection.
    pub(crate) alone: tokio::sync::Mutex<()>,
}

impl Repository {
    /// What the cloud says of the repository now.
    pub(crate) fn hear(&self, told: Option<wire::Repository>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    /// What this device has of the repository, by role; nothing before it trusts a root.
    pub(crate) fn held(&self) -> Result<BTreeMap<String, Lifetime>, StateError> {
        let files = self.state.metadata()?.into_iter();
        let held =
            |(role, bytes): (String, Vec<u8>)| Lifetime::of(&role, &bytes).map(|h| (role, h));
        Ok(files.filter_map(held).collect())
    }

    fn told(&self) -> Option<wire::Repository> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The manifest of a bundle that may be installed here, as far as this device knows by itself.
    pub(crate) fn recall(&self, signed: &SignedManifest) -> Result<Manifest, RepositoryError> {
        if !self.state.has_root()? {
            return Ok(signed.verify(&self.operators)?);
        }
        if !self.state.is_admitted(signed.bundle())? {
            return Err(RepositoryError::NotAdmitted);
        }
        Ok(Manifest::from_json(signed.manifest.as_bytes())?)
    }

    /// The same for a release of the agent.
    pub(crate) fn recall_release(
        &self,
        signed: &SignedRelease,
    ) -> Result<Release, RepositoryError> {
        if !self.state.has_root()? {
            return Ok(signed.verify(&self.operators)?);
        }
        if !self.state.is_admitted(signed.id())? {
            return Err(RepositoryError::NotAdmitted);
        }
        Ok(signed.read()?)
    }

    /// Asks the repository whether a bundle may be installed, and remembers that. Where there is none,
    /// this leaves it to [`Repository::recall`].
    pub(crate) async fn admit(
        &self,
        (model, version): (&ModelName, Version),
        signed: &SignedManifest,
    ) -> Result<(), RepositoryError> {
        let path = target_path(model, version, Variant::Edge);
        self.admit_file(&path, signed.manifest.as_bytes()).await
    }

    /// The same for whatever stands at this path: a manifest, or a release of the agent.
    pub(crate) async fn admit_file(&self, path: &str, file: &[u8]) -> Result<(), RepositoryError> {
        let _alone = self.alone.lock().await;
        let told = self.told();
        if !self.state.has_root()? && !self.adopt(told.as_ref()).await? {
            return Ok(());
        }
        let told = told.ok_or(RepositoryError::Untold)?;
        let now_s = self.clock.now_s();
        let asked = Asked {
            device: &self.device,
            path,
            manifest: file,
            directed: &told.directed,
            seen: self.state.directed_seen()?,
        };
        let connection = self.uplink.bulk().await?;
        let mut admission = Admission::begin(self.state.metadata()?, asked, now_s)?;
        loop {
            match admission.poll()? {
                Step::Done => break,
                Step::Keep(kept) => aside(|| self.state.keep_metadata(&kept.role, &kept.bytes))?,
                Step::Fetch(wanted) => admission.handle(fetch(&connection, &wanted).await?)?,
            }
        }
        let directed = admission.finish()?;
        Ok(aside(|| self.state.admit(ContentHash::of(file), directed))?)
    }

    /// Whether a file that is for every device is what targets name; where there is no repository, whoever brought it
    /// must be believed by another word.
    pub(crate) async fn endorse(&self, path: &str, bytes: &[u8]) -> Result<(), RepositoryError> {
        let _alone = self.alone.lock().await;
        if !self.state.has_root()? && !self.adopt(self.told().as_ref()).await? {
            return Ok(());
        }
        let connection = self.uplink.bulk().await?;
        let now_s = self.clock.now_s();
        let mut endorsement = Endorsement::begin(self.state.metadata()?, path, now_s)?;
        loop {
            match endorsement.poll()? {
                Step::Done => return Ok(endorsement.finish(bytes)?),
                Step::Keep(kept) => aside(|| self.state.keep_metadata(&kept.role, &kept.bytes))?,
                Step::Fetch(wanted) => endorsement.handle(fetch(&connection, &wanted).await?)?,
            }
        }
    }

    /// Adopts the root that an operator whom this device trusts vouches for; whether there is one.
    async fn adopt(&self, told: Option<&wire::Repository>) -> Result<bool, RepositoryError> {
        let Some(told) = told.filter(|told| !told.introduction.is_empty()) else {
            return Ok(false);
        };
        let introduction = Introduction::from_json(&told.introduction)?;
        let introduced = match introduction.verify(&self.operators) {
            Ok(root) => root,
            Err(InvalidSignature::UnknownKey(key_id)) => {
                tracing::warn!(%key_id, "the fleet has a repository, introduced by a key unknown here");
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let connection = self.uplink.bulk().await?;
        let wanted = Wanted { role: ROOT.to_owned(), version: Some(1), max_bytes: max_bytes(ROOT) };
        let Answer::Found(root) = fetch(&connection, &wanted).await? else {
            return Err(Refused::Absent(ROOT.to_owned()).into());
        };
        if ContentHash::of(&root) != introduced {
            return Err(RepositoryError::OtherRoot);
        }
        trusted_root(&root)?;
        aside(|| self.state.adopt_root(&root))?;
        tracing::info!("from now on the fleet's repository says what is installed here");
        Ok(true)
    }
}

/// Fetches a file of metadata, of at most as many bytes as are wanted.
async fn fetch(connection: &Connection, wanted: &Wanted) -> Result<Answer, LinkError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    frames::send_last(&mut send, &MetadataRequest { name: wanted.file_name() }, []).await?;
    let header: MetadataHeader = frames::receive(&mut receive).await?;
    if !header.found {
        return Ok(Answer::Absent);
    }
    if header.size_bytes > wanted.max_bytes {
        receive.stop(ProblemCode::TooLarge);
        return Ok(Answer::Endless);
    }
    let pieces = frames::receive_raw(&mut receive, &[header.size_bytes]).await?;
    Ok(Answer::Found(pieces.concat()))
}
