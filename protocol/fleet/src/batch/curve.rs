//! How long a run takes, learnt from the runs themselves.
//!
//! A [`Curve`] is piecewise linear over the number of items, with knots at powers of two. Each
//! measured run moves the knots beside it a little towards itself: stochastic gradient descent on
//! hat functions. The step is clipped (Huber, "Robust Estimation of a Location Parameter", 1964),
//! so that one run that the system held up moves the curve no further than a small step would.
//! Spread is a smoothed mean deviation, as TCP keeps for its round trips (RFC 6298).
//!
//! Nothing is persisted: another machine, or this one on another day, has another curve.

use std::time::Duration;

/// Knots at 1, 2, 4, ... 1,024 items.
const KNOTS: usize = 11;
/// The share of an error by which a knot moves: 1/8, the weight of RFC 6298.
const STEP: i64 = 8;
/// The share of an error by which the deviation moves: 1/4, the weight of RFC 6298.
const DEVIATION_STEP: i64 = 4;
/// A larger batch must save more than 1/32 of the time per item, or the smaller one is as good.
const WORTH: u64 = 32;
/// Of so many runs, one tries a size that seemed no better: it may have been measured on a bad day.
const RETRY_EVERY: u64 = 128;
/// Longer than any run: no product of times and items overflows.
const HOUR_NS: i64 = 3_600_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Knot {
    time_ns: i64,
    deviation_ns: i64,
}

/// Time of a run by its number of items.
#[derive(Debug, Clone, Default)]
pub struct Curve {
    knots: [Option<Knot>; KNOTS],
    runs: u64,
}

impl Curve {
    /// Learns from one run of `items` items.
    pub fn record(&mut self, items: u32, ran: Duration) {
        let ran = to_ns(ran);
        self.runs += 1;
        let [low, high] = bracket(items);
        let expected = self.at(items);
        for side in [low, high] {
            if side.weight > 0 {
                self.move_knot(side, items, ran, expected);
            }
        }
    }

    fn move_knot(&mut self, side: Side, items: u32, ran: i64, expected: Option<Knot>) {
        let knot = &mut self.knots[side.knot];
        let (Some(known), Some(expected)) = (knot.as_mut(), expected) else {
            // In proportion: more than a batch takes, if batches are worth anything.
            let time_ns = ran.saturating_mul(1 << side.knot) / i64::from(items.max(1));
            *knot = Some(Knot { time_ns, deviation_ns: time_ns / 8 });
            return;
        };
        let clip = (4 * expected.deviation_ns).max(expected.time_ns / 4).max(1);
        let error = (ran - expected.time_ns).clamp(-clip, clip);
        let share = |amount: i64, step: i64| amount * side.weight / (side.span * step);
        known.time_ns = (known.time_ns + share(error, STEP)).max(1);
        known.deviation_ns += share(error.abs() - known.deviation_ns, DEVIATION_STEP);
    }

    /// The typical time of a run of `items` items; `None` before the first run.
    pub fn typical(&self, items: u32) -> Option<Duration> {
        self.at(items).map(|knot| from_ns(knot.time_ns))
    }

    /// A time that such a run rarely exceeds: the typical one and twice the mean deviation, about
    /// 95 of 100 runs where the spread is normal. Zero before the first run.
    pub fn safe(&self, items: u32) -> Duration {
        let time = self.at(items).map(|knot| knot.time_ns + 2 * knot.deviation_ns);
        from_ns(time.unwrap_or(0))
    }

    /// What such a run takes at least: for more items than ever ran, the time of the most that did.
    /// Judged by [`Curve::typical`], which is careful there, a larger size might never be tried.
    pub fn at_least(&self, items: u32) -> Duration {
        let largest = self.largest().unwrap_or(1);
        self.typical(items.min(largest)).unwrap_or_default()
    }

    /// This curve moved up or down as a whole, so that it passes through one measured run: what is
    /// to be expected of requests of another shape.
    #[must_use]
    pub fn through(&self, items: u32, ran: Duration) -> Self {
        let Some(expected) = self.at(items) else {
            let mut curve = Self::default();
            curve.record(items, ran);
            return curve;
        };
        let ran = i128::from(to_ns(ran));
        let scale = |ns: i64| {
            let scaled = i128::from(ns) * ran / i128::from(expected.time_ns.max(1));
            i64::try_from(scaled.min(i128::from(HOUR_NS))).unwrap_or(HOUR_NS).max(1)
        };
        let move_knot = |knot: Knot| Knot {
            time_ns: scale(knot.time_ns),
            deviation_ns: scale(knot.deviation_ns),
        };
        Self { knots: self.knots.map(|knot| knot.map(move_knot)), runs: 1 }
    }

    /// The largest knot that runs have taught.
    fn largest(&self) -> Option<u32> {
        self.knots.iter().rposition(Option::is_some).map(|knot| 1 << knot)
    }

    /// The number of items up to `max` at which an item is cheapest, and the smallest of those
    /// that are as good. A size twice as large as any that ran is tried when all so far paid off.
    pub fn best_size(&self, max: u32) -> u32 {
        let sizes = || (0..KNOTS).map(|k| 1 << k).take_while(|size| *size < max).chain([max]);
        let Some(largest) = self.largest() else { return 1 };
        let per_item = |size: u32| self.at(size).map_or(u64::MAX, |k| per(k.time_ns, size));
        let known = || sizes().filter(|size| *size <= largest);
        let best = known().map(per_item).min().unwrap_or(u64::MAX);
        let enough = best.saturating_add(best / WORTH);
        let chosen = known().find(|size| per_item(*size) <= enough).unwrap_or(1);
        let next = sizes().find(|size| *size > chosen);
        let untried = next.is_some_and(|size| size > largest);
        match next {
            Some(next) if untried || self.runs.is_multiple_of(RETRY_EVERY) => next,
            _ => chosen,
        }
    }

