//! How long a candidate answers beside the active version, how much of the processor that may take, and
//! what its answers are worth.
//!
//! It is judged after so many comparisons, or after so long; or as soon as nobody asks the model any more,
//! by its answers to the probes of the active version, for a device without traffic must not wait for
//! ever. Each of its runs is paid for: the next may begin only when the share that it may take covers what
//! it has taken.

use crate::probation::{Fault, Limits, median, slow};
use std::time::{Duration, Instant};

/// Answered requests that wait for the candidate; one more is left out.
pub const WAITING_MAX: usize = 8;

/// How a shadow runs.
#[derive(Debug, Clone, PartialEq)]
pub struct ShadowPolicy {
    /// Comparisons after which it is judged...
    pub requests: usize,
    /// ...or this time...
    pub time: Duration,
    /// ...or this time without a request for the model.
    pub quiet: Duration,
    /// The share of one core that it may take.
    pub cpu_share: f64,
    /// What is beyond limits.
    pub limits: Limits,
}

/// What one comparison showed.
#[derive(Debug, Clone, PartialEq)]
pub enum Compared {
    /// Of its items this share is answered differently, 0 to 1.
    Differs(f64),
    /// The candidate failed where the active version answered.
    Failed(String),
}

/// Fewer comparisons of live requests are no ground for a judgement: the probes are asked as well.
const COMPARED_MIN: usize = 10;

/// What live requests, or probes, have shown.
#[derive(Debug, Clone, Default)]
struct Evidence {
    compared: usize,
    differ: f64,
    failed: usize,
    failure: String,
    old: Vec<Duration>,
    new: Vec<Duration>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Enough was seen, and it does.
    Agreed,
    /// It must not answer.
    Refused(Fault),
    /// Too little was seen: have it answer the probes of the active version, and tell that by
    /// [`Shadow::probed`].
    ReplayProbes,
}

/// A candidate beside the active version.
#[derive(Debug)]
pub struct Shadow {
    policy: ShadowPolicy,
    began: Instant,
    asked: Instant,
    spent: Duration,
    no_room: bool,
    live: Evidence,
    probes: Option<Evidence>,
}

impl Shadow {
    /// From now on.
    pub fn new(policy: ShadowPolicy, now: Instant) -> Self {
        Self {
            policy,
            began: now,
            asked: now,
            spent: Duration::ZERO,
            no_room: false,
            live: Evidence::default(),
            probes: None,
        }
    }

    /// The model was asked; whether the candidate may answer that as well.
    pub fn handle_request(&mut self, now: Instant) -> bool {
        self.asked = now;
        self.may_run(now)
    }

    /// Whether what it has taken is covered.
    pub fn may_run(&self, now: Instant) -> bool {
        let covered = now.saturating_duration_since(self.began).mul_f64(self.share());
        !self.no_room && self.spent <= covered
    }

    fn share(&self) -> f64 {
        self.policy.cpu_share.clamp(0.0, 1.0)
    }

    /// A run of the candidate took so much of the processor.
    pub fn spent(&mut self, cpu: Duration) {
        self.spent += cpu;
    }

    /// Both do not find room in memory: what is live is not compared any more.
    pub fn no_room(&mut self) {
        self.no_room = true;
    }

    /// A live request was answered by both, in these times.
    pub fn compared(&mut self, result: Compared, old: Duration, new: Duration) {
        self.live.add(result, Some(old), new);
    }

    /// Before the probes are asked.
    pub fn begin_probes(&mut self) {
        self.probes = Some(Evidence::default());
    }

    /// A probe of the active version was answered by the candidate, in this time. What the active version
    /// took is known if both run on the same provider.
    pub fn probed(&mut self, result: Compared, old: Option<Duration>, new: Duration) {
        self.probes.get_or_insert_default().add(result, old, new);
    }

    /// When [`Shadow::outcome`] may have something to say without another request.
    pub fn poll_timeout(&self) -> Instant {
        (self.began + self.policy.time).min(self.asked + self.policy.quiet)
    }

    /// What the median live request took the active version.
    pub fn usual(&self) -> Option<Duration> {
        median(self.live.old.iter().copied()).filter(|_| self.live.old.len() >= COMPARED_MIN)
    }

    /// How many live requests, and probes, were compared.
    pub fn seen(&self) -> (usize, usize) {
        (self.live.compared, self.probes.as_ref().map_or(0, |probes| probes.compared))
    }

    /// What there is to do now; `None` while it goes on.
    pub fn outcome(&self, now: Instant) -> Option<Outcome> {
        let limits = &self.policy.limits;
        // What cannot be made good by all that is still to come is no reason to wait.
        let beyond = self.live.differ > limits.disagreement * self.policy.requests.max(1) as f64;
        if let Some(fault) = self.live.failing(limits) {
            return Some(Outcome::Refused(fault));
        }
        if beyond && let Some(fault) = self.live.disagreeing(limits, LIVE) {
            return Some(Outcome::Refused(fault));
        }
        let enough = self.live.compared >= self.policy.requests;
        let over = enough || self.no_room || now >= self.poll_timeout();
        over.then(|| self.judge())
    }

    fn judge(&self) -> Outcome {
        let limits = &self.policy.limits;
        let (evidence, asked) = match &self.probes {
            _ if self.live.compared >= COMPARED_MIN => (&self.live, LIVE),
            None => return Outcome::ReplayProbes,
            Some(probes) => (probes, PROBES),
        };
        let fault = evidence.failing(limits);
        let fault = fault.or_else(|| evidence.disagreeing(limits, asked));
        fault.or_else(|| evidence.slow(limits)).map_or(Outcome::Agreed, Outcome::Refused)
    }
}

