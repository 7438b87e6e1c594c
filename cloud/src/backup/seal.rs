//! A stream that nobody can read or change without the key: pieces of 1 MiB, each sealed by AES-256-GCM.
//!
//! The nonce of a piece is its number and whether it is the last one (STREAM, Hoang, Reyhanitabar, Rogaway
//! and Vizár 2015), so pieces that were left out, reordered, repeated or cut off at the end do not open. The
//! key of a stream is its own: HKDF-SHA256 of the secret with the stream's header, which holds a fresh salt,
//! so no nonce is used twice and a header that was changed opens nothing.
//!
//! ```text
//! header   8 "outrbkup" | 1 format | 1 kind of secret | 4 rounds of PBKDF2, big-endian | 32 salt | 16 check
//! piece    up to 1 MiB sealed | 16 tag                        and so on; only the last piece is shorter
//! ```

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, pbkdf2};
use std::fmt;
use std::io::{self, Read, Write};
use std::num::NonZeroU32;

/// Bytes of a piece before they are sealed.
pub(crate) const PIECE_BYTES: usize = 1 << 20;
const TAG_BYTES: usize = 16;
const MAGIC: &[u8; 8] = b"outrbkup";
const FORMAT: u8 = 1;
const SALT_BYTES: usize = 32;
const CHECK_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + 1 + 1 + 4 + SALT_BYTES + CHECK_BYTES;
/// Rounds of PBKDF2-HMAC-SHA256 for a passphrase, as OWASP advises (2023).
pub const PASSPHRASE_ROUNDS: u32 = 600_000;
/// What a header may ask for: a forged one must not keep us busy for hours.
const ROUNDS_MAX: u32 = 10_000_000;

/// Why a sealed stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Something else.
    #[error("this is no backup of outrigger-cloud")]
    NoBackup,
    /// Of a later program.
    #[error("this backup has format {0}, this program knows {FORMAT} at most")]
    Newer(u8),
    /// A key where a passphrase is needed, or the other way around.
    #[error("this backup was sealed with a {0}")]
    OtherKind(&'static str),
    /// Not the secret that it was sealed with, or its header was changed.
    #[error("the key or passphrase is not the one that this backup was sealed with")]
    WrongSecret,
    /// It was changed.
    #[error("the backup was altered, or cut off, in the mebibyte that begins at {offset}")]
    Altered {
        /// Where the piece begins, in the backup's contents.
        offset: u64,
    },
    /// Its end is missing.
    #[error("the backup ends before its end: pieces are missing")]
    CutOff,
}

/// What a backup is sealed with. It never shows itself.
pub enum Secret {
    /// 256 random bits.
    Key([u8; 32]),
    /// What a person remembers.
    Passphrase(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Secret {
    fn kind(&self) -> u8 {
        match self {
            Self::Key(_) => 1,
            Self::Passphrase(_) => 2,
        }
    }

    fn rounds(&self) -> u32 {
        match self {
            Self::Key(_) => 0,
            Self::Passphrase(_) => PASSPHRASE_ROUNDS,
        }
    }

    /// The key of the stream with this header, and what proves that it is the right one.
    fn derive(&self, header: &Header) -> Result<(LessSafeKey, [u8; CHECK_BYTES]), SealError> {
        let mut material = [0; 32];
        match (self, NonZeroU32::new(header.rounds)) {
            (Self::Key(key), None) => material = *key,
            (Self::Passphrase(text), Some(rounds)) if header.rounds <= ROUNDS_MAX => {
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                pbkdf2::derive(algorithm, rounds, &header.salt, text.as_bytes(), &mut material);
            }
            _ => return Err(SealError::WrongSecret),
        }
        let spread = hkdf::Salt::new(hkdf::HKDF_SHA256, &header.salt).extract(&material);
        let (bound, mut key, mut check) = (header.bound(), [0; 32], [0; CHECK_BYTES]);
        fill(&spread, &[&b"seal"[..], &bound], &mut key)?;
        fill(&spread, &[&b"check"[..], &bound], &mut check)?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| SealError::WrongSecret)?;
        Ok((LessSafeKey::new(key), check))
    }
}

/// A length for ring.
struct Bytes(usize);

impl hkdf::KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn fill(spread: &hkdf::Prk, info: &[&[u8]], out: &mut [u8]) -> Result<(), SealError> {
    let expanded = spread.expand(info, Bytes(out.len())).and_then(|okm| okm.fill(out));
    expanded.map_err(|_| SealError::WrongSecret)
}

struct Header {
    kind: u8,
    rounds: u32,
    salt: [u8; SALT_BYTES],
}

impl Header {
    /// Everything of it but the check.
    fn bound(&self) -> [u8; HEADER_BYTES - CHECK_BYTES] {
        let mut out = [0; HEADER_BYTES - CHECK_BYTES];
        out[..8].copy_from_slice(MAGIC);
        (out[8], out[9]) = (FORMAT, self.kind);
        out[10..14].copy_from_slice(&self.rounds.to_be_bytes());
        out[14..].copy_from_slice(&self.salt);
        out
    }

