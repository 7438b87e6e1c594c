//! Which numbers flowed through a value, in constant memory.
//!
//! Two rows of bins, for numbers above and below zero, over `[0, limit)`. A number beyond the limit
//! doubles it, and neighbouring bins are added up: nothing is lost but width. Zeros, which activation
//! functions make in masses and every integer form keeps exactly, are counted apart.

/// Bins on each side.
pub const BINS: usize = 2048;
/// Levels of eight bits.
const LEVELS: f64 = 255.0;

/// How a range is read from what was seen.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// From the least to the greatest.
    MinMax,
    /// So that this share of all numbers lies inside.
    Percentile(f64),
    /// What loses the least information: the smallest Kullback-Leibler divergence between what was
    /// seen and what eight bits leave of it (Migacz, 8-bit inference with TensorRT, 2017).
    Entropy,
    /// What moves numbers the least: the smallest mean squared error.
    Mse,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MinMax => f.write_str("min-max"),
            Self::Percentile(share) => write!(f, "percentile {:.3}", share * 100.0),
            Self::Entropy => f.write_str("entropy"),
            Self::Mse => f.write_str("mse"),
        }
    }
}

/// A range of numbers that contains zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// At most 0.
    pub low: f32,
    /// At least 0.
    pub high: f32,
}

impl Range {
    /// How wide it is.
    pub fn width(&self) -> f32 {
        self.high - self.low
    }
}

/// A histogram that widens.
#[derive(Debug, Clone)]
pub struct Histogram {
    above: Vec<u64>,
    below: Vec<u64>,
    zeros: u64,
    limit: f32,
    least: f32,
    greatest: f32,
    broken: bool,
}

impl Default for Histogram {
    fn default() -> Self {
        let empty = || vec![0; BINS];
        let (above, below) = (empty(), empty());
        Self { above, below, zeros: 0, limit: 0.0, least: 0.0, greatest: 0.0, broken: false }
    }
}

impl Histogram {
    /// Counts numbers. NaN and infinities are remembered, not counted.
    pub fn add(&mut self, values: &[f32]) {
        let Some((least, greatest)) = ends(values) else {
            self.broken = true;
            return;
        };
        (self.least, self.greatest) = (self.least.min(least), self.greatest.max(greatest));
        self.widen(self.greatest.max(-self.least));
        if self.limit == 0.0 {
            self.zeros += values.len() as u64;
            return;
        }
        let (rows, zeros) = in_bins(values, BINS as f32 / self.limit);
        for row in rows.chunks(2 * BINS) {
            let (below, above) = row.split_at(BINS);
            self.above.iter_mut().zip(above).for_each(|(sum, count)| *sum += u64::from(*count));
            self.below.iter_mut().zip(below.iter().rev()).for_each(|(s, c)| *s += u64::from(*c));
        }
        self.zeros += zeros;
        self.above[0] -= zeros;
    }

    fn widen(&mut self, greatest: f32) {
        if self.limit == 0.0 {
            self.limit = greatest * 1.000_001;
            return;
        }
        while greatest >= self.limit && self.limit < f32::MAX / 4.0 {
            for side in [&mut self.above, &mut self.below] {
                for bin in 0..BINS / 2 {
                    side[bin] = side[2 * bin] + side[2 * bin + 1];
                }
                side[BINS / 2..].fill(0);
            }
            self.limit *= 2.0;
        }
    }

    /// Whether all numbers were finite.
    pub fn is_finite(&self) -> bool {
        !self.broken
    }

    /// The range by a method.
    pub fn range(&self, method: Method) -> Range {
        let all = Range { low: self.least.min(0.0), high: self.greatest.max(0.0) };
        match method {
            _ if all.width() == 0.0 => Range { low: 0.0, high: 1.0 },
            Method::MinMax => all,
            Method::Percentile(share) => self.percentile(share, all),
            Method::Entropy => self.best(all, |range| self.divergence(range)),
            Method::Mse => self.best(all, |range| self.error(range)),
        }
    }

    fn width(&self) -> f64 {
        f64::from(self.limit) / BINS as f64
    }

