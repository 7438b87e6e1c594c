//! Files of bundles in fewer bytes, for devices that have the version before: made in the background when the first
//! of them asks, kept in a cache of bounded size, and served as blobs.
//!
//! A device never waits for one: while a delta is made it is told when to ask again, and may fetch the file itself
//! instead. What does not save a tenth is not kept; that, and what cannot be made, is not tried again while the server
//! runs.

use delta::{Source, Tensor};
use link::durable::{self, Access};
use models::onnx::places;
use protocol::id::ContentHash;
use protocol::limits::DELTAS_WAITING_MAX;
use serde::Serialize;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::blobs::Blobs;
use crate::events::Events;
use crate::settings;

mod cache;
use cache::Cache;
pub(crate) use cache::{Key, Made};

/// Smaller files are sent as they are.
const FILE_MIN_BYTES: u64 = 4 << 10;
/// When to ask again for a delta that is being made.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What a device is told that asks for a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It is here.
    Made(Key, Made),
    /// It is being made.
    AskAgain(Duration),
    /// There is none.
    None,
}

/// How much the cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Deltas.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Deltas that are here, or on their way.
pub struct Deltas {
    folder: PathBuf,
    blobs: Blobs,
    file_max_bytes: u64,
    cache: Mutex<Cache>,
    jobs: SyncSender<Key>,
}

impl Deltas {
    /// Those of an earlier process, and a thread that makes further ones until this is dropped.
    ///
    /// # Errors
    /// The folder's own.
    pub(crate) fn open(
        folder: PathBuf,
        blobs: Blobs,
        settings: &settings::Blobs,
        events: Arc<Events>,
    ) -> io::Result<Arc<Self>> {
        durable::sweep(&folder)?;
        let mut cache = Cache::new(settings.delta_cache_bytes());
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            match cache::parse_name(&entry.file_name().to_string_lossy()) {
                Some((key, hash)) => {
                    let size_bytes = entry.metadata()?.len();
                    cache.insert(key, Made { hash, size_bytes });
                }
                None => std::fs::remove_file(entry.path())?,
            }
        }
        let (jobs, queue) = sync_channel(DELTAS_WAITING_MAX);
        let file_max_bytes = settings.delta_file_max_bytes();
        let deltas =
            Arc::new(Self { folder, blobs, file_max_bytes, cache: Mutex::new(cache), jobs });
        let weak = Arc::downgrade(&deltas);
        let thread = std::thread::Builder::new().name("deltas".to_owned());
        thread.spawn(move || {
            give_way();
            for key in queue {
                let Some(deltas) = weak.upgrade() else { return };
                deltas.make(key, &events);
            }
        })?;
        Ok(deltas)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is of a file of this length from the first of these bases that are here, or by itself.
    pub(crate) fn offer(
        &self,
        target: ContentHash,
        size_bytes: u64,
        bases: &[ContentHash],
    ) -> Offer {
        if !(FILE_MIN_BYTES..=self.file_max_bytes).contains(&size_bytes) {
            return Offer::None;
        }
        let fits = |size: u64| size <= self.file_max_bytes;
        let is_here = |base: &&ContentHash| matches!(self.blobs.size_bytes(**base), Ok(Some(size)) if fits(size));
        let from_base = bases.iter().find(is_here).map(|base| Key { target, base: Some(*base) });
        let packed = Key { target, base: None };
        let mut offers = from_base.into_iter().chain([packed]).map(|key| self.offer_one(key));
        offers.find(|offer| *offer != Offer::None).unwrap_or(Offer::None)
    }

    fn offer_one(&self, key: Key) -> Offer {
        let mut cache = self.cache();
        if let Some(made) = cache.get(&key) {
            return Offer::Made(key, made);
        }
        if !cache.may_begin(key) {
            return if cache.is_under_way(&key) { Offer::AskAgain(ASK_AGAIN) } else { Offer::None };
        }
        match self.jobs.try_send(key) {
            Ok(()) => Offer::AskAgain(ASK_AGAIN),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                cache.end(key);
                Offer::None
            }
        }
    }

    /// Where the delta of this name lies, how long it is, and which file it makes.
    pub(crate) fn find(&self, hash: ContentHash) -> Option<(PathBuf, u64, ContentHash)> {
        let (key, made) = self.cache().find(hash)?;
        Some((self.path(key, made.hash), made.size_bytes, key.target))
    }

    /// Those whose file is no longer wanted go.
    pub(crate) fn retain(&self, is_wanted: impl Fn(ContentHash) -> bool) {
        let gone = self.cache().retain(|key| is_wanted(key.target));
        self.remove(gone);
    }

    /// How much there is.
    pub fn held(&self) -> Held {
        self.cache().held()
    }

    fn path(&self, key: Key, hash: ContentHash) -> PathBuf {
        self.folder.join(cache::name(key, hash))
    }

    fn remove(&self, gone: Vec<(Key, ContentHash)>) {
        for (key, hash) in gone {
            // One that cannot be removed now is found again at the next start.
            let _ = std::fs::remove_file(self.path(key, hash));
        }
    }

    fn make(&self, key: Key, events: &Events) {
        let begin = Instant::now();
        match self.encode(key) {
            Ok((made, of)) if made.len() as u64 <= of - of / 10 => {
                let hash = ContentHash::of(&made);
                let size_bytes = made.len() as u64;
                match durable::write(&self.path(key, hash), &made, Access::Private) {
                    Ok(()) => {
                        events.delta_made(&key, size_bytes, of, begin.elapsed());
                        let gone = self.cache().insert(key, Made { hash, size_bytes });
                        self.remove(gone);
                    }
                    Err(error) => {
                        events.delta_not_made(&key, &error.to_string());
                        self.cache().end(key);
                    }
                }
            }
            Ok((made, of)) => {
                events.delta_useless(&key, made.len() as u64, of);
                self.cache().give_up(key);
            }
            Err(error) => {
                events.delta_not_made(&key, &protocol::problem::chain(&error));
                self.cache().give_up(key);
            }
        }
    }

    /// The delta, and the length of what it makes.
    fn encode(&self, key: Key) -> Result<(Vec<u8>, u64), delta::DeltaError> {
        let new = self.read(key.target)?;
        let old = key.base.map(|base| self.read(base)).transpose()?;
        let old = old.as_ref().map(|(bytes, tensors)| Source { bytes, tensors });
        let delta = delta::encode(old, Source { bytes: &new.0, tensors: &new.1 })?;
        Ok((delta, new.0.len() as u64))
    }

    fn read(&self, blob: ContentHash) -> io::Result<(bytes::Bytes, Vec<Tensor>)> {
        let bytes: bytes::Bytes = std::fs::read(self.blobs.path(blob))?.into();
        if ContentHash::of(&bytes) != blob {
            return Err(io::Error::other("the blob is damaged"));
        }
        let tensors = places::tensors(&bytes).unwrap_or_default(); // of a file that is no model, none
        Ok((bytes, tensors))
    }
}

/// Answers go before deltas.
fn give_way() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10); // of this thread alone, on Linux
}
