//! A new version on a device, until it answers: what the agent's own rules (`edge::shadow`) make of how it behaves.

use crate::behaviour::{Behaviour, Load, Traits};
use crate::chance::Chance;
use edge::probation::{Fault, Limits};
use edge::shadow::{Compared, Outcome, Shadow, ShadowPolicy};
use std::time::{Duration, Instant};

/// Probes of a bundle.
const PROBES: usize = 64;

/// Why a version does not answer on a device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The confined child ended with it.
    #[error("the trial ended by signal 11")]
    Crashed,
    /// It did not do as well as the version before.
    #[error("{0}")]
    Fault(Fault),
}

/// Has a version tried, warmed up and compared with the one before, in as much time as that takes: how long, and what came
/// of it. `shadows` is false for a device whose owner has switched the shadow off.
///
/// # Errors
/// [`Refusal`], after that time.
pub fn judge(
    (old, new): (&Behaviour, &Behaviour),
    traits: &Traits,
    shadows: bool,
    chance: &mut Chance,
) -> (Duration, Result<(), Refusal>) {
    match new.load {
        Load::Crashes => return (Duration::ZERO, Err(Refusal::Crashed)),
        Load::WrongProvider => {
            let fault = Fault::Provider { was: "cuda".into(), is: "cpu".into() };
            return (Duration::ZERO, Err(Refusal::Fault(fault)));
        }
        _ if !shadows => return (Duration::ZERO, Ok(())),
        _ => {}
    }
    let began = Instant::now(); // only what passes since counts
    let mut beside = Beside { shadow: Shadow::new(policy(), began), old, new, traits, chance };
    let (end, result) = beside.run(began);
    (end.saturating_duration_since(began), result.map_err(Refusal::Fault))
}

/// The agent's, unless its `[update]` says otherwise.
fn policy() -> ShadowPolicy {
    ShadowPolicy {
        requests: 100,
        time: Duration::from_secs(600),
        quiet: Duration::from_secs(30),
        cpu_share: 0.05,
        limits: Limits::default(),
    }
}

struct Beside<'a> {
    shadow: Shadow,
    old: &'a Behaviour,
    new: &'a Behaviour,
    traits: &'a Traits,
    chance: &'a mut Chance,
}

impl Beside<'_> {
    fn run(&mut self, began: Instant) -> (Instant, Result<(), Fault>) {
        let mut now = began;
        loop {
            match self.shadow.outcome(now) {
                Some(Outcome::Agreed) => return (now, Ok(())),
                Some(Outcome::Refused(fault)) => return (now, Err(fault)),
                Some(Outcome::ReplayProbes) => self.replay(),
                None => now = self.next(now),
            }
        }
    }

    /// The next request, or the moment at which there is something to judge without one.
    fn next(&mut self, now: Instant) -> Instant {
        let per_s = self.traits.per_min / 60.0;
        let wait = Duration::from_secs_f64((-self.chance.unit().max(1e-12).ln() / per_s).min(1e6));
        if now + wait > self.shadow.poll_timeout() {
            return self.shadow.poll_timeout();
        }
        if self.shadow.handle_request(now + wait) {
            let (result, old, new) = self.compared();
            self.shadow.spent(new);
            self.shadow.compared(result, old, new);
        }
        now + wait
    }

    fn replay(&mut self) {
        self.shadow.begin_probes();
        for _ in 0..PROBES {
            let (result, old, new) = self.compared();
            self.shadow.probed(result, Some(old), new);
        }
    }

    fn compared(&mut self) -> (Compared, Duration, Duration) {
        let took = |behaviour: &Behaviour, chance: &mut Chance| {
            Duration::from_secs_f64(behaviour.run_ms(self.traits, chance) / 1e3)
        };
        let (old, new) = (took(self.old, self.chance), took(self.new, self.chance));
        // What fails in both versions is the request's doing, and is not compared.
        let errors = (self.new.errors - self.old.errors).max(0.0);
        let result = match self.chance.unit() {
            draw if draw < errors => Compared::Failed("an output is not a number".into()),
            draw if draw < errors + self.new.differs => Compared::Differs(1.0),
            _ => Compared::Differs(0.0),
        };
        (result, old, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(new: &Behaviour) -> Result<(), String> {
        let mut chance = Chance::new(5, 0);
        let traits = Traits::draw(&mut chance, 60.0, 0.01);
        let (_, result) = judge((&Behaviour::default(), new), &traits, true, &mut chance);
        result.map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_device_refuses_what_it_can_see_by_itself_and_takes_the_rest() {
        let good = Behaviour::default();
        assert_eq!(judged(&good), Ok(()));
        let one_class = Behaviour { disagreement: 0.14, differs: 0.13, ..good.clone() };
        assert_eq!(
            judged(&one_class),
            Ok(()),
            "one class of ten is below what a device may differ by"
        );
        for (bad, word) in [
            (Behaviour { load: Load::Crashes, ..good.clone() }, "signal"),
            (Behaviour { load: Load::WrongProvider, ..good.clone() }, "cuda"),
            (Behaviour { slower: 10.0, ..good.clone() }, "ms"),
            (Behaviour { errors: 1.0, ..good.clone() }, "number"),
        ] {
            let why = judged(&bad).unwrap_err();
            assert!(why.contains(word), "{bad:?}: {why}");
        }
    }
}
