//! Resumable transfer of a blob: what to ask for next, and whether what came is what was signed.
//!
//! A blob is signed by its hash and length. In between stand the hashes of its chunks, as the sender knows them
//! ([`ChunkHashes`]): they are not signed, so they prove nothing, but they find damage where it is. A chunk that
//! is damaged, on the way or on the disk, is fetched again by itself; what was fetched before a crash is not. In
//! the end the signed hash decides, and where it says no while every chunk says yes, the sender's word was worth
//! nothing, and neither is anything that came.
//!
//! The caller owns the partial file; this machine owns hashes, offsets and the rules: never more bytes than the
//! signed length, never a finish without the signed hash, never the same chunk over and over.

use std::ops::Range;

use crate::id::{ContentHash, Hasher};
use crate::limits::CHUNK_BYTES;

/// [`CHUNK_BYTES`], in memory.
const CHUNK_LENGTH: usize = 256 << 10;
const _: () = assert!(CHUNK_LENGTH as u64 == CHUNK_BYTES);
/// How often one download takes a chunk that is not what its hash says, before it ends with that.
const DAMAGED_MAX: u32 = 4;

/// A blob as the signed manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRef {
    /// SHA-256 of its bytes.
    pub hash: ContentHash,
    /// Its length.
    pub size_bytes: u64,
}

impl BlobRef {
    /// How many chunks it has.
    pub fn chunks(&self) -> u64 {
        self.size_bytes.div_ceil(CHUNK_BYTES)
    }
}

/// Why a download cannot go on. After [`TransferError::Incomplete`] and [`TransferError::DamagedChunk`] the
/// partial file is still of use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// The sender announces another length than the signed one.
    #[error("the sender says {announced} bytes, the signed manifest says {expected}")]
    WrongSize {
        /// What the manifest says.
        expected: u64,
        /// What the sender says.
        announced: u64,
    },
    /// The sender continues elsewhere than asked.
    #[error("asked to continue at byte {expected}, the sender starts at {announced}")]
    WrongOffset {
        /// What was asked.
        expected: u64,
        /// What the sender says.
        announced: u64,
    },
    /// More bytes than the signed length.
    #[error("more than the {expected} bytes that the signed manifest allows")]
    TooLong {
        /// What the manifest allows.
        expected: u64,
    },
    /// The stream ended early; what arrived can be kept.
    #[error("the stream ended at byte {have} of {expected}")]
    Incomplete {
        /// Bytes so far.
        have: u64,
        /// What the manifest says.
        expected: u64,
    },
    /// Chunks came that are not what the sender says they are; the others can be kept.
    #[error("chunk {chunk} is damaged on its way, again and again")]
    DamagedChunk {
        /// The last of them.
        chunk: u64,
    },
    /// All bytes arrived and are not the signed ones.
    #[error("the bytes do not have the signed hash {expected}, they have {actual}")]
    WrongHash {
        /// What the manifest says.
        expected: ContentHash,
        /// What arrived.
        actual: ContentHash,
    },
}

impl TransferError {
    /// Whether what arrived so far is worth keeping.
    pub fn keeps_partial(&self) -> bool {
        matches!(self, Self::Incomplete { .. } | Self::DamagedChunk { .. })
    }
}

/// The hashes of a blob's chunks, in order, as the sender knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkHashes(Vec<ContentHash>);

impl ChunkHashes {
    /// Those of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.chunks(CHUNK_LENGTH).map(ContentHash::of).collect())
    }

    /// How many bytes they take for this blob.
    pub fn size_bytes(blob: &BlobRef) -> u64 {
        blob.chunks() * 32
    }

    /// As they travel: 32 bytes each. `None` where that is no hash for each chunk of the blob.
    pub fn from_bytes(blob: &BlobRef, bytes: &[u8]) -> Option<Self> {
        let (hashes, rest) = bytes.as_chunks::<32>();
        let fits = rest.is_empty() && hashes.len() as u64 == blob.chunks();
        fits.then(|| Self(hashes.iter().copied().map(ContentHash::from_bytes).collect()))
    }

    /// As they travel.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(ContentHash::as_bytes).copied().collect()
    }
}

