//! The files of the cloud variants: fetched from the control node, checked by their hashes, and loaded
//! before they are known here, as a push is on the control node.

use futures_util::stream;
use link::connection::{Connection, RecvStream};
use link::frames::{self, LinkError};
use protocol::id::{ContentHash, Variant};
use protocol::manifest::{Manifest, SignedManifest};
use protocol::wire::{BlobHeader, BlobRequest};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

use super::enrol::JoinError;
use crate::blobs::{BlobError, Blobs};
use crate::serving::ServeError;
use crate::state::Cloud;
use crate::store::Store;
use crate::store::models::BundleRecord;

/// What could not be fetched or loaded is tried again after this.
const PAUSE: Duration = Duration::from_secs(5);
/// Read from a stream at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Why a variant is not here.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("the control node has {there} bytes of a file that should have {wanted}")]
    Size { wanted: u64, there: u64 },
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Which variants are here, and how many are not.
#[derive(Debug, Default)]
pub(super) struct Models {
    here: Mutex<BTreeSet<ContentHash>>,
    missing: AtomicU64,
    /// Rung when there may be something to fetch.
    pub(super) wanted: Notify,
}

/// Whether all files of a bundle are here.
pub(super) fn is_whole(blobs: &Blobs, signed: &SignedManifest) -> bool {
    let Ok(manifest) = Manifest::from_json(signed.manifest.as_bytes()) else { return false };
    let is_here = |hash| matches!(blobs.size_bytes(hash), Ok(Some(_)));
    manifest.files.values().all(|file| is_here(file.sha256))
}

impl Models {
    /// These are here already.
    pub(super) fn new(here: BTreeSet<ContentHash>) -> Self {
        Self { here: Mutex::new(here), ..Self::default() }
    }

    /// How many variants are not here yet.
    pub(super) fn missing(&self) -> u64 {
        self.missing.load(Relaxed)
    }

    /// Fetches what is missing, now and whenever something is. `done` is rung after each round.
    pub(super) async fn keep(
        &self,
        cloud: &Arc<Cloud>,
        connection: &Connection,
        done: &Notify,
    ) -> Result<(), JoinError> {
        loop {
            self.wanted.notified().await;
            while self.fetch_all(cloud, connection).await? > 0 {
                done.notify_one();
                tokio::time::sleep(PAUSE).await;
            }
            done.notify_one();
        }
    }

    /// One round; how many are still missing.
    async fn fetch_all(
        &self,
        cloud: &Arc<Cloud>,
        connection: &Connection,
    ) -> Result<u64, JoinError> {
        let mut wanted = cloud.db.call(Store::bundles).await?;
        wanted.retain(|record| record.variant == Variant::Cloud && !self.has(record.bundle));
        self.missing.store(wanted.len() as u64, Relaxed);
        for record in wanted {
            match fetch(cloud, connection, &record).await {
                Ok(()) => {
                    self.here.lock().unwrap_or_else(PoisonError::into_inner).insert(record.bundle);
                    self.missing.fetch_sub(1, Relaxed);
                }
                Err(FetchError::Link(LinkError::Connection(ended))) => return Err(ended.into()),
                Err(error) => {
                    let name = format!("{}@{}", record.model, record.version);
                    cloud.events.model_missing(&name, &protocol::problem::chain(&error));
                }
            }
        }
        for (model, policy) in cloud.db.call(Store::policies).await? {
            cloud.serving.set_policy(&model, policy);
        }
        Ok(self.missing())
    }

    fn has(&self, bundle: ContentHash) -> bool {
        self.here.lock().unwrap_or_else(PoisonError::into_inner).contains(&bundle)
    }
}

async fn fetch(
    cloud: &Arc<Cloud>,
    connection: &Connection,
    record: &BundleRecord,
) -> Result<(), FetchError> {
    let manifest = Manifest::from_json(record.signed.manifest.as_bytes());
    let manifest = manifest.map_err(ServeError::from)?;
    for file in manifest.files.values() {
        let here = cloud.blobs.size_bytes(file.sha256).map_err(BlobError::from)?;
        if here != Some(file.size_bytes) {
            fetch_blob(cloud, connection, file.sha256, file.size_bytes).await?;
        }
    }
    if !cloud.serving.can_run() {
        return Ok(cloud.serving.add(&record.signed, None)?);
    }
    let loaded = match cloud.serving.load(record.bundle, manifest).await {
        Ok(loaded) => Some(loaded),
        Err(ServeError::NoRoom(_)) => None, // it is loaded when it is asked
        Err(error) => return Err(error.into()),
    };
    Ok(cloud.serving.add(&record.signed, loaded)?)
}

async fn fetch_blob(
    cloud: &Cloud,
    connection: &Connection,
    hash: ContentHash,
    wanted: u64,
) -> Result<(), FetchError> {
    let (mut send, mut receive) = connection.open_bi().await.map_err(LinkError::from)?;
    let request = BlobRequest { sha256: hash.to_string(), ..Default::default() };
    frames::send_last(&mut send, &request, []).await?;
    let header: BlobHeader = frames::receive(&mut receive).await?;
    if header.size_bytes != wanted {
        return Err(FetchError::Size { wanted, there: header.size_bytes });
    }
    cloud.blobs.receive(hash, chunks(receive)).await?;
    Ok(())
}

fn chunks(
    receive: RecvStream,
) -> impl futures_util::Stream<Item = Result<bytes::Bytes, LinkError>> {
    stream::try_unfold(receive, async |mut receive| {
        let chunk = receive.read_chunk(PIECE_BYTES).await?;
        Ok(chunk.map(|chunk| (chunk, receive)))
    })
}