    /// Cuts off at most the remaining share, half of it at each end.
    #[allow(clippy::cast_possible_truncation)] // a range is f32
    fn percentile(&self, share: f64, all: Range) -> Range {
        let total = self.zeros + self.above.iter().chain(&self.below).sum::<u64>();
        let may_go = (total as f64 * (1.0 - share) / 2.0) as u64;
        let edge = |side: &[u64]| {
            let mut gone = 0;
            for bin in (0..BINS).rev() {
                gone += side[bin];
                if gone > may_go {
                    return ((bin + 1) as f64 * self.width()) as f32;
                }
            }
            0.0
        };
        let range =
            Range { low: (-edge(&self.below)).max(all.low), high: edge(&self.above).min(all.high) };
        if range.width() > 0.0 { range } else { all }
    }

    /// The range with the least cost: each end from a twentieth of what was seen to all of it.
    #[allow(clippy::cast_possible_truncation)] // a range is f32
    fn best(&self, all: Range, cost: impl Fn(Range) -> f64) -> Range {
        let steps = |end: f32| match end {
            0.0 => vec![0.0],
            end => (4..=80u8).map(|step| end * f32::from(step) / 80.0).collect(),
        };
        // One end after the other: their costs hardly depend on each other.
        let mut best = all;
        for _ in 0..2 {
            let by_high = steps(all.high).into_iter().map(|high| Range { high, ..best });
            best = least(by_high, &cost).unwrap_or(best);
            let by_low = steps(all.low).into_iter().map(|low| Range { low, ..best });
            best = least(by_low, &cost).unwrap_or(best);
        }
        best
    }

    /// Mean squared error of eight bits over that range, not divided by the count.
    fn error(&self, range: Range) -> f64 {
        let step = f64::from(range.width()) / LEVELS;
        let inside = step * step / 12.0;
        let side = |bins: &[u64], end: f64| {
            let centre = |bin: usize| (bin as f64 + 0.5) * self.width();
            let cost = |(bin, count): (usize, &u64)| {
                let beyond = centre(bin) - end;
                let one = if beyond > 0.0 { beyond * beyond } else { inside };
                one * *count as f64
            };
            bins.iter().enumerate().map(cost).sum::<f64>()
        };
        side(&self.above, range.high.into()) + side(&self.below, (-range.low).into())
    }

    /// Kullback-Leibler divergence of what 256 levels over the range leave, from what was seen. What
    /// lies beyond an end is counted at the end, as clipping does.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // level numbers
    fn divergence(&self, range: Range) -> f64 {
        let step = f64::from(range.width()) / LEVELS;
        let mut seen = Vec::new();
        for (side, sign, end) in [(&self.above, 1.0, range.high), (&self.below, -1.0, -range.low)] {
            let last = ((f64::from(end) / self.width()) as usize).min(BINS - 1);
            for (bin, &count) in side.iter().enumerate().take(last + 1) {
                let beyond = if bin == last { side[last + 1..].iter().sum() } else { 0 };
                let centre = sign * (bin as f64 + 0.5) * self.width();
                let level = ((centre - f64::from(range.low)) / step).round().clamp(0.0, LEVELS);
                seen.push((level as usize, (count + beyond) as f64, count as f64));
            }
        }
        let mut levels = [(0.0, 0.0); 256];
        for &(level, _, inside) in seen.iter().filter(|bin| bin.2 > 0.0) {
            levels[level].0 += inside;
            levels[level].1 += 1.0;
        }
        let total: f64 = seen.iter().map(|bin| bin.1).sum();
        let left: f64 = seen.iter().map(|bin| bin.2).sum();
        let mut divergence = 0.0;
        for (level, seen, inside) in seen.into_iter().filter(|bin| bin.1 > 0.0) {
            let (sum, bins) = levels[level];
            let model = if inside > 0.0 { sum / bins / left } else { 1e-9 };
            let share = seen / total;
            divergence += share * (share / model).ln();
        }
        divergence
    }
}