const LIVE: &str = "live requests";
const PROBES: &str = "probes";

impl Evidence {
    fn add(&mut self, result: Compared, old: Option<Duration>, new: Duration) {
        self.compared += 1;
        match result {
            Compared::Differs(share) => {
                self.differ += share.clamp(0.0, 1.0);
                self.old.extend(old);
                self.new.push(new);
            }
            Compared::Failed(why) => {
                self.failed += 1;
                self.failure = why;
            }
        }
    }

    fn failing(&self, limits: &Limits) -> Option<Fault> {
        let (failed, of) = (self.failed, self.compared);
        let fails = limits.fails(failed, of);
        fails.then(|| Fault::Fails { failed, of, why: self.failure.clone() })
    }

    fn disagreeing(&self, limits: &Limits, asked: &'static str) -> Option<Fault> {
        let (differ, of, limit) = (self.differ, self.compared - self.failed, limits.disagreement);
        (differ > limit * of as f64).then_some(Fault::Disagrees { differ, of, limit, asked })
    }

    fn slow(&self, limits: &Limits) -> Option<Fault> {
        slow(limits, median(self.old.iter().copied()), median(self.new.iter().copied()))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SAME: Compared = Compared::Differs(0.0);
    const OTHER: Compared = Compared::Differs(1.0);

    fn policy() -> ShadowPolicy {
        ShadowPolicy {
            requests: 20,
            time: Duration::from_secs(600),
            quiet: Duration::from_secs(30),
            cpu_share: 0.05,
            limits: Limits::default(),
        }
    }

    /// Compares one after the other until something is said.
    fn shown(results: impl IntoIterator<Item = Compared>, new: Duration) -> Option<Outcome> {
        let now = Instant::now();
        let mut shadow = Shadow::new(policy(), now);
        results.into_iter().find_map(|result| {
            shadow.compared(result, MS, new);
            shadow.outcome(now)
        })
    }

    #[test]
    fn it_takes_no_more_than_its_share() {
        let began = Instant::now();
        let mut shadow = Shadow::new(policy(), began);
        let (mut now, mut runs) = (began, 0);
        for _ in 0..100_000 {
            now += MS;
            if shadow.handle_request(now) {
                shadow.spent(3 * MS);
                runs += 1;
            }
        }
        let spent = 3 * MS * runs;
        assert!(spent <= (now - began).mul_f64(0.05) + 3 * MS, "{spent:?}");
        assert!(spent >= (now - began).mul_f64(0.045), "and does not idle: {spent:?}");
        shadow.no_room();
        assert!(!shadow.handle_request(now + Duration::from_secs(60)));
    }

    #[test]
    fn live_answers_are_judged_when_there_are_enough() {
        let few = |n| (0..20).map(move |k| if k < n { OTHER } else { SAME });
        assert_eq!(shown(few(0), MS), Some(Outcome::Agreed));
        assert_eq!(shown(few(4), MS), Some(Outcome::Agreed), "a new version may know better");
        let fault = Fault::Disagrees { differ: 5.0, of: 5, limit: 0.2, asked: LIVE };
        assert_eq!(shown(few(5), MS), Some(Outcome::Refused(fault)), "no need to see the rest");
        let nan = std::iter::repeat_with(|| Compared::Failed("NaN".into()));
        let fault = Fault::Fails { failed: 3, of: 3, why: "NaN".into() };
        assert_eq!(shown(nan, MS), Some(Outcome::Refused(fault)));
        let fault = Fault::Slow { median: 40 * MS, limit: 7 * MS };
        assert_eq!(shown(few(0), 40 * MS), Some(Outcome::Refused(fault)));
    }

    #[test]
    fn without_traffic_or_room_the_probes_decide() {
        let began = Instant::now();
        for no_room in [false, true] {
            let mut shadow = Shadow::new(policy(), began);
            let mut now = began;
            assert_eq!(shadow.outcome(now), None);
            if no_room {
                shadow.no_room();
            } else {
                now = shadow.poll_timeout();
                assert_eq!(now, began + Duration::from_secs(30));
            }
            assert_eq!(shadow.outcome(now), Some(Outcome::ReplayProbes));
            shadow.begin_probes();
            assert_eq!(shadow.outcome(now), Some(Outcome::Agreed), "there are none");
            for _ in 0..8 {
                shadow.probed(SAME, Some(MS), MS);
            }
            assert_eq!(shadow.outcome(now), Some(Outcome::Agreed));
            for _ in 0..8 {
                shadow.probed(OTHER, None, MS);
            }
            let fault = Fault::Disagrees { differ: 8.0, of: 16, limit: 0.2, asked: PROBES };
            assert_eq!(shadow.outcome(now), Some(Outcome::Refused(fault)));
        }
    }

    #[test]
    fn traffic_holds_it_open_until_its_time_is_over() {
        let began = Instant::now();
        let mut shadow = Shadow::new(policy(), began);
        for s in 0..600 {
            let now = began + Duration::from_secs(s);
            shadow.handle_request(now);
            assert_eq!(shadow.outcome(now), None);
        }
        for _ in 0..12 {
            shadow.compared(SAME, MS, MS);
        }
        let end = began + Duration::from_secs(600);
        assert_eq!((shadow.outcome(end), shadow.seen()), (Some(Outcome::Agreed), (12, 0)));
    }
}
