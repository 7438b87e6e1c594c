//! What is likely of a number of a new version, given that of the version before.
//!
//! After training, a number has moved by a little, and by how much depends on the layer: on all numbers of a
//! channel alike, or in proportion to each. So a difference is coded as its length in bits, which is predicted
//! from the last ones, then its leading bits, and then those of which nothing can be known. Floats are compared
//! by their place in the order of all floats: neighbours differ by one. What crossed zero is coded by itself. After quantizing again most numbers are
//! the same, and after pruning many are zero, the small ones first: both are decisions of their own, made likely
//! by the number of before.
//!
//! The description is one for both directions ([`crate::coder`]). What it remembers is bounded, and forgets.

use crate::coder::{Bit, Coder};
use crate::element::{Element, FloatParts};
use crate::error::DeltaError;

/// Leading bits behind the first of a difference, or of a mantissa, that have chances of their own.
const LEADING: u32 = 3;
/// Classes that a number's place and past can be in.
const BUCKETS: usize = 1024;
/// The mean length is that of the last so many numbers.
const MEMORY: i32 = 32;
/// Predicted lengths, in halves of a bit.
const LEVELS: usize = 64;
/// Lengths of differences, or exponents, of a tree.
const LENGTHS: usize = 64;

/// Whether a layer's numbers moved alike, or in proportion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// By as much, whatever they are.
    Alike,
    /// The larger by more.
    InProportion,
}

/// What became of a number.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Same = 0,
    Zero = 1,
    Other = 2,
}

/// A mean of the last numbers, in 256ths; quick to learn at the beginning of a tensor.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    value: i32,
    count: i32,
}

impl Mean {
    fn learn(&mut self, value: u32) {
        self.count = (self.count + 1).min(MEMORY);
        let value = i32::try_from(value).unwrap_or(i32::MAX >> 8) << 8;
        self.value += (value - self.value) / self.count;
    }

    /// Above `zero`, in halves, within what has chances of its own.
    fn level(self, zero: u32) -> usize {
        let above = (self.value >> 7) - i32::try_from(2 * zero).unwrap_or(0);
        usize::try_from(above.max(0)).unwrap_or(0).min(LEVELS - 1)
    }
}

/// What is known of the numbers of one element type.
struct Known {
    element: Element,
    same: Vec<Bit>,
    zero: Vec<Bit>,
    apart: Vec<Bit>,
    sign: Vec<Bit>,
    length: Vec<Bit>,
    leading: Vec<Bit>,
    tail: Vec<Bit>,
    exponent: Vec<Bit>,
    mantissa: Vec<Bit>,
    /// The last two fates.
    past: [Fate; 2],
    lengths: Mean,
    exponents: Mean,
}

fn chances(count: usize) -> Vec<Bit> {
    vec![Bit::EVEN; count]
}

impl Known {
    fn new(element: Element) -> Self {
        Self {
            element,
            same: chances(BUCKETS * 9),
            zero: chances(BUCKETS * 3),
            apart: chances(BUCKETS),
            sign: chances(BUCKETS),
            length: chances(LEVELS * LENGTHS),
            leading: chances(LENGTHS << LEADING),
            tail: chances(LENGTHS),
            exponent: chances(LEVELS << 8),
            mantissa: chances(2 << LEADING),
            past: [Fate::Same; 2],
            lengths: Mean::default(),
            exponents: Mean::default(),
        }
    }

    /// A tensor begins.
    fn begin(&mut self) {
        self.past = [Fate::Same; 2];
        self.lengths.count = 0;
        self.exponents.count = 0;
    }

    fn past(&self) -> usize {
        self.past[0] as usize * 3 + self.past[1] as usize
    }

    fn remember(&mut self, fate: Fate) {
        self.past = [fate, self.past[0]];
    }

