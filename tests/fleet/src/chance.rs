//! Numbers that a seed decides.

/// `SplitMix64` (Steele, Lea and Flood, 2014): small, and every seed is good.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The numbers of one stream of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut mixed = Self(seed);
        let start = mixed.next() ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03);
        Self(start)
    }

    /// Any number.
    #[allow(clippy::should_implement_trait)] // it never ends
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal: the sum of twelve.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// How many of so many come true, each with this chance.
    pub fn times(&mut self, of: u64, chance: f64) -> u64 {
        if chance <= 0.0 {
            return 0;
        }
        (0..of).filter(|_| self.unit() < chance).count() as u64
    }

    /// How many things happen where so many are expected (Knuth's way, for small numbers).
    pub fn poisson(&mut self, expected: f64) -> u64 {
        let (limit, mut product, mut count) = ((-expected.clamp(0.0, 500.0)).exp(), 1.0, 0);
        loop {
            product *= self.unit();
            if product <= limit {
                return count;
            }
            count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_they_are_spread_as_they_should() {
        let drawn = |seed, stream| {
            let mut chance = Chance::new(seed, stream);
            (0..4).map(|_| chance.next()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1, 2), drawn(1, 2));
        assert_ne!(drawn(1, 2), drawn(1, 3));
        assert_ne!(drawn(1, 2), drawn(2, 2));
        let mut chance = Chance::new(7, 0);
        let mean = |of: &mut dyn FnMut() -> f64| (0..10_000).map(|_| of()).sum::<f64>() / 10_000.0;
        assert!((mean(&mut || chance.unit()) - 0.5).abs() < 0.02);
        assert!(mean(&mut || chance.normal()).abs() < 0.05);
        assert!((mean(&mut || chance.poisson(3.0) as f64) - 3.0).abs() < 0.1);
        assert!((mean(&mut || chance.times(10, 0.2) as f64) - 2.0).abs() < 0.1);
    }
}
