//! A blob from fewer bytes: the cloud is asked for a delta from what is here, the delta is fetched as a blob of its
//! own, and the file is made from both. Whatever goes wrong on that way, the bytes themselves are fetched instead.

use super::{FetchError, Incoming, PIECE_BYTES, disk};
use ::link::connection::Connection;
use ::link::durable;
use protocol::id::{ContentHash, Hasher};
use protocol::limits::DELTA_BASES_MAX;
use protocol::transfer::{BlobRef, TransferError};
use protocol::wire::{BlobForm, BlobHeader, BlobRequest, DeltaOffer};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a delta that is being made is waited for, before the bytes themselves are fetched.
const MAKING_PATIENCE: Duration = Duration::from_secs(120);
/// The longest between two questions whether it is made.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(5);

/// A file that is here, by its hash, from which another may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) hash: ContentHash,
    pub(crate) path: PathBuf,
}

/// A delta that the cloud has.
struct Offered {
    delta: BlobRef,
    /// None for a file that is only packed.
    base: Option<Base>,
}

/// Why a delta is of no use.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error(
        "the cloud offers a delta that cannot be read, of a base that was not named, or longer than the file"
    )]
    Offer,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Apply(#[from] delta::DeltaError),
}

impl Incoming {
    /// Whether the blob is in its place, made from a delta; where it is not, its bytes are to be fetched.
    ///
    /// # Errors
    /// What holds for the bytes themselves too: no link, or not now.
    pub(super) async fn fetch_delta(
        &self,
        connection: &Connection,
        blob: BlobRef,
        bases: &[Base],
        whole: &Path,
    ) -> Result<bool, FetchError> {
        if !self.gate.wants_deltas() {
            return Ok(false);
        }
        let result = match self.offered(connection, blob, bases).await {
            Ok(None) => return Ok(false),
            Ok(Some(offered)) => self.fetch_and_apply(connection, blob, offered, whole).await,
            Err(useless) => Err(useless),
        };
        match result {
            Ok(from_base) => {
                self.counters.delta_applied(from_base);
                Ok(true)
            }
            // The next attempt goes on where this one ended.
            Err(Useless::Fetch(
                error @ (FetchError::NotNow(_) | FetchError::Stalled(_) | FetchError::Link(_)),
            )) => Err(error),
            Err(useless) => {
                self.counters.delta_failed(&protocol::problem::chain(&useless));
                Ok(false)
            }
        }
    }

    /// What there is; asked again while it is being made.
    async fn offered(
        &self,
        connection: &Connection,
        blob: BlobRef,
        bases: &[Base],
    ) -> Result<Option<Offered>, Useless> {
        let named = bases.iter().take(DELTA_BASES_MAX);
        let ask = BlobRequest {
            sha256: blob.hash.to_string(),
            form: BlobForm::Delta.into(),
            bases: named.map(|base| base.hash.to_string()).collect(),
            ..Default::default()
        };
        let begin = Instant::now();
        loop {
            let (header, _) = self.ask(connection, &ask).await?;
            let BlobHeader { delta, retry_after_ms, .. } = &header;
            if header.form() != BlobForm::Delta {
                return Ok(None); // an older cloud; its bytes are not read
            }
            if let Some(offer) = delta {
                return Ok(Some(read(offer, blob, bases)?));
            }
            let after = Duration::from_millis((*retry_after_ms).into()).min(ASK_AGAIN_MAX);
            if after.is_zero() || begin.elapsed() + after > MAKING_PATIENCE {
                return Ok(None);
            }
            tokio::time::sleep(after).await;
        }
    }

    /// Whether it was made from a base.
    async fn fetch_and_apply(
        &self,
        connection: &Connection,
        blob: BlobRef,
        offered: Offered,
        whole: &Path,
    ) -> Result<bool, Useless> {
        let Offered { delta, base } = offered;
        let path = self.path(delta.hash, "");
        if !path.exists() {
            let _alone = self.alone(delta.hash).await;
            self.fetch_bytes(connection, delta, &path).await?;
        }
        let (making, from) = (self.path(blob.hash, ".made"), base.as_ref().map(|b| b.path.clone()));
        let (beside, own) = (making.clone(), path.clone());
        let apply = move || make(blob, &own, from.as_deref(), &beside);
        let made = tokio::task::spawn_blocking(apply).await;
        let made = made
            .unwrap_or_else(|panic| Err(delta::DeltaError::from(io::Error::other(panic)).into()));
        let _ = std::fs::remove_file(&path); // applied, or of no use
        if made.is_err() {
            let _ = std::fs::remove_file(&making); // what is left is swept
        }
        made?;
        durable::rename(&making, whole).map_err(disk(whole))?;
        self.counters.delta_saved(blob.size_bytes.saturating_sub(delta.size_bytes));
        Ok(base.is_some())
    }
}

/// What an offer says, as far as it can be believed: a delta is never longer than what it makes.
fn read(offer: &DeltaOffer, blob: BlobRef, bases: &[Base]) -> Result<Offered, Useless> {
    let hash = offer.sha256.parse().map_err(|_| Useless::Offer)?;
    let delta = BlobRef { hash, size_bytes: offer.size_bytes };
    let base = match offer.base.as_str() {
        "" => None,
        named => {
            let base = bases.iter().find(|base| base.hash.to_string() == named);
            Some(base.ok_or(Useless::Offer)?.clone())
        }
    };
    let is_shorter = delta.size_bytes < blob.size_bytes;
    is_shorter.then_some(Offered { delta, base }).ok_or(Useless::Offer)
}

/// Makes the file, and checks that it is the signed one.
fn make(blob: BlobRef, delta: &Path, base: Option<&Path>, to: &Path) -> Result<(), Useless> {
    let open = |path: &Path| File::open(path).map_err(disk(path));
    let delta = BufReader::with_capacity(PIECE_BYTES, open(delta)?);
    let file = File::create(to).map_err(disk(to))?;
    let out = BufWriter::with_capacity(PIECE_BYTES, file);
    let mut out = Hashing { out, hasher: Hasher::default() };
    match base {
        Some(base) => {
            let base = BufReader::with_capacity(PIECE_BYTES, open(base)?);
            delta::apply(delta, base, blob.size_bytes, &mut out)?;
        }
        None => delta::apply(delta, io::empty(), blob.size_bytes, &mut out)?,
    }
    let Hashing { out, hasher } = out;
    let file = out.into_inner().map_err(|error| disk(to)(error.into_error()))?;
    file.sync_all().map_err(disk(to))?;
    let (expected, actual) = (blob.hash, hasher.finish());
    if actual != expected {
        return Err(FetchError::from(TransferError::WrongHash { expected, actual }).into());
    }
    Ok(())
}

/// Writes, and hashes what it writes.
struct Hashing<W> {
    out: W,
    hasher: Hasher,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