/// One blob on its way.
#[derive(Clone)]
pub struct Download {
    blob: BlobRef,
    /// By chunk; one for the whole blob where the sender has none.
    hashes: Vec<ContentHash>,
    chunk_bytes: u64,
    good: Vec<bool>,
    /// The chunk that is being taken in, and how much of it was.
    chunk: u64,
    taken: u64,
    hasher: Hasher,
    damaged: u32,
}

impl Download {
    /// A download that has nothing yet. Without hashes of chunks the whole blob is one.
    pub fn new(blob: BlobRef, hashes: Option<ChunkHashes>) -> Self {
        let hashes = hashes.map(|hashes| hashes.0).filter(|h| h.len() as u64 == blob.chunks());
        let chunk_bytes = if hashes.is_some() { CHUNK_BYTES } else { blob.size_bytes.max(1) };
        let hashes = hashes.unwrap_or_else(|| vec![blob.hash]);
        let good = vec![false; hashes.len()];
        let hasher = Hasher::default();
        Self { blob, hashes, chunk_bytes, good, chunk: 0, taken: 0, hasher, damaged: 0 }
    }

    fn start(&self, chunk: u64) -> u64 {
        (chunk * self.chunk_bytes).min(self.blob.size_bytes)
    }

    fn index(chunk: u64) -> usize {
        usize::try_from(chunk).unwrap_or(usize::MAX)
    }

    /// Where the next bytes belong.
    pub fn offset(&self) -> u64 {
        self.start(self.chunk) + self.taken
    }

    /// How many bytes the chunk there still takes, in this stretch: what is given to [`Download::take`] is no more.
    pub fn room(&self) -> u64 {
        self.start(self.chunk + 1) - self.offset()
    }

    /// Goes to the first byte that is missing, and says up to where nothing after it is here; `None` when all is.
    pub fn wanted(&mut self) -> Option<Range<u64>> {
        let is_missing = |chunk: u64| self.good.get(Self::index(chunk)) == Some(&false);
        if !is_missing(self.chunk) {
            let first = self.good.iter().position(|good| !good)? as u64;
            self.go_to(first);
        }
        let is_missing = |chunk: u64| self.good.get(Self::index(chunk)) == Some(&false);
        let end = (self.chunk..).find(|chunk| !is_missing(*chunk)).unwrap_or(self.chunk);
        Some(self.offset()..self.start(end)).filter(|range| !range.is_empty())
    }

    fn go_to(&mut self, chunk: u64) {
        (self.chunk, self.taken, self.hasher) = (chunk, 0, Hasher::default());
    }

    /// Takes in bytes that an earlier attempt left behind, from the beginning on, [`Download::room`] at most at a
    /// time. A chunk that is damaged is left out.
    ///
    /// # Errors
    /// [`TransferError::TooLong`]: the partial file must be thrown away.
    pub fn resume(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        if let Some(chunk) = self.add(bytes)? {
            self.go_to(chunk + 1);
        }
        Ok(())
    }

    /// Checks the sender's announcement before a byte is read.
    ///
    /// # Errors
    /// Another size or offset than asked.
    pub fn check_header(&self, size_bytes: u64, offset: u64) -> Result<(), TransferError> {
        if size_bytes != self.blob.size_bytes {
            return Err(TransferError::WrongSize {
                expected: self.blob.size_bytes,
                announced: size_bytes,
            });
        }
        if offset != self.offset() {
            return Err(TransferError::WrongOffset { expected: self.offset(), announced: offset });
        }
        Ok(())
    }