    /// A header, and its check.
    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<(Self, [u8; CHECK_BYTES]), SealError> {
        if bytes[..8] != *MAGIC {
            return Err(SealError::NoBackup);
        }
        if bytes[8] != FORMAT {
            return Err(SealError::Newer(bytes[8]));
        }
        let (mut rounds, mut salt, mut check) = ([0; 4], [0; SALT_BYTES], [0; CHECK_BYTES]);
        rounds.copy_from_slice(&bytes[10..14]);
        salt.copy_from_slice(&bytes[14..14 + SALT_BYTES]);
        check.copy_from_slice(&bytes[14 + SALT_BYTES..]);
        Ok((Self { kind: bytes[9], rounds: u32::from_be_bytes(rounds), salt }, check))
    }
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[NONCE_LEN - 1] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

/// Seals what is written to it.
pub(crate) struct Sealer<W: Write> {
    out: W,
    key: LessSafeKey,
    number: u64,
    /// At most a whole piece, kept until it is known whether it is the last.
    piece: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    /// Begins a stream; `salt` is fresh entropy.
    pub(crate) fn new(mut out: W, secret: &Secret, salt: [u8; SALT_BYTES]) -> io::Result<Self> {
        let header = Header { kind: secret.kind(), rounds: secret.rounds(), salt };
        let (key, check) = secret.derive(&header).map_err(io::Error::other)?;
        out.write_all(&header.bound())?;
        out.write_all(&check)?;
        Ok(Self { out, key, number: 0, piece: Vec::with_capacity(PIECE_BYTES + TAG_BYTES) })
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = nonce(self.number, last);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.piece);
        sealed.map_err(|_| io::Error::other("AES-GCM refused a piece"))?;
        self.out.write_all(&self.piece)?;
        self.piece.clear();
        self.number += 1;
        Ok(())
    }

    /// Seals the end; without it the stream is cut off.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE_BYTES && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // a piece goes out when it is whole
    }
}

/// Opens a stream; what it gives was authenticated, piece by piece. That nothing is missing is known at the
/// end only.
pub(crate) struct Opener<R: Read> {
    source: R,
    key: LessSafeKey,
    number: u64,
    /// The sealed piece behind the opened one; empty at the end.
    ahead: Vec<u8>,
    piece: Vec<u8>,
    at: usize,
}

