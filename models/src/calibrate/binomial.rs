//! The binomial distribution, exact to rounding: its probabilities by Loader's saddle-point expansion
//! ("Fast and Accurate Computation of Binomial Probabilities", 2000), its tail as their sum.

use std::f64::consts::PI;

/// `P(X = k)` of `X ~ Bin(n, p)`, for `p` between 0 and 1.
pub fn probability(k: u64, n: u64, p: f64) -> f64 {
    if k > n {
        return 0.0;
    }
    let (kf, nf) = (as_f64(k), as_f64(n));
    if k == 0 {
        return (nf * (-p).ln_1p()).exp();
    }
    if k == n {
        return (nf * p.ln()).exp();
    }
    let rest = nf - kf;
    let exponent = stirling_error(nf)
        - stirling_error(kf)
        - stirling_error(rest)
        - deviance(kf, nf * p)
        - deviance(rest, nf * (1.0 - p));
    exponent.exp() * (nf / (2.0 * PI * kf * rest)).sqrt()
}

/// `P(X <= k)` of `X ~ Bin(n, p)`, for `p` between 0 and 1.
pub fn lower_tail(k: u64, n: u64, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    if as_f64(k) > as_f64(n) * p {
        return 1.0 - falling_tail(n - k - 1, n, 1.0 - p); // the shorter side, by reflection
    }
    falling_tail(k, n, p)
}

/// The same for `k` of at most the mean, so that terms only fall.
fn falling_tail(k: u64, n: u64, p: f64) -> f64 {
    let mut term = probability(k, n, p);
    let mut sum = term;
    let odds = (1.0 - p) / p;
    for i in (1..=k).rev() {
        term *= as_f64(i) / as_f64(n - i + 1) * odds; // P(i - 1) from P(i)
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    sum.min(1.0)
}

/// The upper end of Clopper and Pearson's one-sided interval (1934): the largest `p` with
/// `P(X <= k) >= 1 - confidence`.
pub fn clopper_pearson_upper(k: u64, n: u64, confidence: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    if k >= n {
        return 1.0;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        match lower_tail(k, n, middle) >= 1.0 - confidence {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

/// The fewest trials of which none may fail for a risk of `p` to be refuted: `(1 - p)^n <= 1 - confidence`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count, rounded up
pub fn fewest_without_error(p: f64, confidence: f64) -> u64 {
    ((1.0 - confidence).ln() / (-p).ln_1p()).ceil() as u64
}

#[allow(clippy::cast_precision_loss)] // counts of items
pub(super) fn as_f64(count: u64) -> f64 {
    count as f64
}

/// `ln n! - ln(sqrt(2 pi n) (n/e)^n)`, for a whole `n` of at least 1.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // whole and small
fn stirling_error(n: f64) -> f64 {
    if n < 16.0 {
        let ln_factorial: f64 = (2..=n as u64).map(|i| as_f64(i).ln()).sum();
        return ln_factorial - (n + 0.5) * n.ln() + n - 0.5 * (2.0 * PI).ln();
    }
    let square = n * n;
    let series = 1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / (1188.0 * square)) / square;
    (1.0 / 12.0 - (1.0 / 360.0 - series / square) / square) / n
}

/// `x ln(x / m) + m - x`, without cancellation where `x` is near `m`.
fn deviance(x: f64, m: f64) -> f64 {
    let v = (x - m) / (x + m);
    if v.abs() >= 0.1 {
        return x * (x / m).ln() + m - x;
    }
    // x ln((1 + v) / (1 - v)) = 2x (v + v^3/3 + v^5/5 + ...), and m - x + 2xv = (x - m) v.
    let mut sum = (x - m) * v;
    let mut power = 2.0 * x * v;
    for odd in (3..60).step_by(2) {
        power *= v * v;
        let next = sum + power / f64::from(odd);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pascal's triangle, as probabilities: one trial after the other.
    fn by_convolution(n: u64, p: f64) -> Vec<f64> {
        let mut row = vec![1.0];
        for _ in 0..n {
            let mut next = vec![0.0; row.len() + 1];
            for (k, x) in row.iter().enumerate() {
                next[k] += x * (1.0 - p);
                next[k + 1] += x * p;
            }
            row = next;
        }
        row
    }

    #[test]
    fn tails_are_the_brute_force_sums() {
        for n in [1, 2, 7, 30, 299, 1000] {
            for p in [1e-4, 0.005, 0.02, 0.3, 0.5, 0.9] {
                let row = by_convolution(n, p);
                let mut sum = 0.0;
                for (k, expected) in row.iter().enumerate() {
                    sum += expected;
                    let (found, tail) = (probability(k as u64, n, p), lower_tail(k as u64, n, p));
                    let near = |a: f64, b: f64| (a - b).abs() <= 1e-11 * b.abs() + 1e-290;
                    assert!(near(found, *expected), "P({k};{n},{p}) {found} {expected}");
                    assert!(near(tail, sum), "P(<={k};{n},{p}) {tail} {sum}");
                }
            }
        }
        assert_eq!((probability(3, 2, 0.5), lower_tail(5, 2, 0.5)), (0.0, 1.0));
    }

    #[test]
    fn large_counts_stay_exact() {
        // One more success: P(X <= k) - P(X <= k - 1) = P(X = k), on both sides of the mean.
        for (n, p, mean) in [(1_000_000, 0.005, 5_000u64), (10_000, 0.005, 50), (5_000, 0.05, 250)]
        {
            for k in mean - 30..mean + 30 {
                let step = lower_tail(k, n, p) - lower_tail(k - 1, n, p);
                assert!((step - probability(k, n, p)).abs() < 1e-11, "{k} {n} {p}");
            }
        }
    }

    #[test]
    fn clopper_pearson_is_where_the_tail_crosses() {
        // No failure among n: 1 - 0.05^(1/n).
        let upper = clopper_pearson_upper(0, 100, 0.95);
        assert!((upper - (1.0 - 0.05f64.powf(0.01))).abs() < 1e-12);
        for (k, n) in [(1, 20), (12, 4000), (300, 5000)] {
            let upper = clopper_pearson_upper(k, n, 0.95);
            assert!((lower_tail(k, n, upper) - 0.05).abs() < 1e-9, "{k} {n}");
        }
        assert_eq!(clopper_pearson_upper(5, 5, 0.95), 1.0);
    }

    #[test]
    fn so_many_must_be_right_in_a_row() {
        assert_eq!(fewest_without_error(0.005, 0.95), 598);
        assert_eq!(fewest_without_error(0.01, 0.95), 299);
        for n in [597, 598] {
            assert_eq!(lower_tail(0, n, 0.005) <= 0.05, n == 598);
        }
    }
}