    /// The new number, given that of before.
    fn changed<C: Coder>(
        &mut self,
        coder: &mut C,
        moved: Moved,
        old: u32,
        new: u32,
    ) -> Result<u32, DeltaError> {
        let bucket = bucket(self.element, old);
        let past = self.past();
        if coder.bit(&mut self.same[bucket * 9 + past], new == old)? {
            self.remember(Fate::Same);
            return Ok(old);
        }
        let context = bucket * 3 + self.past[0] as usize;
        if old != 0 && coder.bit(&mut self.zero[context], new == 0)? {
            self.remember(Fate::Zero);
            return Ok(0);
        }
        self.remember(Fate::Other);
        match self.element.float_parts() {
            Some(parts) if exponent(parts, old) == 0 => self.float(coder, parts, new),
            Some(parts) if coder.bit(&mut self.apart[bucket], is_apart(parts, old, new))? => {
                self.float(coder, parts, new)
            }
            Some(parts) => {
                let zero = if moved == Moved::Alike { exponent(parts, old) } else { 0 };
                let bits = self.element.bits();
                let (from, to) = (rank(bits, old), rank(bits, new));
                let step = self.step(coder, bucket, zero, i64::from(to) - i64::from(from))?;
                let rank = u32::try_from(i64::from(from) + step).ok();
                let rank = rank.filter(|rank| u64::from(*rank) < 1 << bits);
                Ok(unrank(bits, rank.ok_or(DeltaError::Damaged("a number beyond its type"))?))
            }
            None => {
                let bits = self.element.bits();
                let step = signed(bits, new.wrapping_sub(old));
                let step = self.step(coder, bucket, 0, step)?;
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // modulo 2^bits
                Ok(old.wrapping_add(step as u32) & mask(bits))
            }
        }
    }

    /// A difference that is not zero. Lengths are counted from `zero` on.
    fn step<C: Coder>(
        &mut self,
        coder: &mut C,
        bucket: usize,
        zero: u32,
        step: i64,
    ) -> Result<i64, DeltaError> {
        let is_negative = coder.bit(&mut self.sign[bucket], step < 0)?;
        let level = self.lengths.level(zero);
        let size =
            self.size(coder, level, u32::try_from(step.unsigned_abs()).unwrap_or(u32::MAX))?;
        self.lengths.learn(length(size) + zero);
        let size = i64::from(size);
        Ok(if is_negative { -size } else { size })
    }

    /// A number above zero, whose length is likely to be at a level.
    fn size<C: Coder>(
        &mut self,
        coder: &mut C,
        level: usize,
        size: u32,
    ) -> Result<u32, DeltaError> {
        let lengths = &mut self.length[level * LENGTHS..][..LENGTHS];
        let behind = coder.tree(lengths, 5, length(size).saturating_sub(1))?;
        let leading = behind.min(LEADING);
        let below = behind - leading;
        let chances = &mut self.leading[(behind as usize) << LEADING..][..1 << LEADING];
        let first = coder.tree(chances, leading, size >> below & mask(leading))?;
        let rest = rest(coder, &mut self.tail[behind as usize], below, size)?;
        Ok(1 << behind | first << below | rest)
    }

    /// A number of which nothing was known before.
    fn fresh<C: Coder>(&mut self, coder: &mut C, new: u32) -> Result<u32, DeltaError> {
        let bits = self.element.bits();
        let past = self.past();
        if coder.bit(&mut self.zero[past], new == 0)? {
            self.remember(Fate::Zero);
            return Ok(0);
        }
        self.remember(Fate::Other);
        if let Some(parts) = self.element.float_parts() {
            return self.float(coder, parts, new);
        }
        if bits <= 8 {
            let level = self.exponents.level(0) / 4;
            let value = coder.tree(&mut self.exponent[level << 8..][..256], bits, new)?;
            self.exponents.learn(signed(bits, value).unsigned_abs().try_into().unwrap_or(0));
            return Ok(value);
        }
        let step = self.step(coder, 0, 0, signed(bits, new))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // modulo 2^bits
        Ok(step as u32 & mask(bits))
    }

    fn float<C: Coder>(
        &mut self,
        coder: &mut C,
        parts: FloatParts,
        new: u32,
    ) -> Result<u32, DeltaError> {
        let FloatParts { exponent: width, mantissa } = parts;
        let sign = coder.direct(1, new >> (width + mantissa))?;
        // The upper exponents of single precision are hardly ever used.
        let level = self.exponents.level(if width == 8 { 96 } else { 0 });
        let chances = &mut self.exponent[level << 8..][..1 << width];
        let exponent = coder.tree(chances, width, exponent(parts, new))?;
        self.exponents.learn(exponent);
        let below = mantissa - LEADING;
        let first = coder.tree(
            &mut self.mantissa[..1 << LEADING],
            LEADING,
            new >> below & mask(LEADING),
        )?;
        let rest = rest(coder, &mut self.mantissa[1 << LEADING], below, new)?;
        Ok(sign << (width + mantissa) | exponent << mantissa | first << below | rest)
    }
}

