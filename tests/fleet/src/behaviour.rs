//! How versions of a model behave on devices that have no model: a person writes it down, a seed decides the rest.
//!
//! Devices differ far more from each other than one differs from itself: each has its [`Traits`], drawn once.

use crate::chance::Chance;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// What happens when a version is loaded for the first time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// It answers its probes.
    #[default]
    Works,
    /// It takes the confined child with it.
    Crashes,
    /// The accelerator does not take it, as it took the version before.
    WrongProvider,
    /// The device is told of it, and not seen again.
    Vanishes,
    /// The device goes on with the version that it has, and says so.
    Stays,
    /// The device takes it and goes back to the version before, again and again.
    Flaps,
    /// The device says at once that it has it, and goes on with the version before.
    Lies,
}

/// How one version behaves. The defaults are those of a good one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// What happens when it is loaded.
    pub load: Load,
    /// The median local run on the median device, in milliseconds.
    pub run_ms: f64,
    /// Times as long as that.
    pub slower: f64,
    /// The share of requests that fail, or have an answer that is no number.
    pub errors: f64,
    /// The share of requests that are deferred.
    pub deferred: f64,
    /// The share of accepted answers that differ from the cloud's.
    pub disagreement: f64,
    /// The share of answers that differ from those of the version before, as far as that is its own doing.
    pub differs: f64,
    /// The mean confidence.
    pub confidence: f64,
    /// The chance, for each request, that it takes the agent with it.
    pub crashes: f64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            load: Load::Works,
            run_ms: 5.0,
            slower: 1.0,
            errors: 0.002,
            deferred: 0.15,
            disagreement: 0.04,
            differs: 0.03,
            confidence: 0.85,
            crashes: 0.0,
        }
    }
}

/// How all versions behave: `[versions.2]` and what is other than good there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviours {
    versions: BTreeMap<String, Behaviour>,
}

impl Behaviours {
    /// One version behaves so.
    pub fn set(&mut self, version: u64, behaviour: Behaviour) {
        self.versions.insert(version.to_string(), behaviour);
    }

    /// How a version behaves; one of which nothing is said is a good one.
    pub fn of(&self, version: u64) -> Behaviour {
        self.versions.get(&version.to_string()).cloned().unwrap_or_default()
    }
}

/// In what a device differs from others.
#[derive(Debug, Clone, PartialEq)]
pub struct Traits {
    /// Its runs take so many times as long as those of the median device.
    pub slowness: f64,
    /// What is asked of it is so much harder: added to shares of deferrals and disagreement.
    pub hardness: f64,
    /// Requests a minute.
    pub per_min: f64,
    /// The share of accepted answers that it has checked by the cloud.
    pub checked: f64,
}

impl Traits {
    /// Of a device. Slowness, hardness and load are spread as on a mixed fleet: a factor of three either way for one
    /// device in ten.
    pub fn draw(chance: &mut Chance, per_min: f64, checked: f64) -> Self {
        Self {
            slowness: (0.6 * chance.normal()).exp(),
            hardness: 0.03 * chance.normal().abs(),
            per_min: per_min * (0.6 * chance.normal()).exp(),
            checked,
        }
    }
}

/// What a device counts while it answers: numbers without content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Served {
    /// Requests that were answered or failed.
    pub requests: u64,
    /// Of them, those that failed.
    pub errors: u64,
    /// Those that were deferred.
    pub deferred: u64,
    /// Accepted answers that were compared with the cloud's.
    pub checked: u64,
    /// Of these, those that differed.
    pub disagreed: u64,
    /// Crashes.
    pub crashes: u64,
    /// Requests that have a confidence.
    pub judged: u64,
    /// The sum of these confidences, in millionths.
    pub confidence_micros: u64,
    /// How long each local run took, in microseconds.
    pub runs_us: Vec<f64>,
}

impl Behaviour {
    /// A good version that takes so little of a device that it can be judged in seconds.
    pub fn quick() -> Self {
        Self { run_ms: 0.5, ..Self::default() }
    }

    /// What a device counts in this time.
    pub fn serve(&self, traits: &Traits, time: Duration, chance: &mut Chance) -> Served {
        let requests = chance.poisson(traits.per_min * time.as_secs_f64() / 60.0);
        let errors = chance.times(requests, self.errors);
        let deferred = chance.times(requests - errors, self.deferred + traits.hardness);
        let checked = chance.times(requests - errors - deferred, traits.checked);
        let confidence =
            (self.confidence - traits.hardness + 0.02 * chance.normal()).clamp(0.0, 1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // from 0 to a million
        let micros = (confidence * 1e6) as u64;
        Served {
            requests,
            errors,
            deferred,
            checked,
            disagreed: chance.times(checked, self.disagreement + traits.hardness),
            crashes: chance.times(requests, self.crashes),
            judged: requests - errors,
            confidence_micros: (requests - errors) * micros,
            runs_us: (0..requests).map(|_| 1e3 * self.run_ms(traits, chance)).collect(),
        }
    }

    /// How long one local run takes, in milliseconds.
    pub fn run_ms(&self, traits: &Traits, chance: &mut Chance) -> f64 {
        self.run_ms * self.slower * traits.slowness * (0.2 * chance.normal()).exp()
    }
}