/// The last of both sides' bins.
const LAST: i32 = 4095;
/// Numbers that are looked at together: without a branch, a compiler makes few instructions of them.
const LANES: usize = 16;
/// Rows of bins that take turns: neighbours are often alike, and one count need not wait for the other.
const ROWS: usize = 4;

/// The least and the greatest of some numbers and zero; none if one of them is no number.
fn ends(values: &[f32]) -> Option<(f32, f32)> {
    let (mut least, mut greatest, mut odd) = ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut last = [0.0; LANES];
    last[..rest.len()].copy_from_slice(rest);
    for block in blocks.iter().chain([&last]) {
        for (lane, value) in block.iter().enumerate() {
            least[lane] = if *value < least[lane] { *value } else { least[lane] };
            greatest[lane] = if *value > greatest[lane] { *value } else { greatest[lane] };
            odd[lane] += value * 0.0; // not zero for what is not finite, and never again
        }
    }
    let fold = |lanes: [f32; LANES], of: fn(f32, f32) -> f32| lanes.into_iter().fold(0.0, of);
    (odd.iter().all(|o| *o == 0.0)).then(|| (fold(least, f32::min), fold(greatest, f32::max)))
}

/// Rows of bins with those below zero first, the farthest first, and how many numbers were zero, which are counted in the
/// bin above it.
fn in_bins(values: &[f32], per_bin: f32) -> (Vec<u32>, u64) {
    let mut rows = vec![0u32; ROWS * 2 * BINS];
    let mut zeros = 0;
    let (blocks, rest) = values.as_chunks::<LANES>();
    let mut count = |block: &[f32]| {
        let mut places = [0usize; LANES];
        for (place, value) in places.iter_mut().zip(block) {
            *place = bin(*value, per_bin);
            zeros += u64::from(*value == 0.0);
        }
        for (lane, place) in places[..block.len()].iter().enumerate() {
            rows[lane % ROWS * 2 * BINS + place] += 1;
        }
    };
    blocks.iter().for_each(|block| count(block));
    count(rest);
    (rows, zeros)
}

/// Where a number is counted in a row of bins.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within the bins
fn bin(value: f32, per_bin: f32) -> usize {
    // Above zero before it is cut off: so below zero the cut goes the right way too.
    let place = (value * per_bin + BINS as f32) as i32;
    place.clamp(0, LAST) as usize
}

fn least(ranges: impl Iterator<Item = Range>, cost: &impl Fn(Range) -> f64) -> Option<Range> {
    let usable = ranges.filter(|range| range.width() > 0.0).map(|range| (cost(range), range));
    usable.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, range)| range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_keeps_every_count_and_the_true_ends() {
        let mut histogram = Histogram::default();
        histogram.add(&[0.0, 0.0]);
        histogram.add(&[0.5, -0.25, 1.0]);
        histogram.add(&[1000.0, -3.0]);
        let counted: u64 = histogram.above.iter().chain(&histogram.below).sum();
        assert_eq!((counted, histogram.zeros), (5, 2));
        assert_eq!(histogram.range(Method::MinMax), Range { low: -3.0, high: 1000.0 });
    }

    #[test]
    fn outliers_are_cut_by_every_method_but_min_max() {
        let mut histogram = Histogram::default();
        let bulk: Vec<f32> =
            (0u16..60_000).map(|i| (f32::from(i % 1000) / 1000.0).powi(3)).collect();
        histogram.add(&bulk);
        histogram.add(&[100.0]);
        assert_eq!(histogram.range(Method::MinMax).high, 100.0);
        for method in [Method::Percentile(0.9999), Method::Entropy] {
            let high = histogram.range(method).high;
            assert!((0.9..50.0).contains(&high), "{method}: {high}");
        }
        let mse = histogram.range(Method::Mse).high;
        assert!(mse < 100.0, "{mse}");
    }

    #[test]
    fn numbers_that_are_none_are_remembered() {
        let mut histogram = Histogram::default();
        histogram.add(&[1.0, f32::NAN]);
        assert!(!histogram.is_finite());
        let mut histogram = Histogram::default();
        histogram.add(&[f32::INFINITY]);
        assert!(!histogram.is_finite());
    }
}
