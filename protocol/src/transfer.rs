//! Resumable transfer of a blob: what to ask for next, and whether what came is what was signed.
//!
//! The caller owns the partial file; this machine owns the hash, the offset and the rules: never
//! more bytes than the signed length, never a finish without the signed hash.

use crate::id::{ContentHash, Hasher};

/// A blob as the signed manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobRef {
    /// SHA-256 of its bytes.
    pub hash: ContentHash,
    /// Its length.
    pub size_bytes: u64,
}

/// Why a download cannot go on. All but [`TransferError::Incomplete`] mean that the partial bytes
/// are worthless.
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
    /// All bytes arrived and are not the signed ones.
    #[error("the bytes do not have the signed hash {expected}, they have {actual}")]
    WrongHash {
        /// What the manifest says.
        expected: ContentHash,
        /// What arrived.
        actual: ContentHash,
    },
}

/// One blob on its way.
#[derive(Clone)]
pub struct Download {
    blob: BlobRef,
    hasher: Hasher,
    have: u64,
}

impl Download {
    /// A download that has nothing yet.
    pub fn new(blob: BlobRef) -> Self {
        Self { blob, hasher: Hasher::default(), have: 0 }
    }

    /// Takes in bytes that an earlier attempt left behind, in order.
    ///
    /// # Errors
    /// [`TransferError::TooLong`]: the partial file must be thrown away.
    pub fn resume(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        self.take(bytes)
    }

    /// Where the sender must continue.
    pub fn offset(&self) -> u64 {
        self.have
    }

    /// How many bytes are still to come.
    pub fn remaining(&self) -> u64 {
        self.blob.size_bytes - self.have
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
        if offset != self.have {
            return Err(TransferError::WrongOffset { expected: self.have, announced: offset });
        }
        Ok(())
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// [`TransferError::TooLong`].
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), TransferError> {
        if bytes.len() as u64 > self.remaining() {
            return Err(TransferError::TooLong { expected: self.blob.size_bytes });
        }
        self.hasher.update(bytes);
        self.have += bytes.len() as u64;
        Ok(())
    }

    /// The end of the bytes: whole and right, or why not.
    ///
    /// # Errors
    /// [`TransferError::Incomplete`] or [`TransferError::WrongHash`].
    pub fn finish(self) -> Result<(), TransferError> {
        if self.have < self.blob.size_bytes {
            return Err(TransferError::Incomplete {
                have: self.have,
                expected: self.blob.size_bytes,
            });
        }
        let actual = self.hasher.finish();
        if actual != self.blob.hash {
            return Err(TransferError::WrongHash { expected: self.blob.hash, actual });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &[u8] = b"sixteen bytes ok";

    fn blob() -> BlobRef {
        BlobRef { hash: ContentHash::of(DATA), size_bytes: DATA.len() as u64 }
    }

    #[test]
    fn any_cut_resumes_to_the_same_end() {
        for cut in 0..=DATA.len() {
            let mut download = Download::new(blob());
            download.resume(&DATA[..cut]).unwrap();
            assert_eq!(download.check_header(16, cut as u64), Ok(()));
            download.take(&DATA[cut..]).unwrap();
            assert_eq!(download.finish(), Ok(()));
        }
    }

    #[test]
    fn wrong_bytes_lengths_and_offsets_are_refused() {
        let mut download = Download::new(blob());
        assert!(download.check_header(17, 0).is_err());
        assert!(download.check_header(16, 1).is_err());
        assert!(matches!(download.take(&[0; 17]), Err(TransferError::TooLong { expected: 16 })));
        download.take(&[0; 15]).unwrap();
        assert!(matches!(
            download.clone().finish(),
            Err(TransferError::Incomplete { have: 15, .. })
        ));
        download.take(&[0]).unwrap();
        assert!(matches!(download.finish(), Err(TransferError::WrongHash { .. })));
    }
}
