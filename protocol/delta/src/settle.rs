//! A fine-tuned model that travels well: each update rounded to a few leading bits.
//!
//! Training ends on numbers of 24 bits, of which the last dozen say nothing that the model needs, and nobody can
//! foresee: they are most of what a delta has to carry. An update that keeps its first four bits is off by at most
//! 1/8 of itself, by some 1/50 on average: no weight is further from where training left it than that share of the way
//! that it came.

use crate::element::Element;
use crate::numbers::{exponent, is_apart, length, rank, read, signed, unrank};
use crate::plan::{Source, Tensor, pairs};

/// How much of an update is kept, at most.
pub const LEADING_BITS_MAX: u32 = 24;
/// The coarsest steps of integers.
pub const STEP_MAX: u32 = 16;

/// How updates are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grain {
    /// Of a float's update: its leading bits that are kept, 1 to [`LEADING_BITS_MAX`].
    pub leading_bits: u32,
    /// Integers of eight bits, in tensors of two dimensions and more, move by multiples of this, towards where they
    /// were; 1 for as they are. So each is less than this many steps of its own scale from where it was put.
    pub step: u32,
}

impl Default for Grain {
    /// Four bits of floats; integers as they are.
    fn default() -> Self {
        Self { leading_bits: 4, step: 1 }
    }
}

/// What settling did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Settled {
    /// Tensors of floats that both files have.
    pub tensors: usize,
    /// Their numbers.
    pub numbers: u64,
    /// How many of them differed.
    pub moved: u64,
}

/// Rounds what differs between two versions, in tensors that both have; the new file with that, otherwise as it is.
pub fn settle(old: Source<'_>, new: Source<'_>, grain: Grain) -> (Vec<u8>, Settled) {
    let (mut bytes, mut settled) = (new.bytes.to_vec(), Settled::default());
    for (from, tensor) in pairs(old, new) {
        let Tensor { element, range, .. } = tensor;
        let Some(rounding) = Rounding::of(tensor, grain) else { continue };
        settled.tensors += 1;
        let width = element.bytes();
        let before = old.bytes[from..from + range.len()].chunks_exact(width);
        for (before, after) in before.zip(bytes[range.clone()].chunks_exact_mut(width)) {
            settled.numbers += 1;
            let (old, new) = (read(before), read(after));
            if old != new {
                settled.moved += 1;
                let rounded = rounding.round(*element, old, new);
                after.copy_from_slice(&rounded.to_le_bytes()[..width]);
            }
        }
    }
    (bytes, settled)
}

/// What is done to the numbers of one tensor.
#[derive(Debug, Clone, Copy)]
enum Rounding {
    Floats { leading_bits: u32 },
    Integers { step: u32 },
}

impl Rounding {
    fn of(tensor: &Tensor, grain: Grain) -> Option<Self> {
        let leading_bits = grain.leading_bits.clamp(1, LEADING_BITS_MAX);
        match tensor.element {
            // One of one dimension holds zero points, which are no weights.
            Element::Int8 if grain.step > 1 && tensor.dims.len() > 1 => {
                Some(Self::Integers { step: grain.step.min(STEP_MAX) })
            }
            element => element.float_parts().map(|_| Self::Floats { leading_bits }),
        }
    }

    fn round(self, element: Element, old: u32, new: u32) -> u32 {
        match self {
            Self::Floats { leading_bits } => round(element, old, new, leading_bits),
            Self::Integers { step } => {
                let (way, step) = (signed(8, new.wrapping_sub(old)), i64::from(step));
                let settled = i64::from(old) + way / step * step;
                let settled = u32::try_from(settled & 0xFF).unwrap_or(new);
                // Whether they are signed is not known here: where it matters, nothing is done.
                if (settled ^ new) & 0x80 == 0 { settled } else { new }
            }
        }
    }
}

fn round(element: Element, old: u32, new: u32, leading_bits: u32) -> u32 {
    let Some(parts) = element.float_parts() else { return new };
    let is_finite = |number: u32| exponent(parts, number) != (1 << parts.exponent) - 1;
    // A number that became zero, or was, is not on the way between two.
    if new == 0 || exponent(parts, old) == 0 || !is_finite(old) || !is_finite(new) {
        return new;
    }
    let settled = if is_apart(parts, old, new) {
        // It has gone as far as its own size at least, so its own leading bits are those of the update.
        let below = parts.mantissa.saturating_sub(leading_bits.saturating_sub(1).max(1));
        rounded(new, below)
    } else {
        step(element.bits(), old, new, leading_bits)
    };
    settled.filter(|number| is_finite(*number)).unwrap_or(new)
}

/// A number without its last bits.
fn rounded(number: u32, below: u32) -> Option<u32> {
    let half = if below == 0 { 0 } else { 1 << (below - 1) };
    Some(number.checked_add(half)? >> below << below)
}

