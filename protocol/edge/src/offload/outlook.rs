//! What is known of one model from its requests so far.

use super::choice::EXPLORE_EVERY;
use crate::paths::{CloudPath, EVIDENCE_MIN, EdgePath};
use crate::quantiles::Quantiles;
use std::time::{Duration, Instant};

/// A share of the recent events.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Share {
    /// 0 to 1.
    pub share: f64,
    /// How many recent events it rests on.
    pub evidence: f64,
}

/// An event counts little (by a factor of e) after so many later ones.
const MEMORY: f64 = 64.0;

impl Share {
    /// One more event.
    pub fn record(&mut self, happened: bool) {
        self.evidence = self.evidence * (1.0 - 1.0 / MEMORY) + 1.0;
        self.share += (f64::from(happened) - self.share) / self.evidence;
    }

    /// Whether there is ground to decide on it.
    pub fn is_founded(&self) -> bool {
        self.evidence >= EVIDENCE_MIN
    }
}

/// Scores are compared to a millionth.
const SCORE_UNITS: f32 = 1e6;

/// A cloud that wants to be left alone for longer is asked all the same: it may be mistaken.
const BUSY_MAX: Duration = Duration::from_secs(10);

/// What is known of one version of a model on this device. Each version begins anew.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// The way through the device's model.
    pub edge: EdgePath,
    /// The way through the cloud.
    pub cloud: CloudPath,
    deferred: Share,
    /// How far the scores of doubtful answers lay below the threshold.
    gaps: Quantiles,
    planned: u64,
    busy_until: Option<Instant>,
}

impl Outlook {
    /// How many edge answers were not accepted lately, whatever the input was.
    pub fn deferred(&self) -> Share {
        self.deferred
    }

    /// A request is planned; whether it is the turn of the edge.
    pub fn explores(&mut self) -> bool {
        self.planned += 1;
        self.planned.is_multiple_of(EXPLORE_EVERY)
    }

    /// The cloud refused a request for this model because it has too much to do, and wants to be asked
    /// again after this time.
    pub fn refused(&mut self, retry_after: Duration, now: Instant) {
        self.busy_until = Some(now + retry_after.min(BUSY_MAX));
    }

    /// Whether the cloud wants to be left alone for now.
    pub fn is_busy(&self, now: Instant) -> bool {
        self.busy_until.is_some_and(|until| now < until)
    }

    /// An edge answer with this score was accepted.
    pub fn accepted(&mut self) {
        self.deferred.record(false);
    }

    /// An edge answer was not accepted; its doubt: the share of the recent doubtful answers that
    /// were less in doubt than this one.
    pub fn doubted(&mut self, threshold: Option<f32>, score: Option<f32>, now: Instant) -> f64 {
        self.deferred.record(true);
        let (Some(threshold), Some(score)) = (threshold, score) else { return 1.0 };
        let gap = ((threshold - score) * SCORE_UNITS).clamp(0.0, u32::MAX as f32);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // clamped; NaN is 0
        let gap = gap as u64;
        self.gaps.record(gap, now);
        self.gaps.rank(gap)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    #[test]
    fn the_share_follows_the_events() {
        let mut share = Share::default();
        share.record(true);
        assert_eq!((share.share, share.is_founded()), (1.0, false));
        (0..300).for_each(|n| share.record(n % 4 == 0));
        assert!((0.2..0.3).contains(&share.share) && share.is_founded(), "{share:?}");
    }

    #[test]
    fn doubt_is_relative_to_the_others() {
        let now = Instant::now();
        let mut outlook = Outlook::default();
        let mut doubt = |score| outlook.doubted(Some(0.8), Some(score), now);
        for n in 0..100_u16 {
            doubt(0.3 + 0.005 * f32::from(n));
        }
        assert!(doubt(0.1) > 0.9 && doubt(0.79) < 0.1);
        let middle = doubt(0.6);
        assert!((0.2..0.6).contains(&middle), "{middle}");
        assert_eq!(outlook.doubted(Some(0.8), None, now), 1.0);
        assert!(outlook.doubted(Some(f32::INFINITY), Some(0.9), now) > 0.9);
    }

    #[test]
    fn a_busy_cloud_says_when_to_ask_again_but_not_for_ever() {
        let now = Instant::now();
        let mut outlook = Outlook::default();
        assert!(!outlook.is_busy(now));
        outlook.refused(Duration::from_millis(300), now);
        assert!(outlook.is_busy(now + Duration::from_millis(299)));
        assert!(!outlook.is_busy(now + Duration::from_millis(300)));
        outlook.refused(Duration::MAX, now);
        assert!(!outlook.is_busy(now + BUSY_MAX));
    }

    #[test]
    fn one_in_sixteen_explores() {
        let mut outlook = Outlook::default();
        assert_eq!((0..160).filter(|_| outlook.explores()).count(), 10);
    }
}