    /// Takes in the next bytes, [`Download::room`] at most. Whether to go on reading: not where the chunk that
    /// they end is damaged, for then its beginning is what is asked for next.
    ///
    /// # Errors
    /// [`TransferError::TooLong`]; [`TransferError::DamagedChunk`] when that was said too often;
    /// [`TransferError::WrongHash`] for a blob of one chunk.
    pub fn take(&mut self, bytes: &[u8]) -> Result<bool, TransferError> {
        let Some(chunk) = self.add(bytes)? else { return Ok(true) };
        if self.good.get(Self::index(chunk)) == Some(&true) {
            self.go_to(chunk + 1);
            return Ok(true);
        }
        if self.hashes.len() == 1 {
            let actual = std::mem::take(&mut self.hasher).finish();
            self.go_to(chunk); // from another sender, perhaps
            return Err(TransferError::WrongHash { expected: self.blob.hash, actual });
        }
        self.go_to(chunk);
        self.damaged += 1;
        if self.damaged >= DAMAGED_MAX {
            return Err(TransferError::DamagedChunk { chunk });
        }
        Ok(false)
    }

    /// The chunk that these bytes end, if they end one.
    fn add(&mut self, bytes: &[u8]) -> Result<Option<u64>, TransferError> {
        if bytes.len() as u64 > self.room() {
            return Err(TransferError::TooLong { expected: self.blob.size_bytes });
        }
        self.hasher.update(bytes);
        self.taken += bytes.len() as u64;
        if self.room() > 0 || bytes.is_empty() {
            return Ok(None);
        }
        let index = Self::index(self.chunk);
        if let (Some(good), Some(hash)) = (self.good.get_mut(index), self.hashes.get(index)) {
            *good = self.hasher.clone().finish() == *hash;
        }
        Ok(Some(self.chunk))
    }

    /// Bytes of chunks that are whole and right.
    pub fn have(&self) -> u64 {
        let good = self.good.iter().zip(0..).filter(|(good, _)| **good);
        good.map(|(_, chunk)| self.start(chunk + 1) - self.start(chunk)).sum()
    }

    /// The end of the bytes: whether all are here.
    ///
    /// # Errors
    /// [`TransferError::Incomplete`].
    pub fn finish(&self) -> Result<(), TransferError> {
        let (have, expected) = (self.have(), self.blob.size_bytes);
        if have < expected { Err(TransferError::Incomplete { have, expected }) } else { Ok(()) }
    }

    /// The signed hash against that of the whole file.
    ///
    /// # Errors
    /// [`TransferError::WrongHash`].
    pub fn check(&self, actual: ContentHash) -> Result<(), TransferError> {
        let expected = self.blob.hash;
        if actual == expected { Ok(()) } else { Err(TransferError::WrongHash { expected, actual }) }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // of small data
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob(data: &[u8]) -> BlobRef {
        BlobRef { hash: ContentHash::of(data), size_bytes: data.len() as u64 }
    }

    /// Bytes of three chunks and a bit, each chunk unlike the others.
    fn data() -> Vec<u8> {
        (0..3 * CHUNK_BYTES + 1000).map(|i| (i % 251) as u8 ^ (i / CHUNK_BYTES) as u8).collect()
    }

    /// Gives a download all that it asks for, as `sent` has it, until it wants no more; how many bytes that took.
    fn fetch(
        download: &mut Download,
        sent: &mut impl FnMut(u64) -> u8,
    ) -> Result<u64, TransferError> {
        let mut fetched = 0;
        'asking: while let Some(range) = download.wanted() {
            while download.offset() < range.end {
                let size = download.room().min(range.end - download.offset()).min(50_000);
                let begin = download.offset();
                let bytes: Vec<u8> = (begin..begin + size).map(&mut *sent).collect();
                fetched += size;
                if !download.take(&bytes)? {
                    continue 'asking;
                }
            }
        }
        download.finish()?;
        Ok(fetched)
    }

    fn resume(download: &mut Download, mut bytes: &[u8]) -> Result<(), TransferError> {
        while !bytes.is_empty() {
            let size = usize::try_from(download.room()).unwrap().min(bytes.len());
            let (now, later) = bytes.split_at(size.max(1));
            download.resume(now)?;
            bytes = later;
        }
        Ok(())
    }

