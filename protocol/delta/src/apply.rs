//! Applying a delta, on the device: its bytes are believed only as far as they were checked.

use crate::coder::Decoder;
use crate::element::Element;
use crate::encode::BLOCK_BYTES;
use crate::error::DeltaError;
use crate::format::{Head, Kind, Piece, REST_MAX_BYTES, read_integer, unpack};
use crate::numbers::{How, Numbers};
use std::io::{BufRead, Read, Seek, SeekFrom, Write};

/// Makes the new file from a delta and the old file; `size_bytes` is its signed length, and neither more nor less is
/// made. Whether it is the signed file, its hash says: the caller takes it from what is written.
///
/// # Errors
/// [`DeltaError`]; what was written is worth nothing then.
pub fn apply(
    mut delta: impl BufRead,
    mut old: impl Read + Seek,
    size_bytes: u64,
    out: &mut impl Write,
) -> Result<(), DeltaError> {
    let head = Head::read(&mut delta, size_bytes)?;
    let actual = old.seek(SeekFrom::End(0))?;
    if head.old_size != 0 && actual != head.old_size {
        return Err(DeltaError::WrongBase { expected: head.old_size, actual });
    }
    let prefix = read_prefix(&mut delta, &mut old, &head)?;
    let packed = read_integer(&mut delta)?;
    if head.pieces.is_empty() {
        let mut rest = unpack(delta.take(packed), &prefix)?;
        copy(&mut rest, head.new_size, out)?;
        return end(&mut rest);
    }
    let mut rest = Vec::new();
    let mut stream = unpack(delta.by_ref().take(packed), &prefix)?;
    copy(&mut stream, head.rest_size(), &mut rest)?;
    end(&mut stream)?;
    std::io::copy(&mut stream.finish(), &mut std::io::sink())?;
    drop(prefix);
    debug_assert!(rest.len() as u64 <= REST_MAX_BYTES);
    Pieces { old, out, rest: &rest }.make(&head.pieces, delta)
}

/// The old rest, if the new one is packed with it as its prefix.
fn read_prefix(
    delta: &mut impl Read,
    old: &mut (impl Read + Seek),
    head: &Head,
) -> Result<Vec<u8>, DeltaError> {
    let mut prefix = Vec::new();
    match read_integer(delta)? {
        0 => return Ok(prefix),
        1 => {}
        _ => return Err(DeltaError::Damaged("a prefix of an unknown kind")),
    }
    let ranges = head.old_rest();
    let count = ranges.iter().map(|range| range.end - range.start).sum();
    let most = head.prefix_max_bytes();
    if count > most {
        let what = "bytes of a prefix";
        return Err(DeltaError::TooMany { what, count, most });
    }
    for range in ranges {
        old.seek(SeekFrom::Start(range.start))?;
        copy(old, range.end - range.start, &mut prefix)?;
    }
    Ok(prefix)
}

/// So many bytes, no fewer.
fn copy(from: &mut impl Read, bytes: u64, to: &mut impl Write) -> Result<(), DeltaError> {
    match std::io::copy(&mut from.take(bytes), to)? {
        copied if copied == bytes => Ok(()),
        _ => Err(DeltaError::Truncated),
    }
}

fn end(stream: &mut impl Read) -> Result<(), DeltaError> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(DeltaError::Damaged("more of a rest than it says")),
    }
}

/// What pieces are made from, and where they go.
struct Pieces<'p, B, W> {
    old: B,
    out: &'p mut W,
    rest: &'p [u8],
}

impl<B: Read + Seek, W: Write> Pieces<'_, B, W> {
    fn make(mut self, pieces: &[Piece], delta: impl BufRead) -> Result<(), DeltaError> {
        let (mut decoder, mut numbers) = (Decoder::new(delta)?, Numbers::default());
        for piece in pieces {
            let rest = usize::try_from(piece.rest).unwrap_or(usize::MAX);
            let (before, behind) = self.rest.split_at_checked(rest).ok_or(DeltaError::Truncated)?;
            self.out.write_all(before)?;
            self.rest = behind;
            if let Some(source) = piece.source() {
                self.old.seek(SeekFrom::Start(source.start))?;
            }
            match piece.kind {
                Kind::Copied { .. } => copy(&mut self.old, piece.size, self.out)?,
                Kind::Numbers { element, how, .. } => {
                    numbers.begin(element);
                    self.numbers(&mut numbers, &mut decoder, (element, how), piece.size)?;
                }
            }
        }
        Ok(self.out.write_all(self.rest)?)
    }

    fn numbers<R: Read>(
        &mut self,
        numbers: &mut Numbers,
        decoder: &mut Decoder<R>,
        (element, how): (Element, How),
        mut left: u64,
    ) -> Result<(), DeltaError> {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            new.clear();
            new.resize(size, 0);
            if how != How::Fresh {
                old.resize(size, 0);
                self.old.read_exact(&mut old)?;
            }
            numbers.code(decoder, element, how, &old, &mut new)?;
            self.out.write_all(&new)?;
            left -= size as u64;
        }
        Ok(())
    }
}