/// The last bits of a number, of which nothing is known but whether they are all zero: rounded numbers'.
fn rest<C: Coder>(
    coder: &mut C,
    is_zero: &mut Bit,
    bits: u32,
    number: u32,
) -> Result<u32, DeltaError> {
    let rest = number & mask(bits);
    if bits == 0 || coder.bit(is_zero, rest == 0)? {
        return Ok(0);
    }
    coder.direct(bits, rest)
}

fn mask(bits: u32) -> u32 {
    u32::MAX.checked_shr(32 - bits).unwrap_or(0)
}

/// How many bits a number has.
pub(crate) fn length(number: u32) -> u32 {
    u32::BITS - number.leading_zeros()
}

pub(crate) fn exponent(parts: FloatParts, number: u32) -> u32 {
    number >> parts.mantissa & mask(parts.exponent)
}

/// Whether a float is so far from the one before that their difference says less than it says itself: on the other
/// side of zero, or of another order of size.
pub(crate) fn is_apart(parts: FloatParts, old: u32, new: u32) -> bool {
    let sign = parts.exponent + parts.mantissa;
    old >> sign != new >> sign || exponent(parts, old).abs_diff(exponent(parts, new)) > 1
}

/// The place of a float in the order of all floats of its type.
pub(crate) fn rank(bits: u32, number: u32) -> u32 {
    let sign = 1 << (bits - 1);
    if number & sign == 0 { number | sign } else { !number & mask(bits) }
}

pub(crate) fn unrank(bits: u32, rank: u32) -> u32 {
    let sign = 1 << (bits - 1);
    if rank & sign == 0 { !rank & mask(bits) } else { rank & !sign }
}

/// A number of so many bits, as a signed one.
pub(crate) fn signed(bits: u32, number: u32) -> i64 {
    i64::from((number << (32 - bits)).cast_signed() >> (32 - bits))
}

/// What tells most about a number's fate: of a float its size, of a small integer itself.
fn bucket(element: Element, old: u32) -> usize {
    let bucket = match element {
        Element::Float32 => old >> 21 & 0x3FF,
        Element::BFloat16 => old >> 5 & 0x3FF,
        Element::Float16 => old >> 8 & 0x7F,
        Element::Int4 | Element::Int8 => old,
        Element::Int16 | Element::Int32 => {
            let signed = signed(element.bits(), old);
            let length = u64::BITS - signed.unsigned_abs().leading_zeros();
            length << 1 | u32::from(signed < 0)
        }
    };
    (bucket as usize).min(BUCKETS - 1)
}

/// What is known of all numbers.
#[derive(Default)]
pub(crate) struct Numbers {
    known: [Option<Box<Known>>; crate::element::ELEMENTS],
}

/// How the numbers of a piece are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// As differences from those of before.
    Changed(Moved),
    /// By themselves.
    Fresh,
}

impl Numbers {
    fn known(&mut self, element: Element) -> &mut Known {
        let known = &mut self.known[element as usize];
        known.get_or_insert_with(|| Box::new(Known::new(element)))
    }

    /// A piece begins.
    pub(crate) fn begin(&mut self, element: Element) {
        self.known(element).begin();
    }

    /// Codes whole numbers: `new` holds them, or is filled with them. `old` is as long, and empty for fresh ones.
    pub(crate) fn code<C: Coder>(
        &mut self,
        coder: &mut C,
        element: Element,
        how: How,
        old: &[u8],
        new: &mut [u8],
    ) -> Result<(), DeltaError> {
        let known = self.known(element);
        let width = element.bytes();
        for (index, new) in new.chunks_exact_mut(width).enumerate() {
            let old = old.get(index * width..(index + 1) * width).map_or(0, read);
            let number = read(new);
            let coded = if element == Element::Int4 {
                let low = known.number(coder, how, old & 15, number & 15)?;
                low | known.number(coder, how, old >> 4, number >> 4)? << 4
            } else {
                known.number(coder, how, old, number)?
            };
            new.copy_from_slice(&coded.to_le_bytes()[..width]);
        }
        Ok(())
    }
}

impl Known {
    fn number<C: Coder>(
        &mut self,
        coder: &mut C,
        how: How,
        old: u32,
        new: u32,
    ) -> Result<u32, DeltaError> {
        match how {
            How::Changed(moved) => self.changed(coder, moved, old, new),
            How::Fresh => self.fresh(coder, new),
        }
    }
}

/// A number of at most four bytes, little-endian as in ONNX files.
pub(crate) fn read(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte))
}
