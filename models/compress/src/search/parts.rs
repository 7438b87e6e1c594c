//! Disjoint parts of the data.

use crate::error::CompressError;

/// The most items that ranges are measured on: they hardly change beyond.
const RANGES_MAX: usize = 128;
/// The most items that choices are made on: each trial answers all of them.
const CHOOSING_MAX: usize = 384;
/// The fewest items of each part.
const PART_MIN: usize = 2;

/// Which items are for what. No item is in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) ranges: Vec<usize>,
    pub(super) choosing: Vec<usize>,
    pub(super) evaluation: Vec<usize>,
}

impl Parts {
    /// Cuts `len` items; a third is for the final figures unless they have data of their own.
    pub(super) fn cut(len: usize, own_evaluation: bool, seed: u64) -> Result<Self, CompressError> {
        let purpose = "calibrating, choosing and the final figures, each on items of its own,";
        let parts = if own_evaluation { 2 } else { 3 };
        if len < PART_MIN * parts {
            return Err(CompressError::TooFew { have: len, needed: PART_MIN * parts, purpose });
        }
        let mut items: Vec<usize> = (0..len).collect();
        shuffle(&mut items, seed);
        let mut rest = items.split_off(len / parts);
        let evaluation = if own_evaluation { Vec::new() } else { rest.split_off(rest.len() / 2) };
        items.truncate(RANGES_MAX);
        rest.truncate(CHOOSING_MAX);
        Ok(Self { ranges: items, choosing: rest, evaluation })
    }
}

/// Fisher and Yates' shuffle with `SplitMix64` (Steele, Lea, Flood 2014).
#[allow(clippy::cast_possible_truncation)] // below the number of items
fn shuffle(items: &mut [usize], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        items.swap(last, (z % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_item_is_in_two_parts_and_a_seed_says_which() {
        for (len, own) in [(6, false), (1000, false), (4, true), (999, true)] {
            let parts = Parts::cut(len, own, 7).unwrap();
            assert_eq!(parts, Parts::cut(len, own, 7).unwrap());
            let all = [&parts.ranges[..], &parts.choosing, &parts.evaluation].concat();
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            assert_eq!(parts.evaluation.is_empty(), own);
        }
        assert_ne!(Parts::cut(100, false, 1).unwrap(), Parts::cut(100, false, 2).unwrap());
        assert!(Parts::cut(5, false, 0).is_err());
    }
}
