//! Making a delta. Both files are in memory: this runs where there is enough of it.

use crate::coder::Encoder;
use crate::error::DeltaError;
use crate::format::{Head, Kind, MAGIC, Piece, WINDOW_LOG, write_integer, write_table};
use crate::numbers::Numbers;
use crate::plan::{Source, plan};
use std::io::Write;
use std::ops::Range;

/// zstd's level: the slowest that needs no memory of its own kind.
const LEVEL: i32 = 19;
/// Up to here it is also tried whether the tensors are of any use.
const ALSO_PLAIN_MAX_BYTES: usize = 1 << 20;
/// Numbers are coded in blocks of so many bytes, a multiple of every element's.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;

/// The delta that makes `new` from `old`, or by itself: the smallest of those that can be made.
///
/// # Errors
/// [`DeltaError::Io`]: zstd has no memory.
pub fn encode(old: Option<Source<'_>>, new: Source<'_>) -> Result<Vec<u8>, DeltaError> {
    let old_bytes = old.map_or(&[][..], |old| old.bytes);
    let pieces = plan(old, new);
    let had_pieces = !pieces.is_empty();
    let mut best = write(old_bytes, new.bytes, pieces)?;
    if had_pieces && new.bytes.len() <= ALSO_PLAIN_MAX_BYTES {
        let plain = write(old_bytes, new.bytes, Vec::new())?;
        best = if plain.len() < best.len() { plain } else { best };
    }
    Ok(best)
}

fn write(old: &[u8], new: &[u8], pieces: Vec<Piece>) -> Result<Vec<u8>, DeltaError> {
    let head = Head { old_size: old.len() as u64, new_size: new.len() as u64, pieces };
    let mut out = MAGIC.to_vec();
    for number in [head.old_size, head.new_size, head.pieces.len() as u64] {
        write_integer(&mut out, number);
    }
    write_packed(&mut out, &pack(&write_table(&head.pieces), &[])?);
    write_rest(&mut out, &head, old, new)?;
    out.extend(numbers(&head, old, new)?);
    Ok(out)
}

fn write_packed(out: &mut Vec<u8>, packed: &[u8]) {
    write_integer(out, packed.len() as u64);
    out.extend_from_slice(packed);
}

/// The rest, with the old one as its prefix where that is of use.
fn write_rest(out: &mut Vec<u8>, head: &Head, old: &[u8], new: &[u8]) -> Result<(), DeltaError> {
    let rest = rest(head, new);
    let mut packed = pack(&rest, &[])?;
    let ranges = head.old_rest();
    let size: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let mut has_prefix = false;
    if size > 0 && size <= head.prefix_max_bytes() {
        let prefix: Vec<u8> =
            ranges.into_iter().flat_map(|range| &old[indices(&range)]).copied().collect();
        let smaller = pack(&rest, &prefix)?;
        has_prefix = smaller.len() < packed.len();
        packed = if has_prefix { smaller } else { packed };
    }
    out.push(u8::from(has_prefix));
    write_packed(out, &packed);
    Ok(())
}

/// The bytes of the new file that no piece makes.
fn rest(head: &Head, new: &[u8]) -> Vec<u8> {
    let (mut rest, mut at) = (Vec::new(), 0);
    for piece in &head.pieces {
        let begin = index(at + piece.rest);
        rest.extend_from_slice(&new[index(at)..begin]);
        at += piece.rest + piece.size;
    }
    rest.extend_from_slice(&new[index(at)..]);
    rest
}

fn numbers(head: &Head, old: &[u8], new: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let (mut encoder, mut numbers, mut at) = (Encoder::new(), Numbers::default(), 0);
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for piece in &head.pieces {
        let begin = index(at + piece.rest);
        at += piece.rest + piece.size;
        let Kind::Numbers { element, how, .. } = piece.kind else { continue };
        let old = piece.source().map_or(&[][..], |range| &old[indices(&range)]);
        numbers.begin(element);
        for (number, new) in new[begin..index(at)].chunks(BLOCK_BYTES).enumerate() {
            let old = old.get(number * BLOCK_BYTES..).unwrap_or_default();
            block.clear();
            block.extend_from_slice(new);
            numbers.code(
                &mut encoder,
                element,
                how,
                &old[..old.len().min(new.len())],
                &mut block,
            )?;
        }
    }
    Ok(encoder.finish())
}

fn pack(bytes: &[u8], prefix: &[u8]) -> Result<Vec<u8>, DeltaError> {
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, prefix)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

#[allow(clippy::cast_possible_truncation)] // of a file that is in memory
fn index(offset: u64) -> usize {
    offset as usize
}

fn indices(range: &Range<u64>) -> Range<usize> {
    index(range.start)..index(range.end)
}
