//! A file that is on its way, and what is known of it.

use super::{FetchError, PIECE_BYTES, disk};
use protocol::id::Hasher;
use protocol::transfer::{BlobRef, ChunkHashes, Download};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub(super) struct Partial {
    pub(super) download: Download,
    file: File,
    path: PathBuf,
    size_bytes: u64,
}

impl Partial {
    /// Takes up what an earlier attempt left, chunk by chunk. Blocks.
    pub(super) fn open(
        blob: BlobRef,
        hashes: Option<ChunkHashes>,
        path: &Path,
    ) -> Result<Self, FetchError> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(path);
        let (file, path) = (file.map_err(disk(path))?, path.to_owned());
        let download = Download::new(blob, hashes);
        let mut partial = Self { download, file, path, size_bytes: blob.size_bytes };
        partial.resume()?;
        Ok(partial)
    }

    fn resume(&mut self) -> Result<(), FetchError> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            // One byte beyond the end shows that there is too much.
            let room = usize::try_from(self.download.room().max(1)).unwrap_or(PIECE_BYTES);
            let piece = &mut piece[..room.min(PIECE_BYTES)];
            match self.file.read(piece).map_err(disk(&self.path))? {
                0 => return Ok(()),
                n => self.download.resume(&piece[..n])?,
            }
        }
    }

    /// Writes the next bytes where they belong; whether to go on reading.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<bool, FetchError> {
        let offset = self.download.offset();
        let goes_on = self.download.take(bytes)?;
        let seek = self.file.seek(SeekFrom::Start(offset));
        seek.and_then(|_| self.file.write_all(bytes)).map_err(disk(&self.path))?;
        Ok(goes_on)
    }

    /// Whether what lies on the disk now is what was signed. Blocks.
    pub(super) fn finish(mut self) -> Result<(), FetchError> {
        self.download.finish()?;
        let actual = self.hash().map_err(disk(&self.path))?;
        self.download.check(actual)?;
        self.file.sync_all().map_err(disk(&self.path))
    }

    fn hash(&mut self) -> std::io::Result<protocol::id::ContentHash> {
        self.file.set_len(self.size_bytes)?;
        self.file.rewind()?;
        let (mut hasher, mut piece) = (Hasher::default(), vec![0; PIECE_BYTES]);
        loop {
            match self.file.read(&mut piece)? {
                0 => return Ok(hasher.finish()),
                n => hasher.update(&piece[..n]),
            }
        }
    }
}
