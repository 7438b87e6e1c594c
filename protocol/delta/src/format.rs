//! A delta's bytes.
//!
//! ```text
//! magic, 8 bytes | length of the old file | of the new file
//! number of pieces | packed length of their table | table (zstd)
//! whether the rest has the old rest as its prefix | packed length of the rest | rest (zstd)
//! numbers (arithmetic code), to the end
//! ```
//!
//! Lengths are variable-length integers (LEB128). The table says of each piece: bytes of the rest before it, what it
//! is (0: copied; else 1 + element + 8 x how), its length, and where it lies in the old file, counted from the end of
//! the piece before. The old rest is all of the old file that no piece is made from.

use crate::element::Element;
use crate::error::DeltaError;
use crate::numbers::{How, Moved};
use std::io::Read;
use std::ops::Range;

pub(crate) const MAGIC: &[u8; 8] = b"ORdelta\x01";
/// Pieces of one delta.
pub(crate) const PIECES_MAX: usize = 1 << 16;
/// The rest of a file that has pieces: it is held in memory.
pub(crate) const REST_MAX_BYTES: u64 = 16 << 20;
/// The old rest that may be a prefix: it is held in memory.
pub(crate) const PREFIX_MAX_BYTES: u64 = 8 << 20;
/// The same of a file without pieces, such as a program: as far back as zstd's window reaches.
pub(crate) const PREFIX_ALONE_MAX_BYTES: u64 = 1 << WINDOW_LOG;
/// zstd's window, as the exponent of two: what it holds of a longer rest.
pub(crate) const WINDOW_LOG: u32 = 24;

/// A stretch of the new file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Bytes of the rest before it.
    pub(crate) rest: u64,
    /// Bytes that it makes.
    pub(crate) size: u64,
    pub(crate) kind: Kind,
}

/// How a stretch is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it is in the old file.
    Copied { from: u64 },
    /// From numbers; `from` says nothing where they are fresh.
    Numbers { element: Element, how: How, from: u64 },
}

impl Piece {
    /// The bytes of the old file that it is made from.
    pub(crate) fn source(&self) -> Option<Range<u64>> {
        match self.kind {
            Kind::Numbers { how: How::Fresh, .. } => None,
            Kind::Copied { from } | Kind::Numbers { from, .. } => Some(from..from + self.size),
        }
    }
}

/// What stands before the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) old_size: u64,
    pub(crate) new_size: u64,
    pub(crate) pieces: Vec<Piece>,
}

impl Head {
    /// Bytes of the new file that no piece makes.
    pub(crate) fn rest_size(&self) -> u64 {
        self.new_size - self.pieces.iter().map(|piece| piece.size).sum::<u64>()
    }

    /// How much of the old file may be the prefix of what no piece makes.
    pub(crate) fn prefix_max_bytes(&self) -> u64 {
        if self.pieces.is_empty() { PREFIX_ALONE_MAX_BYTES } else { PREFIX_MAX_BYTES }
    }

    /// The stretches of the old file that no piece is made from, in order.
    pub(crate) fn old_rest(&self) -> Vec<Range<u64>> {
        let mut taken: Vec<_> = self.pieces.iter().filter_map(Piece::source).collect();
        taken.sort_by_key(|range| range.start);
        let mut rest = Vec::new();
        let mut at = 0;
        for Range { start, end } in taken {
            if start > at {
                rest.push(at..start);
            }
            at = at.max(end);
        }
        if at < self.old_size {
            rest.push(at..self.old_size);
        }
        rest
    }

    /// Whether the parts are what they say together.
    fn check(self) -> Result<Self, DeltaError> {
        let mut made = 0_u64;
        for piece in &self.pieces {
            let made_by =
                piece.rest.checked_add(piece.size).and_then(|size| size.checked_add(made));
            made = made_by
                .filter(|made| *made <= self.new_size)
                .ok_or(DeltaError::Damaged("its pieces make more than its length"))?;
            if piece.source().is_some_and(|source| source.end > self.old_size) {
                return Err(DeltaError::Damaged("a piece beyond the old file"));
            }
            if let Kind::Numbers { element, .. } = piece.kind
                && !piece.size.is_multiple_of(element.bytes() as u64)
            {
                return Err(DeltaError::Damaged("a piece of no whole numbers"));
            }
        }
        if !self.pieces.is_empty() && self.rest_size() > REST_MAX_BYTES {
            let count = self.rest_size();
            return Err(DeltaError::TooMany {
                what: "bytes of a rest",
                count,
                most: REST_MAX_BYTES,
            });
        }
        Ok(self)
    }
}

