//! A fine-tuned model that travels well: each update rounded to a few leading bits.
//!
//! Training ends on numbers of 24 bits, of which the last dozen say nothing that the model needs, and nobody can
//! foresee: they are most of what a delta has to carry. An update that keeps its first four bits is off by at most
//! 1/16 of itself: no weight is further from where training left it than that share of the way that it came.

use crate::element::Element;
use crate::numbers::{length, rank, read, unrank};
use crate::plan::{Source, Tensor, pairs};

/// How much of an update is kept, at most.
pub const LEADING_BITS_MAX: u32 = 24;

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

/// Rounds what differs between two versions, in tensors of floats that both have, to so many leading bits of the
/// difference; the new file with that, otherwise as it is.
pub fn settle(old: Source<'_>, new: Source<'_>, leading_bits: u32) -> (Vec<u8>, Settled) {
    let (mut bytes, mut settled) = (new.bytes.to_vec(), Settled::default());
    for (from, tensor) in pairs(old, new) {
        let Tensor { element, range, .. } = tensor;
        if element.float_parts().is_none() {
            continue;
        }
        settled.tensors += 1;
        let width = element.bytes();
        let before = old.bytes[from..from + range.len()].chunks_exact(width);
        for (before, after) in before.zip(bytes[range.clone()].chunks_exact_mut(width)) {
            settled.numbers += 1;
            let (old, new) = (read(before), read(after));
            if old != new {
                settled.moved += 1;
                let rounded = round(*element, old, new, leading_bits.clamp(1, LEADING_BITS_MAX));
                after.copy_from_slice(&rounded.to_le_bytes()[..width]);
            }
        }
    }
    (bytes, settled)
}

fn round(element: Element, old: u32, new: u32, leading_bits: u32) -> u32 {
    let bits = element.bits();
    let is_finite = |number: u32| {
        element.float_parts().is_some_and(|parts| {
            let all = (1 << parts.exponent) - 1;
            number >> parts.mantissa & all != all
        })
    };
    // A number that became zero, or was, is not on the way between two.
    if new == 0 || old == 0 || !is_finite(old) || !is_finite(new) {
        return new;
    }
    let (from, to) = (rank(bits, old), rank(bits, new));
    let below = length(from.abs_diff(to)).saturating_sub(leading_bits);
    let unit = 1_u32 << below;
    let step = (u64::from(from.abs_diff(to)) + u64::from(unit / 2)) >> below << below;
    let step = u32::try_from(step).unwrap_or(0);
    let settled = if to > from { from.checked_add(step) } else { from.checked_sub(step) };
    let settled = settled.filter(|rank| bits == 32 || rank >> bits == 0).map(|r| unrank(bits, r));
    settled.filter(|number| is_finite(*number)).unwrap_or(new)
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
        let (settled, found) = settle(from, to, 4);
        assert_eq!((found.tensors, found.numbers, found.moved), (1, 64, 64));
        for ((old, new), settled) in old.iter().zip(&new).zip(settled.chunks(4)) {
            let settled = f32::from_le_bytes(settled.try_into().unwrap());
            assert!((settled - new).abs() <= (new - old).abs() / 15.9, "{old} {new} {settled}");
        }
        assert_eq!(settle(from, from, 4).0, a);
        let again = Source { bytes: &settled, tensors: &tensors };
        assert_eq!(settle(from, again, 4).0, settled, "what is settled stays");
    }

    #[test]
    fn zeros_and_infinities_stay_what_they_are() {
        let old = [1.0, 0.0, 2.0, f32::MAX, -1.0, 1.0, 1.0, 1.0];
        let new = [0.0, 1.5, f32::INFINITY, f32::MAX, -1.0, f32::NAN, 1.0, 1.0];
        let ((a, tensors), (b, _)) = (source(&old), source(&new));
        let [from, to] = [&a, &b].map(|bytes| Source { bytes, tensors: &tensors });
        assert_eq!(settle(from, to, 1).0, b);
    }
}