/// The float that is so many leading bits of the way from one to the other.
fn step(bits: u32, old: u32, new: u32, leading_bits: u32) -> Option<u32> {
    let (from, to) = (rank(bits, old), rank(bits, new));
    let way = from.abs_diff(to);
    let step = rounded(way, length(way).saturating_sub(leading_bits))?;
    let settled = if to > from { from.checked_add(step) } else { from.checked_sub(step) }?;
    (bits == 32 || settled >> bits == 0).then(|| unrank(bits, settled))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(numbers: &[f32]) -> (Vec<u8>, Vec<Tensor>) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let range = 0..bytes.len();
        let tensor =
            Tensor { name: "w".to_owned(), dims: Vec::new(), element: Element::Float32, range };
        (bytes, vec![tensor])
    }

    #[test]
    fn updates_keep_their_leading_bits() {
        let old: Vec<f32> = (1..=64_u8).map(|i| f32::from(i) * 0.013 - 0.4).collect();
        let new: Vec<f32> =
            old.iter().zip(1..=64_u8).map(|(w, i)| w + 1e-4 * f32::from(i)).collect();
        let ((a, tensors), (b, _)) = (source(&old), source(&new));
        let [from, to] = [&a, &b].map(|bytes| Source { bytes, tensors: &tensors });
        let (settled, found) = settle(from, to, Grain::default());
        assert_eq!((found.tensors, found.numbers, found.moved), (1, 64, 64));
        for ((old, new), settled) in old.iter().zip(&new).zip(settled.chunks(4)) {
            let settled = f32::from_le_bytes(settled.try_into().unwrap());
            assert!((settled - new).abs() <= (new - old).abs() / 7.9, "{old} {new} {settled}");
        }
        assert_eq!(settle(from, from, Grain::default()).0, a);
        let again = Source { bytes: &settled, tensors: &tensors };
        assert_eq!(settle(from, again, Grain::default()).0, settled, "what is settled stays");
    }

    #[test]
    fn what_crosses_zero_keeps_its_size() {
        let old = [1e-4, -3e-5, 2e-6, 1e-3, -1e-3, 4e-4, 1e-9, 0.3_f32];
        let new = [-2e-4, 5e-5, 3e-3, 1e-6, -4e-6, -1e-3, 1e-3, 0.6];
        let ((a, tensors), (b, _)) = (source(&old), source(&new));
        let [from, to] = [&a, &b].map(|bytes| Source { bytes, tensors: &tensors });
        let (settled, _) = settle(from, to, Grain::default());
        for ((old, new), settled) in old.iter().zip(&new).zip(settled.chunks(4)) {
            let settled = f32::from_le_bytes(settled.try_into().unwrap());
            assert!((settled - new).abs() <= (new - old).abs() / 7.9, "{old} {new} {settled}");
        }
    }

    #[test]
    fn zeros_and_infinities_stay_what_they_are() {
        let old = [1.0, 0.0, 2.0, f32::MAX, -1.0, 1.0, 1.0, 1.0];
        let new = [0.0, 1.5, f32::INFINITY, f32::MAX, -1.0, f32::NAN, 1.0, 1.0];
        let ((a, tensors), (b, _)) = (source(&old), source(&new));
        let [from, to] = [&a, &b].map(|bytes| Source { bytes, tensors: &tensors });
        assert_eq!(settle(from, to, Grain { leading_bits: 1, step: 1 }).0, b);
    }

    #[test]
    fn integers_move_by_multiples_towards_where_they_were() {
        let old: Vec<u8> = (0..=255).flat_map(|old| [old; 256]).collect();
        let new: Vec<u8> = (0..256).flat_map(|_| 0..=255).collect();
        let tensor = |dims: Vec<i64>| Tensor {
            name: "w".to_owned(),
            dims,
            element: Element::Int8,
            range: 0..old.len(),
        };
        let weights = [tensor(vec![256, 256])];
        let settle_by = |step, tensors: &[Tensor]| {
            let [from, to] = [&old, &new].map(|bytes| Source { bytes, tensors });
            settle(from, to, Grain { step, ..Grain::default() }).0
        };
        for step in [2, 3, 4] {
            for ((old, new), settled) in old.iter().zip(&new).zip(settle_by(step, &weights)) {
                let (signed, unsigned) =
                    (settled.cast_signed().abs_diff(new.cast_signed()), settled.abs_diff(*new));
                let most = u8::try_from(step).unwrap();
                assert!(signed < most && unsigned < most, "{old} {new} {settled}");
            }
        }
        assert_eq!(settle_by(1, &weights), new);
        assert_eq!(settle_by(2, &[tensor(vec![65_536])]), new, "zero points stay");
    }
}