    #[test]
    fn any_cut_resumes_to_the_same_end_and_fetches_nothing_twice() {
        let data = data();
        for hashes in [None, Some(ChunkHashes::of(&data))] {
            for cut in [0, 1, CHUNK_BYTES as usize, CHUNK_BYTES as usize + 1, data.len()] {
                let mut download = Download::new(blob(&data), hashes.clone());
                resume(&mut download, &data[..cut]).unwrap();
                assert_eq!(download.check_header(data.len() as u64, cut as u64), Ok(()));
                let fetched = fetch(&mut download, &mut |at| data[at as usize]);
                assert_eq!(fetched, Ok((data.len() - cut) as u64));
                assert_eq!(download.check(ContentHash::of(&data)), Ok(()));
            }
        }
    }

    #[test]
    fn a_damaged_chunk_costs_itself_alone() {
        let data = data();
        let mut on_disk = data.clone();
        on_disk[CHUNK_BYTES as usize + 7] ^= 1;
        let mut download = Download::new(blob(&data), Some(ChunkHashes::of(&data)));
        resume(&mut download, &on_disk).unwrap();
        assert_eq!(download.wanted(), Some(CHUNK_BYTES..2 * CHUNK_BYTES));
        assert_eq!(fetch(&mut download, &mut |at| data[at as usize]), Ok(CHUNK_BYTES));

        let mut download = Download::new(blob(&data), Some(ChunkHashes::of(&data)));
        let mut is_first = true;
        let mut once = |at: u64| {
            let is_hit = at == 2 * CHUNK_BYTES && std::mem::take(&mut is_first);
            data[at as usize] ^ u8::from(is_hit)
        };
        assert_eq!(fetch(&mut download, &mut once), Ok(data.len() as u64 + CHUNK_BYTES));
    }

    #[test]
    fn a_sender_that_goes_on_damaging_is_given_up() {
        let data = data();
        let mut download = Download::new(blob(&data), Some(ChunkHashes::of(&data)));
        let error = fetch(&mut download, &mut |_| 7).unwrap_err();
        assert_eq!(error, TransferError::DamagedChunk { chunk: 0 });
        assert!(error.keeps_partial());
        let mut download = Download::new(blob(&data), None);
        let error = fetch(&mut download, &mut |_| 7).unwrap_err();
        assert!(matches!(error, TransferError::WrongHash { .. }) && !error.keeps_partial());
        let lie = ChunkHashes::of(&vec![7; data.len()]);
        let mut download = Download::new(blob(&data), Some(lie));
        fetch(&mut download, &mut |_| 7).unwrap();
        let actual = ContentHash::of(&vec![7; data.len()]);
        assert!(download.check(actual).is_err(), "the signed hash decides");
    }

    #[test]
    fn wrong_lengths_and_offsets_are_refused() {
        let data = b"sixteen bytes ok";
        let mut download = Download::new(blob(data), None);
        assert!(download.check_header(17, 0).is_err());
        assert!(download.check_header(16, 1).is_err());
        assert!(matches!(download.take(&[0; 17]), Err(TransferError::TooLong { expected: 16 })));
        download.take(&data[..15]).unwrap();
        assert!(matches!(download.finish(), Err(TransferError::Incomplete { have: 0, .. })));
        assert_eq!(download.take(&data[15..]), Ok(true));
        assert_eq!((download.finish(), download.wanted()), (Ok(()), None));
        assert!(download.resume(&[0]).is_err(), "more than the signed length");
    }

    #[test]
    fn an_empty_blob_is_here_at_once() {
        let mut download = Download::new(blob(b""), None);
        assert_eq!(download.finish(), Ok(()));
        assert_eq!(download.wanted(), None);
    }

    proptest! {
        #[test]
        fn hashes_travel(count in 0usize..40) {
            let data = vec![3; count * 20_000];
            let hashes = ChunkHashes::of(&data);
            let bytes = hashes.to_bytes();
            prop_assert_eq!(bytes.len() as u64, ChunkHashes::size_bytes(&blob(&data)));
            prop_assert_eq!(ChunkHashes::from_bytes(&blob(&data), &bytes), Some(hashes));
            prop_assert_eq!(ChunkHashes::from_bytes(&blob(&data), &[0; 7]), None);
        }
    }
}
