//! How long models take, measured so that the machine's moods fall on all of them alike: they run in
//! turn, round by round, and who begins changes from round to round. One thread, wall clock.

use std::time::{Duration, Instant};

use protocol::tensor::Tensor;

use crate::backend::Session;
use crate::error::RunError;

/// Rounds that fill caches and are not counted.
const WARM_ROUNDS: usize = 2;
/// Rounds that are made however long they take, so that there is a median.
const ROUNDS_MIN: usize = 5;
/// Beyond this, more rounds change no median.
const ROUNDS_MAX: usize = 200;

/// A session that failed, by its place in the list, and how.
#[derive(Debug, thiserror::Error)]
#[error("the model does not run")]
pub struct Failed {
    /// Which session.
    pub session: usize,
    /// How.
    #[source]
    pub source: RunError,
}

/// Runs all sessions with the same inputs, again and again for at most about `budget`. Each row of the
/// answer is one session, each column one round; microseconds.
///
/// # Errors
/// The first session that fails.
pub fn in_turn(
    sessions: &mut [&mut dyn Session],
    inputs: &[Tensor],
    budget: Duration,
) -> Result<Vec<Vec<f64>>, Failed> {
    let mut times = vec![Vec::new(); sessions.len()];
    let begin = Instant::now();
    for round in 0..WARM_ROUNDS + ROUNDS_MAX {
        for turn in 0..sessions.len() {
            // Who comes later finds warmer caches: so nobody always does.
            let session = (round + turn) % sessions.len();
            let took_us = time_us(&mut *sessions[session], inputs);
            let took_us = took_us.map_err(|source| Failed { session, source })?;
            if round >= WARM_ROUNDS {
                times[session].push(took_us);
            }
        }
        if begin.elapsed() > budget && times.first().is_some_and(|own| own.len() >= ROUNDS_MIN) {
            break;
        }
    }
    Ok(times)
}

fn time_us(session: &mut dyn Session, inputs: &[Tensor]) -> Result<f64, RunError> {
    let begin = Instant::now();
    session.run(inputs, &[])?;
    Ok(begin.elapsed().as_secs_f64() * 1e6)
}

/// What this share (0 to 1) of the values does not exceed; 0 of none. Sorts them.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a place in the list
    let place = (values.len() as f64 * share) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The median, over rounds, of how many times faster one session was than another.
pub fn speedup(yardstick_us: &[f64], own_us: &[f64]) -> f64 {
    let pairs = yardstick_us.iter().zip(own_us);
    quantile(&mut pairs.map(|(a, b)| a / b.max(1e-3)).collect::<Vec<_>>(), 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&mut [], 0.5), 0.0);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 1.0), 3.0);
        let mut hundred: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(quantile(&mut hundred, 0.95), 95.0);
    }

    #[test]
    fn a_speedup_is_of_rounds() {
        assert_eq!(speedup(&[2.0, 40.0, 6.0], &[1.0, 20.0, 2.0]), 2.0);
    }
}