fn how_number(how: How) -> u64 {
    match how {
        How::Fresh => 0,
        How::Changed(Moved::Alike) => 1,
        How::Changed(Moved::InProportion) => 2,
    }
}

fn how_of(number: u64) -> Option<How> {
    [How::Fresh, How::Changed(Moved::Alike), How::Changed(Moved::InProportion)]
        .into_iter()
        .find(|how| how_number(*how) == number)
}

pub(crate) fn write_integer(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7F {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7F) as u8);
}

pub(crate) fn read_integer(from: &mut impl Read) -> Result<u64, DeltaError> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        if from.read(&mut byte)? == 0 {
            return Err(DeltaError::Truncated);
        }
        number |= u64::from(byte[0] & 0x7F)
            .checked_mul(1 << shift)
            .ok_or(DeltaError::Damaged("a number of more than 64 bits"))?;
        if byte[0] < 0x80 {
            return Ok(number);
        }
    }
    Err(DeltaError::Damaged("a number of more than 64 bits"))
}

/// The table of the pieces, before it is packed.
pub(crate) fn write_table(pieces: &[Piece]) -> Vec<u8> {
    let (mut table, mut at) = (Vec::new(), 0_u64);
    for piece in pieces {
        write_integer(&mut table, piece.rest);
        let kind = match piece.kind {
            Kind::Copied { .. } => 0,
            Kind::Numbers { element, how, .. } => 1 + element as u64 + 8 * how_number(how),
        };
        write_integer(&mut table, kind);
        write_integer(&mut table, piece.size);
        if let Some(source) = piece.source() {
            let step = source.start.wrapping_sub(at).cast_signed();
            write_integer(&mut table, (step << 1 ^ step >> 63).cast_unsigned());
            at = source.end;
        }
    }
    table
}

pub(crate) fn read_pieces(table: &mut impl Read, count: usize) -> Result<Vec<Piece>, DeltaError> {
    let (mut pieces, mut at) = (Vec::new(), 0_u64);
    for _ in 0..count {
        let (rest, number) = (read_integer(table)?, read_integer(table)?);
        let size = read_integer(table)?;
        let mut kind = kind_of(number).ok_or(DeltaError::Damaged("a piece of an unknown kind"))?;
        if let Kind::Copied { from } | Kind::Numbers { how: How::Changed(_), from, .. } = &mut kind
        {
            let step = read_integer(table)?;
            let step = (step >> 1).cast_signed() ^ -(step & 1).cast_signed();
            *from = at.wrapping_add(step.cast_unsigned());
            at =
                from.checked_add(size).ok_or(DeltaError::Damaged("a piece beyond the old file"))?;
        }
        pieces.push(Piece { rest, size, kind });
    }
    Ok(pieces)
}

fn kind_of(number: u64) -> Option<Kind> {
    let Some(number) = number.checked_sub(1) else { return Some(Kind::Copied { from: 0 }) };
    let element = *Element::ALL.get(usize::try_from(number % 8).ok()?)?;
    Some(Kind::Numbers { element, how: how_of(number / 8)?, from: 0 })
}

impl Head {
    /// Reads what stands before the rest, and believes none of it unchecked.
    pub(crate) fn read(from: &mut impl Read, expected: u64) -> Result<Self, DeltaError> {
        let mut magic = [0; MAGIC.len()];
        from.read_exact(&mut magic).map_err(|_| DeltaError::Unknown)?;
        if magic != *MAGIC {
            return Err(DeltaError::Unknown);
        }
        let (old_size, new_size) = (read_integer(from)?, read_integer(from)?);
        if new_size != expected {
            return Err(DeltaError::WrongLength { expected, actual: new_size });
        }
        let count = read_integer(from)?;
        let most = PIECES_MAX as u64;
        let pieces = usize::try_from(count).ok().filter(|count| *count <= PIECES_MAX);
        let pieces = pieces.ok_or(DeltaError::TooMany { what: "pieces", count, most })?;
        let packed = read_integer(from)?;
        let mut table = unpack(from.take(packed), &[])?;
        let pieces = read_pieces(&mut table, pieces)?;
        std::io::copy(&mut table.finish(), &mut std::io::sink())?;
        Head { old_size, new_size, pieces }.check()
    }
}

/// What zstd packed, as a stream that holds no more than its window.
pub(crate) fn unpack<'p, R: Read>(
    packed: R,
    prefix: &'p [u8],
) -> Result<zstd::stream::read::Decoder<'p, std::io::BufReader<R>>, DeltaError> {
    let packed = std::io::BufReader::new(packed);
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(packed, prefix)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}
