//! What a device counts of how a model answers: numbers without content, a fixed list, the same for every model.
//!
//! Times fall into buckets a quarter of an octave wide, from 32 us to 7 s: coarse enough to be sent every few
//! seconds, fine enough that a version twice as slow as another is four buckets away. Both ends count in these.

/// How many buckets the times of local runs fall into.
pub const BUCKETS: usize = 72;
/// Models of which one frame may tell.
pub const EVIDENCE_MODELS_MAX: usize = 64;
/// The most often that a cloud may ask for it, in seconds.
pub const EVERY_MIN_S: u32 = 1;
/// The least often.
pub const EVERY_MAX_S: u32 = 3600;
/// No more than one of so many calls is checked, whatever a cloud asks for.
pub const CALLS_PER_CHECK_MIN: u32 = 10;

/// The first bucket ends here, in microseconds.
const FIRST_US: f64 = 32.0;
/// Buckets for each doubling.
const PER_OCTAVE: f64 = 4.0;

/// The bucket of a run that took so long: bucket `i` ends at 32 us x 2^(i / 4), the last takes what is longer.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to BUCKETS
pub fn bucket(took_us: f64) -> usize {
    let octaves = (took_us / FIRST_US).max(1.0).log2();
    ((octaves * PER_OCTAVE).ceil() as usize).min(BUCKETS - 1)
}

/// Where a bucket ends, in milliseconds.
#[allow(clippy::cast_precision_loss)] // from 0 to BUCKETS
pub fn bucket_end_ms(bucket: usize) -> f64 {
    FIRST_US * (bucket as f64 / PER_OCTAVE).exp2() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_within_its_bucket() {
        for took_us in [0.0, 1.0, 32.0, 33.0, 64.0, 500.0, 1e6, 7e6] {
            let at = bucket(took_us);
            assert!(took_us / 1000.0 <= bucket_end_ms(at) + 1e-9, "{took_us}");
            assert!(at == 0 || took_us / 1000.0 > bucket_end_ms(at - 1) - 1e-9, "{took_us}");
        }
        assert_eq!([bucket(32.0), bucket(64.0), bucket(1e12)], [0, 4, BUCKETS - 1]);
        assert_eq!(bucket(f64::NAN), 0);
    }
}
