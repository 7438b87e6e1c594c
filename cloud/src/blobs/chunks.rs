//! The hashes of a blob's chunks: counted once, for many devices ask for the same ones.

use bytes::Bytes;
use protocol::id::ContentHash;
use protocol::limits::CHUNK_BYTES;
use protocol::transfer::ChunkHashes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Blobs whose hashes are remembered: at most 512 KiB each, a few hundred bytes for most.
const REMEMBERED_MAX: usize = 64;

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Mutex<BTreeMap<ContentHash, Bytes>>);

impl Chunks {
    /// Those of a blob that lies there, as they travel. Blocks.
    pub(crate) fn of(&self, blob: ContentHash, path: &Path) -> io::Result<Bytes> {
        let known =
            |this: &Self| this.0.lock().unwrap_or_else(PoisonError::into_inner).get(&blob).cloned();
        if let Some(hashes) = known(self) {
            return Ok(hashes);
        }
        let hashes = Bytes::from(count(File::open(path)?)?);
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.pop_first();
        }
        remembered.insert(blob, hashes.clone());
        Ok(hashes)
    }
}

fn count(mut file: File) -> io::Result<Vec<u8>> {
    let (mut hashes, mut chunk) = (Vec::new(), Vec::new());
    loop {
        chunk.clear();
        file.by_ref().take(CHUNK_BYTES).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(hashes);
        }
        hashes.extend(ChunkHashes::of(&chunk).to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        let bytes: Vec<u8> = (0..=255).cycle().take((3 << 18) - 5).collect();
        std::fs::write(&path, &bytes).unwrap();
        let (chunks, hash) = (Chunks::default(), ContentHash::of(&bytes));
        let counted = chunks.of(hash, &path).unwrap();
        assert_eq!(counted, ChunkHashes::of(&bytes).to_bytes());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(chunks.of(hash, &path).unwrap(), counted, "it is remembered");
    }
}
