//! Whether the new version answers worse than the old one: what holds a roll-out up.
//!
//! The unit is the device, not the request: ten thousand requests of one broken camera say little about a version. Each
//! device is its own yardstick first (how did it change since before the stage?), then the devices that got the new version
//! are ranked among those that did not (module `rank`). A change below a margin is none, so that a version that is
//! consistently 1 % slower is not held to be broken.
//!
//! **Looking often does not cheat.** The gates look when the evidence has doubled, not when somebody looks; look `k` (from
//! 0) of each gate may be wrong with a chance of `alpha / (gates x stages) / ((k + 1)(k + 2))`, and these sum up to less than
//! `alpha` over all gates, stages and looks for ever (a union bound). So a version that changes nothing is stopped with a
//! chance of at most `alpha`, 1 % unless said otherwise.
//!
//! **Few devices prove nothing by ranks.** Where even the worst ranking could come by chance more often than is allowed,
//! the change of the median device counts, against a wider bound ([`Measure::bound`]), less what the luck of its requests may
//! have added to it: ten requests of a good version can differ by 30 points. How devices differ among each other is not in
//! that, so this rule has no error rate, and the evidence says which of the two spoke.

use serde::{Deserialize, Serialize};
use std::fmt;

use super::number;
use super::rank::{Stratum, smallest_chance, worse_by_chance};
use super::tally::Tally;

/// What a gate measures on a device; more is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The share of requests that failed.
    Errors,
    /// The median time of local runs, as a ratio.
    LatencyP50,
    /// The 99th percentile, as a ratio.
    LatencyP99,
    /// How far the mean confidence moved, either way.
    Confidence,
    /// The share of checked answers that differ from the cloud's.
    Disagreement,
    /// The share of requests that are deferred.
    Deferrals,
    /// Crashes.
    Crashes,
}

/// Every measure, in the order in which they are looked at.
pub const MEASURES: [Measure; 7] = [
    Measure::Crashes,
    Measure::Errors,
    Measure::Disagreement,
    Measure::Confidence,
    Measure::Deferrals,
    Measure::LatencyP50,
    Measure::LatencyP99,
];

impl Measure {
    /// The measure as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::Errors => "errors",
            Measure::LatencyP50 => "latency-p50",
            Measure::LatencyP99 => "latency-p99",
            Measure::Confidence => "confidence",
            Measure::Disagreement => "disagreement",
            Measure::Deferrals => "deferrals",
            Measure::Crashes => "crashes",
        }
    }

    /// A change up to here is none: shares in absolute terms, latencies as the logarithm of a ratio.
    pub fn margin(self) -> f64 {
        match self {
            Measure::Errors => 0.01,
            Measure::Confidence => 0.03,
            Measure::Disagreement | Measure::Deferrals => 0.05,
            Measure::LatencyP50 => 1.25_f64.ln(),
            Measure::LatencyP99 => 1.5_f64.ln(),
            Measure::Crashes => 0.0,
        }
    }

    /// The median device's change beyond which a version does not go on, where there are too few devices to rank.
    pub fn bound(self) -> f64 {
        match self {
            Measure::Errors | Measure::Confidence => 0.10,
            Measure::Disagreement => 0.15,
            Measure::Deferrals => 0.25,
            Measure::LatencyP50 => 2.0_f64.ln(),
            Measure::LatencyP99 => 3.0_f64.ln(),
            Measure::Crashes => 0.5,
        }
    }

    /// How much worse a device does than before, `None` where it has not counted enough since. What it did before is drawn
    /// towards `usual` (what all devices did before), by as much as `SHARE_OF_MIN` requests weigh: a device that counted
    /// little before is held against the others' past.
    pub fn change(self, before: &Tally, after: &Tally, usual: &Tally) -> Option<f64> {
        match self {
            // A version that took its process with it may have answered nothing at all, and weeks without it are no pace.
            Measure::Crashes => Some(number(after.crashes)),
            Measure::LatencyP50 | Measure::LatencyP99 => {
                let of = |tally: &Tally| self.run_ms(tally).map(|ms| (ms + self.slack_ms()).ln());
                Some(of(after)? - of(before).or_else(|| of(usual))?)
            }
            _ => {
                let change = share(self.part(after))? - drawn(self.part(before), self.part(usual));
                Some(if self == Measure::Confidence { change.abs() } else { change })
            }
        }
    }

    /// By how much the luck of its requests may have raised a share on one device, but in one case of so many (Hoeffding
    /// 1963); nothing for latencies, whose noise is small beside their bounds, and crashes, which are counted.
    fn luck(self, after: &Tally, chance: f64) -> f64 {
        match self {
            Measure::LatencyP50 | Measure::LatencyP99 | Measure::Crashes => 0.0,
            _ => (chance.recip().ln() / (2.0 * number(self.part(after).1.max(1)))).sqrt(),
        }
    }

    /// What a time is of runs that a device has counted; nothing of fewer than show it.
    fn run_ms(self, tally: &Tally) -> Option<f64> {
        let (quantile, runs_min) =
            if self == Measure::LatencyP50 { (0.5, SHARE_OF_MIN) } else { (0.99, 100) };
        (tally.runs.iter().sum::<u64>() >= runs_min).then(|| tally.run_quantile_ms(quantile))?
    }

    /// This much on top of a time is the machine's doing: other processes take turns of milliseconds.
    fn slack_ms(self) -> f64 {
        if self == Measure::LatencyP50 { 0.5 } else { 5.0 }
    }

    /// Of a measure that is a share: the part, and of how much.
    fn part(self, tally: &Tally) -> (f64, u64) {
        match self {
            Measure::Disagreement => (number(tally.disagreed), tally.checked),
            Measure::Confidence => (number(tally.confidence_micros) / 1e6, tally.judged),
            Measure::Deferrals => (number(tally.deferred), tally.requests),
            _ => (number(tally.errors), tally.requests),
        }
    }

    /// A change in words: `+12.0 points`, `x 2.50`.
    fn describe(self, change: f64) -> String {
        match self {
            Measure::LatencyP50 | Measure::LatencyP99 => format!("x {:.2}", change.exp()),
            Measure::Crashes => format!("{change:+.1} crashes"),
            Measure::Confidence => format!("moved by {:.1} points", 100.0 * change),
            _ => format!("{:+.1} points", 100.0 * change),
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Shares of fewer than so many say nothing.
const SHARE_OF_MIN: u64 = 10;

fn share((part, whole): (f64, u64)) -> Option<f64> {
    (whole >= SHARE_OF_MIN).then(|| part / number(whole))
}

/// The share before, with as much of the usual share as [`SHARE_OF_MIN`] requests weigh.
fn drawn((part, whole): (f64, u64), usual: (f64, u64)) -> f64 {
    let weight = number(SHARE_OF_MIN);
    let usual = share(usual).unwrap_or(0.0);
    (part + weight * usual) / (number(whole) + weight)
}

/// What a device did before the stage and since, and in which stratum it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// The number of its stratum.
    pub stratum: usize,
    /// Whether it has the new version.
    pub is_treated: bool,
    /// What it counted before.
    pub before: Tally,
    /// What it has counted since.
    pub after: Tally,
}

/// Why a gate closed: the evidence, in one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breach {
    /// What was measured.
    pub measure: Measure,
    /// How much worse the median device with the new version does.
    pub change: f64,
    /// The same of the devices without it.
    pub control_change: Option<f64>,
    /// How many devices have it, and could be measured.
    pub treated: usize,
    /// How many do not.
    pub control: usize,
    /// The chance that this is one, `None` where there were too few devices to say.
    pub chance: Option<f64>,
    /// What the chance, or else the change, was held against.
    pub limit: f64,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = self.measure.describe(self.change);
        let devices = if self.treated == 1 { "device" } else { "devices" };
        write!(f, "{}: {change} on {} {devices}", self.measure, self.treated)?;
        if let Some(control) = self.control_change {
            let control = self.measure.describe(control);
            write!(f, ", {control} on {} with the old version", self.control)?;
        }
        match self.chance {
            Some(chance) => write!(f, " (by chance in {chance:.1e}, allowed {:.1e})", self.limit),
            None => {
                let bound = self.measure.describe(self.limit);
                write!(f, " (too few devices to compare; beyond {bound})")
            }
        }
    }
}