impl<R: Read> Opener<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`SealError`] inside of the [`io::Error`].
    pub(crate) fn new(mut source: R, secret: &Secret) -> io::Result<Self> {
        let mut bytes = [0; HEADER_BYTES];
        source.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other(SealError::NoBackup),
            _ => error,
        })?;
        let (header, check) = Header::parse(&bytes).map_err(io::Error::other)?;
        if header.kind != secret.kind() {
            let kind = if header.kind == 2 { "passphrase" } else { "key" };
            return Err(io::Error::other(SealError::OtherKind(kind)));
        }
        let (key, own) = secret.derive(&header).map_err(io::Error::other)?;
        if own != check {
            return Err(io::Error::other(SealError::WrongSecret));
        }
        let mut opener =
            Self { source, key, number: 0, ahead: Vec::new(), piece: Vec::new(), at: 0 };
        opener.ahead = opener.next_sealed()?;
        if opener.ahead.is_empty() {
            return Err(io::Error::other(SealError::CutOff));
        }
        Ok(opener)
    }

    fn next_sealed(&mut self) -> io::Result<Vec<u8>> {
        let whole = (PIECE_BYTES + TAG_BYTES) as u64;
        let mut sealed = Vec::with_capacity(PIECE_BYTES + TAG_BYTES);
        self.source.by_ref().take(whole).read_to_end(&mut sealed)?;
        Ok(sealed)
    }

    fn open(&self, sealed: &[u8], last: bool) -> Option<Vec<u8>> {
        let mut piece = sealed.to_vec();
        let nonce = nonce(self.number, last);
        let len = self.key.open_in_place(nonce, Aad::empty(), &mut piece).ok()?.len();
        piece.truncate(len);
        Some(piece)
    }

    /// Opens the next piece; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        if self.ahead.is_empty() {
            return Ok(false);
        }
        let next = self.next_sealed()?;
        let sealed = std::mem::replace(&mut self.ahead, next);
        let last = self.ahead.is_empty();
        let Some(piece) = self.open(&sealed, last) else {
            let offset = self.number * PIECE_BYTES as u64;
            let cut_off = last && self.open(&sealed, false).is_some();
            let error = if cut_off { SealError::CutOff } else { SealError::Altered { offset } };
            return Err(io::Error::other(error));
        };
        (self.piece, self.at) = (piece, 0);
        self.number += 1;
        Ok(true)
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if !self.advance()? {
                return Ok(0);
            }
        }
        let given = out.len().min(self.piece.len() - self.at);
        out[..given].copy_from_slice(&self.piece[self.at..self.at + given]);
        self.at += given;
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED_PIECE: usize = PIECE_BYTES + TAG_BYTES;

    fn secret() -> Secret {
        Secret::Key([7; 32])
    }

    fn sealed(secret: &Secret, contents: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Vec::new(), secret, [9; 32]).unwrap();
        sealer.write_all(contents).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(secret: &Secret, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut out = Vec::new();
        let read = Opener::new(bytes, secret).and_then(|mut opener| opener.read_to_end(&mut out));
        read.map(|_| out).map_err(|error| error.downcast::<SealError>().unwrap())
    }

    #[test]
    fn what_was_sealed_is_opened_at_every_length() {
        for len in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES] {
            let contents: Vec<u8> = (0..=250).cycle().take(len).collect();
            assert!(opened(&secret(), &sealed(&secret(), &contents)) == Ok(contents), "{len}");
        }
    }

    #[test]
    fn a_passphrase_opens_what_it_sealed_and_nothing_else_does() {
        let phrase = |text: &str| Secret::Passphrase(text.to_owned());
        let bytes = sealed(&phrase("correct horse battery"), b"contents");
        assert_eq!(opened(&phrase("correct horse battery"), &bytes).unwrap(), b"contents");
        assert_eq!(opened(&phrase("correct horse"), &bytes), Err(SealError::WrongSecret));
        assert_eq!(opened(&secret(), &bytes), Err(SealError::OtherKind("passphrase")));
        let by_key = sealed(&secret(), b"contents");
        assert_eq!(opened(&Secret::Key([8; 32]), &by_key), Err(SealError::WrongSecret));
        assert_eq!(opened(&phrase("x"), &by_key), Err(SealError::OtherKind("key")));
    }

    #[test]
    fn every_flipped_byte_of_a_small_backup_is_refused() {
        let bytes = sealed(&secret(), b"contents");
        for position in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[position] ^= 1;
            assert!(opened(&secret(), &altered).is_err(), "byte {position}");
        }
        for len in 0..bytes.len() {
            assert!(opened(&secret(), &bytes[..len]).is_err(), "cut to {len}");
        }
        assert_eq!(opened(&secret(), b"something else entirely"), Err(SealError::NoBackup));
    }

    #[test]
    fn pieces_that_are_missing_moved_or_added_are_named() {
        let contents = vec![5; 3 * PIECE_BYTES + 10];
        let bytes = sealed(&secret(), &contents);
        let piece = |n: usize| {
            let begin = HEADER_BYTES + n * SEALED_PIECE;
            bytes[begin..bytes.len().min(begin + SEALED_PIECE)].to_vec()
        };
        let check = |order: &[usize]| {
            let pieces = order.iter().flat_map(|n| piece(*n));
            let built: Vec<u8> = bytes[..HEADER_BYTES].iter().copied().chain(pieces).collect();
            opened(&secret(), &built).map(|contents| contents.len())
        };
        let altered = |n: usize| Err(SealError::Altered { offset: (n * PIECE_BYTES) as u64 });
        assert_eq!(check(&[0, 1, 2, 3]), Ok(contents.len()));
        assert_eq!(check(&[0, 1, 2]), Err(SealError::CutOff));
        assert_eq!(check(&[]), Err(SealError::CutOff));
        assert_eq!(check(&[0, 2, 1, 3]), altered(1));
        assert_eq!(check(&[0, 2, 3]), altered(1));
        assert_eq!(check(&[0, 0, 1, 2, 3]), altered(1));
        assert_eq!(check(&[0, 1, 2, 3, 3]), altered(3));
    }
}
