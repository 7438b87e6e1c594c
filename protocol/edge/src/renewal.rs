//! When a certificate is renewed: at two thirds of its life, give or take a tenth, so that devices
//! enrolled in one hour do not come back in one minute. And at once where its life has not begun: it
//! was made by a cloud whose clock stood ahead, and is no good to one whose clock is right.

/// Whether the certificate valid from `not_before_s` to `not_after_s` (Unix seconds) is due at
/// `now_s`. `jitter` is a random number that stays the same for one process.
pub fn is_due(not_before_s: i64, not_after_s: i64, now_s: i64, jitter: u64) -> bool {
    let life_s = not_after_s.saturating_sub(not_before_s).max(0);
    let permille = 567 + i64::try_from(jitter % 201).unwrap_or(100);
    now_s < not_before_s || now_s >= not_before_s.saturating_add(life_s / 1000 * permille)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_two_thirds_give_or_take_a_tenth() {
        let due_after = |jitter| (0..=100).find(|p| is_due(0, 100_000, p * 1000, jitter)).unwrap();
        assert_eq!((due_after(0), due_after(100), due_after(200)), (57, 67, 77));
        assert!(is_due(0, 100_000, 1_000_000, 0), "long past its end");
        assert!(is_due(0, 100_000, -1, 0), "not valid yet");
    }
}
