//! Who asks, how often and for what.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and every seed is good.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly in (0, 1].
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Exponential with this mean.
    pub(crate) fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-self.unit().ln())
    }

    /// Around 1, with this standard deviation (the sum of 12 even ones is nearly normal).
    pub(crate) fn noise(&mut self, deviation: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.unit()).sum();
        (1.0 + deviation * (sum - 6.0)).max(0.2)
    }
}

/// One tenant's requests.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) tenant: &'static str,
    /// Requests a second, on average.
    pub(crate) per_s: f64,
    /// Requests that come at one moment.
    pub(crate) burst: u32,
    /// Sizes, evenly chosen.
    pub(crate) items: &'static [u32],
    pub(crate) shapes: u64,
    pub(crate) deadline: Duration,
    pub(crate) priority: u8,
    pub(crate) weight: u32,
    /// Of so many requests, one is cancelled at some moment before its deadline; 0 for none.
    pub(crate) cancels_one_in: u64,
}

impl Source {
    pub(crate) fn new(tenant: &'static str, per_s: f64) -> Self {
        Self {
            tenant,
            per_s,
            burst: 1,
            items: &[1],
            shapes: 1,
            deadline: Duration::from_secs(2),
            priority: 0,
            weight: 1,
            cancels_one_in: 0,
        }
    }

    pub(crate) fn gap(&self, random: &mut Random) -> Duration {
        random.exponential(Duration::from_secs_f64(f64::from(self.burst) / self.per_s))
    }
}