    /// Interpolated between two known knots; in proportion to the known knot below; or at most
    /// what the known knot above takes.
    fn at(&self, items: u32) -> Option<Knot> {
        let [low, high] = bracket(items);
        let within = items <= 1 << (KNOTS - 1);
        if let (true, Some(a), Some(b)) = (within, self.knots[low.knot], self.knots[high.knot]) {
            let mix = |a: i64, b: i64| (a * low.weight + b * high.weight) / low.span;
            return Some(Knot {
                time_ns: mix(a.time_ns, b.time_ns),
                deviation_ns: mix(a.deviation_ns, b.deviation_ns),
            });
        }
        let below = (0..=low.knot).rev().find_map(|k| Some((k, self.knots[k]?)));
        if let Some((knot, known)) = below {
            let scale = |ns: i64| ns.saturating_mul(i64::from(items)) >> knot;
            return Some(Knot {
                time_ns: scale(known.time_ns),
                deviation_ns: scale(known.deviation_ns),
            });
        }
        self.knots[high.knot..].iter().find_map(|knot| *knot)
    }
}

/// One of the two knots beside a number of items, and how much it counts: `weight / span`.
#[derive(Clone, Copy)]
struct Side {
    knot: usize,
    weight: i64,
    span: i64,
}

fn bracket(items: u32) -> [Side; 2] {
    let items = items.clamp(1, 1 << (KNOTS - 1));
    let low = items.ilog2();
    let span = 1_i64 << low;
    let above = i64::from(items) - span;
    let high = if above == 0 { low } else { low + 1 };
    let side = |knot: u32, weight| Side { knot: knot as usize, weight, span };
    [side(low, span - above), side(high, above)]
}

fn per(time_ns: i64, items: u32) -> u64 {
    time_ns.unsigned_abs() / u64::from(items.max(1))
}

fn to_ns(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(HOUR_NS).clamp(1, HOUR_NS)
}

fn from_ns(ns: i64) -> Duration {
    Duration::from_nanos(ns.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: fn(u64) -> Duration = Duration::from_micros;

    fn linear(fixed_us: u64, item_us: u64, sizes: &[u32]) -> Curve {
        let mut curve = Curve::default();
        for _ in 0..50 {
            for n in sizes {
                curve.record(*n, US(fixed_us + item_us * u64::from(*n)));
            }
        }
        curve
    }

    #[track_caller]
    fn close(curve: &Curve, items: u32, expected_us: u64) {
        let us = curve.typical(items).unwrap().as_micros().try_into().unwrap_or(u64::MAX);
        assert!(us.abs_diff(expected_us) * 20 <= expected_us, "{us} is not about {expected_us}");
    }

    #[test]
    fn nothing_is_known_before_the_first_run() {
        let curve = Curve::default();
        assert_eq!((curve.typical(1), curve.safe(1), curve.best_size(16)), (None, US(0), 1));
    }

    #[test]
    fn a_line_is_learnt_between_and_beyond_its_samples() {
        let curve = linear(2000, 500, &[1, 2, 4, 8, 16]);
        for n in 1..=16 {
            close(&curve, n, 2000 + 500 * u64::from(n));
        }
        // In proportion beyond: 1.6 times what it would take, so no deadline is missed by it.
        close(&curve, 32, 20_000);
    }

    #[test]
    fn sizes_between_the_knots_teach_both() {
        let curve = linear(2000, 500, &[3, 5, 6, 7]);
        for n in [3, 5, 6, 7] {
            close(&curve, n, 2000 + 500 * u64::from(n));
        }
    }

    #[test]
    fn one_run_in_thirty_that_was_held_up_does_not_bend_it() {
        let mut curve = Curve::default();
        for i in 0..3000_u64 {
            let held_up = if i % 30 == 7 { 50_000 } else { 0 };
            curve.record(1, US(1000 + i % 20 + held_up));
        }
        let us = curve.typical(1).unwrap().as_micros();
        assert!((1000..1200).contains(&us), "{us}");
    }

    #[test]
    fn a_lasting_change_is_followed() {
        let mut curve = linear(0, 1000, &[1]);
        for _ in 0..60 {
            curve.record(1, US(4000));
        }
        close(&curve, 1, 4000);
    }

    #[test]
    fn another_shape_begins_with_the_form_of_the_whole() {
        let long = linear(2000, 500, &[1, 2, 4, 8, 16]).through(1, US(25_000));
        close(&long, 1, 25_000);
        close(&long, 16, 100_000);
    }

    #[test]
    fn batches_grow_only_while_they_pay() {
        assert_eq!(linear(2000, 500, &[1, 2, 4, 8, 16]).best_size(16), 16);
        assert_eq!(linear(2000, 500, &[1, 2, 4]).best_size(16), 8, "the next size is tried");
        assert_eq!(linear(2000, 500, &[1, 2, 4, 8]).best_size(12), 12);
        let costly = linear(10, 1000, &[1, 2, 4, 8]);
        let sizes: Vec<u32> = vec![costly.best_size(8)];
        assert_eq!(sizes, [1], "per item nothing is saved");
    }
}
