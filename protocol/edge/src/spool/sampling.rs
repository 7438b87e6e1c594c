//! Which requests leave an event, and which inputs a sample: rare kinds more often than common ones, each within a
//! budget, and each with how many requests stand behind it, so that sums over events are unbiased.
//!
//! A model that never leaves the device leaves counters and histograms, and nothing of single requests.

use std::collections::BTreeMap;
use std::time::Instant;

/// What kind of request it was, the rarest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It ended in no answer.
    Failed,
    /// The cloud's answer differs from the one that was accepted.
    Disagreeing,
    /// The model is under an alarm: its inputs are not those that it was made for.
    Drifting,
    /// The device was not sure.
    Hard,
    /// Any other.
    Ordinary,
}

impl Kind {
    /// A word for records.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Disagreeing => "disagreeing",
            Kind::Drifting => "drifting",
            Kind::Hard => "hard",
            Kind::Ordinary => "random",
        }
    }
}

/// How many of each kind are taken, as shares, and how many of all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingPolicy {
    /// Of failed and disagreeing requests.
    pub rare: f64,
    /// Of hard ones, and of those under an alarm.
    pub hard: f64,
    /// Of all others.
    pub ordinary: f64,
    /// All kinds together in an hour; 0 for no bound.
    pub per_hour: f64,
}

impl SamplingPolicy {
    /// Events that cost little by default: about a megabyte a month at one request a second.
    pub const EVENTS: Self = Self { rare: 0.1, hard: 0.01, ordinary: 0.001, per_hour: 12.0 };
    /// Every request leaves an event.
    pub const EVERYTHING: Self = Self { rare: 1.0, hard: 1.0, ordinary: 1.0, per_hour: 0.0 };
    /// None does.
    pub const NOTHING: Self = Self { rare: 0.0, hard: 0.0, ordinary: 0.0, per_hour: 0.0 };

    fn share(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Failed | Kind::Disagreeing => self.rare,
            Kind::Drifting | Kind::Hard => self.hard,
            Kind::Ordinary => self.ordinary,
        }
    }
}

/// Draws.
#[derive(Debug, Clone)]
pub struct Sampler {
    policy: SamplingPolicy,
    state: u64,
    tokens: f64,
    refilled: Instant,
    /// What stands behind requests that were drawn, and for which the hour had no room, by kind.
    untold: BTreeMap<Kind, f64>,
}

impl Sampler {
    /// From a seed, so that a run can be repeated.
    pub fn new(policy: SamplingPolicy, seed: u64, now: Instant) -> Self {
        let (tokens, untold) = (policy.per_hour, BTreeMap::new());
        Self { policy, state: seed, tokens, refilled: now, untold }
    }

    /// How many requests stand behind this one, if it is taken.
    pub fn draw(&mut self, kind: Kind, now: Instant) -> Option<f64> {
        let share = self.policy.share(kind);
        if share <= 0.0 || self.uniform() >= share {
            return None;
        }
        let weight = 1.0 / share.min(1.0) + self.untold.remove(&kind).unwrap_or(0.0);
        if !self.spend(now) {
            self.untold.insert(kind, weight);
            return None;
        }
        Some(weight)
    }

    /// A bucket that holds an hour's budget.
    fn spend(&mut self, now: Instant) -> bool {
        let per_hour = self.policy.per_hour;
        if per_hour <= 0.0 {
            return true;
        }
        let hours = now.saturating_duration_since(self.refilled).as_secs_f64() / 3600.0;
        self.refilled = self.refilled.max(now);
        self.tokens = (self.tokens + hours * per_hour).min(per_hour);
        let has_one = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(has_one));
        has_one
    }

    /// SplitMix64 (Steele, Lea, Flood 2014), its upper 53 bits as a share.
    #[allow(clippy::cast_precision_loss)] // 53 bits fit
    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn weights_make_up_for_what_was_not_taken() {
        let policy = SamplingPolicy { per_hour: 0.0, ..SamplingPolicy::EVENTS };
        let now = Instant::now();
        let mut sampler = Sampler::new(policy, 7, now);
        for (kind, requests) in
            [(Kind::Failed, 10_000), (Kind::Hard, 100_000), (Kind::Ordinary, 1_000_000)]
        {
            let weights: f64 = (0..requests).filter_map(|_| sampler.draw(kind, now)).sum();
            let share = weights / f64::from(requests);
            assert!((0.9..1.1).contains(&share), "{kind:?}: {share}");
        }
        let mut none = Sampler::new(SamplingPolicy::NOTHING, 7, now);
        assert!((0..1000).all(|_| none.draw(Kind::Failed, now).is_none()));
        let mut all = Sampler::new(SamplingPolicy::EVERYTHING, 7, now);
        assert!((0..1000).all(|_| all.draw(Kind::Ordinary, now) == Some(1.0)));
    }

    #[test]
    fn no_hour_gives_more_than_twice_its_budget() {
        let start = Instant::now();
        let policy = SamplingPolicy { ordinary: 1.0, ..SamplingPolicy::EVENTS };
        let mut sampler = Sampler::new(policy, 1, start);
        let mut taken = |from_s: u64| {
            let draws = (0..3600).filter_map(|s| {
                sampler.draw(Kind::Ordinary, start + Duration::from_secs(from_s + s))
            });
            draws.count()
        };
        assert!((12..=24).contains(&taken(0)));
        assert!((11..=13).contains(&taken(3600)));
        // What had no room stands behind the next one that has.
        let weight = sampler.draw(Kind::Ordinary, start + Duration::from_secs(8000)).unwrap();
        assert!(weight > 100.0, "{weight}");
    }
}
