//! One simulated world: devices, a cloud and the links between them as plain structs in one thread,
//! under one seed. The decisions are those of the real programs (`edge` on the devices, `fleet` in
//! the cloud); models, network and time are made up. What must hold at every moment is checked at
//! every moment, and a run that breaks it names its seed.

mod cloud;
mod device;
mod flight;
mod world;

use crate::network::{PROFILES, Profile, Random};
use edge::budget::BudgetPolicy;
use std::time::Duration;

pub use world::{Broken, Report, World};

/// One world in so many is one of drift.
const DRIFT_EVERY: u64 = 25;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Devices.
    pub devices: usize,
    /// Requests of each.
    pub requests: u64,
    /// The mean time between two of a device's requests.
    pub pace: Duration,
    /// Whether devices crash and the cloud goes away.
    pub faults: bool,
    /// The links, of which each device has one in turn.
    pub links: Vec<Profile>,
    /// What a day may cost.
    pub budget: BudgetPolicy,
    /// The share of wrong answers among accepted ones before and after a drift.
    pub wrong: (f64, f64),
    /// How long the cloud's model runs.
    pub cloud_run: Duration,
}

impl Terms {
    /// A small world in which anything may be: what a seed stands for.
    pub fn of_seed(seed: u64) -> Self {
        if seed.is_multiple_of(DRIFT_EVERY) {
            return Self::drifting();
        }
        let mut random = Random::new(seed);
        let devices = 2 + random.below(12);
        let paces_ms = [5.0, 100.0, 10_000.0, 600_000.0];
        let pace_ms = paces_ms[usize::try_from(random.below(4)).unwrap_or(0)];
        let budget = match random.below(3) {
            0 => BudgetPolicy::default(),
            1 => BudgetPolicy { calls_per_day: 1 + random.below(200), bytes_per_day: 0 },
            _ => BudgetPolicy {
                calls_per_day: 1 + random.below(200),
                bytes_per_day: 1_000 * (1 + random.below(500)),
            },
        };
        let start = usize::try_from(random.below(6)).unwrap_or(0);
        Self {
            devices: usize::try_from(devices).unwrap_or(2),
            requests: 400 / devices,
            pace: Duration::from_secs_f64(pace_ms / 1e3),
            faults: random.chance(0.7),
            links: (0..6).map(|n| PROFILES[(start + n) % 6]).collect(),
            budget,
            wrong: (0.02, 0.02),
            cloud_run: Duration::from_secs_f64(random.log_uniform(0.002, 0.2)),
        }
    }

    /// Few devices that are asked for long: half of the accepted answers become wrong.
    fn drifting() -> Self {
        Self {
            devices: 2,
            requests: 3_000,
            pace: Duration::from_millis(50),
            wrong: (0.02, 0.5),
            ..Self::deadlines(0)
        }
    }

    /// The deadline test: so many requests over six links, with deadlines from 5 ms to 2 s.
    pub fn deadlines(requests: u64) -> Self {
        Self {
            devices: 60,
            requests: requests.div_ceil(60),
            pace: Duration::from_millis(60),
            faults: false,
            links: PROFILES.to_vec(),
            budget: BudgetPolicy::default(),
            wrong: (0.02, 0.02),
            cloud_run: Duration::from_millis(2),
        }
    }

    /// Thousands of devices at once.
    pub fn fleet(devices: usize) -> Self {
        Self { devices, requests: 10, ..Self { faults: true, ..Self::deadlines(0) } }
    }
}

/// Runs the worlds of these seeds.
///
/// # Errors
/// The first that breaks, with its seed.
pub fn run_seeds(seeds: impl Iterator<Item = u64>) -> Result<Report, Broken> {
    let mut sum = Report::default();
    for seed in seeds {
        sum.add(&World::new(&Terms::of_seed(seed), seed).run()?);
    }
    Ok(sum)
}
