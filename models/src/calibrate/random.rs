//! Randomness from a seed: which item is in which split, and the test's coin.

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and every seed is good.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed; the same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform on 0..1.
    #[allow(clippy::cast_precision_loss)] // 53 bits are exact
    pub fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform on 0..1, as confidences are.
    #[cfg(test)]
    #[allow(clippy::cast_possible_truncation)] // rounds
    pub(super) fn narrow(&mut self) -> f32 {
        self.share() as f32
    }

    /// Uniform on 0..`end`, which is above 0.
    #[allow(clippy::cast_possible_truncation)] // below `end`
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.bits()) * end as u128) >> 64) as usize
    }

    /// Fisher and Yates' shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}