/// How sure a gate has to be at its look `k`, from 0: `alpha` is shared over all gates, stages and looks.
pub fn alpha_at(alpha: f64, stages: usize, look: u32) -> f64 {
    let tests = number((MEASURES.len() * stages.max(1)) as u64);
    let look = f64::from(look);
    alpha / tests / ((look + 1.0) * (look + 2.0))
}

/// Looks through all gates once. `limit` is from [`alpha_at`].
///
/// The devices come in an order that says nothing: of many, the first are ranked.
pub fn look(devices: &[Compared], limit: f64) -> Option<Breach> {
    let mut usual = Tally::default();
    devices.iter().for_each(|device| usual.add(&device.before));
    MEASURES.into_iter().find_map(|measure| look_at(measure, devices, &usual, limit))
}

fn look_at(measure: Measure, devices: &[Compared], usual: &Tally, limit: f64) -> Option<Breach> {
    let changes = |treated: bool| {
        let of = devices.iter().filter(move |d| d.is_treated == treated);
        of.filter_map(|d| measure.change(&d.before, &d.after, usual)).collect::<Vec<f64>>()
    };
    let (treated, control) = (changes(true), changes(false));
    let breach = |chance, limit| {
        let (treated_count, control_count) = (treated.len(), control.len());
        let change = median(treated.clone())?;
        let control_change = median(control.clone());
        let (treated, control) = (treated_count, control_count);
        Some(Breach { measure, change, control_change, treated, control, chance, limit })
    };
    let strata = strata(measure, devices, usual);
    let sizes: Vec<_> = strata.iter().map(|s| (s.treated.len(), s.control.len())).collect();
    if smallest_chance(&sizes) > limit {
        let sure = devices.iter().filter(|d| d.is_treated).filter_map(|d| {
            let change = measure.change(&d.before, &d.after, usual)?;
            Some(change - measure.luck(&d.after, limit))
        });
        let median = median(sure.collect())?;
        return (median > measure.bound()).then(|| breach(None, measure.bound())).flatten();
    }
    let chance = worse_by_chance(&strata);
    (chance <= limit).then(|| breach(Some(chance), limit)).flatten()
}

/// The changes by stratum, those of the treated less the margin.
fn strata(measure: Measure, devices: &[Compared], usual: &Tally) -> Vec<Stratum> {
    let count = devices.iter().map(|d| d.stratum + 1).max().unwrap_or(0);
    let mut strata = vec![Stratum::default(); count];
    for device in devices {
        let Some(change) = measure.change(&device.before, &device.after, usual) else { continue };
        let stratum = &mut strata[device.stratum];
        if device.is_treated {
            stratum.treated.push(change - measure.margin());
        } else {
            stratum.control.push(change);
        }
    }
    strata
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests;
