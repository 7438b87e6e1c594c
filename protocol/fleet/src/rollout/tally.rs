//! What a device has counted for one version of a model: numbers without content, a fixed list, the same for every model.

use protocol::evidence::{BUCKETS, bucket, bucket_end_ms};
use protocol::wire::ModelEvidence;
use serde::{Deserialize, Serialize};

/// Counters of one device for one version, since it began to answer with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Requests that were answered or failed.
    pub requests: u64,
    /// Requests that failed, or whose answer held no number.
    pub errors: u64,
    /// Requests whose edge answer was not accepted.
    pub deferred: u64,
    /// Accepted edge answers that were compared with the cloud's.
    pub checked: u64,
    /// Of these, how many differed.
    pub disagreed: u64,
    /// How often the model took its process with it.
    pub crashes: u64,
    /// Requests that have a confidence.
    pub judged: u64,
    /// The sum of these confidences, in millionths.
    pub confidence_micros: u64,
    /// How many local runs took how long, see [`Tally::add_run`]; shorter where the last buckets are empty.
    pub runs: Vec<u64>,
}

impl Tally {
    /// Counts local runs that took so long: bucket `i` ends at 32 us x 2^(i / 4), the last takes what is longer (7 s).
    pub fn add_run(&mut self, took_us: f64, times: u64) {
        let bucket = bucket(took_us);
        if self.runs.len() <= bucket {
            self.runs.resize(bucket + 1, 0);
        }
        self.runs[bucket] += times;
    }

    /// The time within which this share of the local runs ended, in milliseconds: the end of its bucket, at most 19 % too
    /// long; `None` without a run.
    pub fn run_quantile_ms(&self, share: f64) -> Option<f64> {
        let total: u64 = self.runs.iter().sum();
        let mut below = 0;
        let end = self.runs.iter().position(|count| {
            below += count;
            below > 0 && super::number(below) >= share * super::number(total)
        })?;
        Some(bucket_end_ms(end))
    }

    /// What a device says that it has counted in one life; its crashes, which are of all of them.
    pub fn of_life(row: &ModelEvidence) -> Self {
        Self {
            requests: row.requests,
            errors: row.errors,
            deferred: row.deferred,
            checked: row.checked,
            disagreed: row.disagreed,
            crashes: row.crashes.into(),
            judged: row.judged,
            confidence_micros: row.confidence_micros,
            runs: row.runs.iter().copied().take(BUCKETS).collect(),
        }
    }

    /// Counts what another tally has counted, too.
    pub fn add(&mut self, other: &Tally) {
        let sum = |own: &mut u64, more: u64| *own = own.saturating_add(more); // a device may say anything
        sum(&mut self.requests, other.requests);
        sum(&mut self.errors, other.errors);
        sum(&mut self.deferred, other.deferred);
        sum(&mut self.checked, other.checked);
        sum(&mut self.disagreed, other.disagreed);
        sum(&mut self.crashes, other.crashes);
        sum(&mut self.judged, other.judged);
        sum(&mut self.confidence_micros, other.confidence_micros);
        self.runs.resize(self.runs.len().max(other.runs.len()), 0);
        self.runs.iter_mut().zip(&other.runs).for_each(|(own, more)| sum(own, *more));
    }

    /// What was counted since `earlier`. Where a counter has fallen the device began to count anew, and all of it is new.
    pub fn since(&self, earlier: &Tally) -> Tally {
        self.minus(earlier).unwrap_or_else(|| self.clone())
    }

    fn minus(&self, other: &Tally) -> Option<Tally> {
        let runs = (0..self.runs.len().max(other.runs.len())).map(|i| {
            let of = |tally: &Tally| tally.runs.get(i).copied().unwrap_or(0);
            of(self).checked_sub(of(other))
        });
        Some(Tally {
            requests: self.requests.checked_sub(other.requests)?,
            errors: self.errors.checked_sub(other.errors)?,
            deferred: self.deferred.checked_sub(other.deferred)?,
            checked: self.checked.checked_sub(other.checked)?,
            disagreed: self.disagreed.checked_sub(other.disagreed)?,
            crashes: self.crashes.checked_sub(other.crashes)?,
            judged: self.judged.checked_sub(other.judged)?,
            confidence_micros: self.confidence_micros.checked_sub(other.confidence_micros)?,
            runs: runs.collect::<Option<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_end_of_its_bucket() {
        let mut tally = Tally::default();
        assert_eq!(tally.run_quantile_ms(0.5), None);
        for _ in 0..99 {
            tally.add_run(5_000.0, 1);
        }
        tally.add_run(80_000.0, 1);
        let (p50, p999) =
            (tally.run_quantile_ms(0.5).unwrap(), tally.run_quantile_ms(0.999).unwrap());
        assert!((5.0..=5.0 * 1.19).contains(&p50), "{p50}");
        assert!((80.0..=80.0 * 1.19).contains(&p999), "{p999}");
        tally.add_run(f64::INFINITY, 1);
        assert_eq!(tally.runs.len(), BUCKETS);
    }

    #[test]
    fn what_was_counted_since_is_the_difference_unless_counting_began_anew() {
        let early = Tally { requests: 10, runs: vec![1, 2], ..Tally::default() };
        let late = Tally { requests: 25, errors: 1, runs: vec![1, 5, 3], ..Tally::default() };
        let since = late.since(&early);
        assert_eq!((since.requests, since.errors, since.runs), (15, 1, vec![0, 3, 3]));
        assert_eq!(early.since(&late), early);
    }
}
