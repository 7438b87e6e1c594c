//! What a device has counted in all for the version that answers there, put together from its lives.
//!
//! A device counts up from the beginning of a life (its process, or the version's time in it) and says the sums again
//! and again. So a row that comes twice, late or not at all does no harm: within a life the largest sums hold, a new
//! life is added to those before it, and what comes of a life that is over is left aside.

use protocol::id::{ModelName, Version};
use protocol::wire::ModelEvidence;
use serde::{Deserialize, Serialize};

use super::tally::Tally;

/// Lives that are remembered as over.
const PAST_MAX: usize = 4;

/// What one device has counted for one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    version: Version,
    life: u64,
    /// Lives that are over, the last one first.
    past: Vec<u64>,
    /// What was counted in lives that are over.
    before: Tally,
    /// What was counted in this one; its crashes are of all.
    now: Tally,
    /// Answers that were no numbers, of this life.
    not_numbers: u64,
    provider: String,
}

impl Ledger {
    /// Begins with what a device says; nothing where its row names no version.
    pub fn begin(row: &ModelEvidence) -> Option<Self> {
        Some(Self {
            version: Version::new(row.version)?,
            life: row.life,
            past: Vec::new(),
            before: Tally::default(),
            now: Tally::of_life(row),
            not_numbers: row.not_numbers,
            provider: clipped(&row.provider),
        })
    }

    /// The device says more. Whether that was anything new.
    pub fn handle(&mut self, row: &ModelEvidence) -> bool {
        if row.version != self.version.get() {
            // It may have gone back to a version whose life went on meanwhile; and a row that comes late is made good by
            // the next one, which counts all of its life.
            let Some(fresh) = Self::begin(row) else { return false };
            *self = fresh;
            return true;
        }
        let said = Tally::of_life(row);
        if row.life == self.life {
            // Sums only grow: what is less is older, or the device lies.
            let grows = said != self.now && !shrinks(&said, &self.now);
            if grows {
                self.take(row, said);
            }
            return grows;
        }
        if self.past.contains(&row.life) {
            return false;
        }
        self.past = self.ended();
        let over = Tally { crashes: 0, ..std::mem::take(&mut self.now) };
        self.before.add(&over);
        self.life = row.life;
        self.take(row, said);
        true
    }

    fn take(&mut self, row: &ModelEvidence, said: Tally) {
        self.now = said;
        self.not_numbers = row.not_numbers;
        self.provider = clipped(&row.provider);
    }

    fn ended(&self) -> Vec<u64> {
        let ended = std::iter::once(self.life).chain(self.past.iter().copied());
        ended.take(PAST_MAX).collect()
    }

    /// The version that this is of.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Everything that was counted for it.
    pub fn tally(&self) -> Tally {
        let mut all = self.now.clone();
        all.add(&self.before);
        all
    }

    /// Who computes it; empty where that is not known.
    pub fn provider(&self) -> &str {
        &self.provider
    }
}

/// Whether any of the sums is less than it was.
fn shrinks(said: &Tally, was: &Tally) -> bool {
    let sums = |tally: &Tally| {
        let Tally { requests, errors, deferred, checked, disagreed, crashes, .. } = *tally;
        [requests, errors, deferred, checked, disagreed, crashes, tally.judged]
    };
    sums(said).iter().zip(sums(was)).any(|(said, was)| *said < was)
}

fn clipped(provider: &str) -> String {
    provider.chars().take(16).collect()
}

/// The rows of a frame that may be kept: of models that are looked at, each once.
pub fn rows<'a>(
    said: &'a [ModelEvidence],
    is_watched: impl Fn(&ModelName) -> bool + 'a,
) -> impl Iterator<Item = (ModelName, &'a ModelEvidence)> + 'a {
    let first = said.iter().take(protocol::evidence::EVIDENCE_MODELS_MAX);
    let named = first.filter_map(|row| Some((row.name.parse::<ModelName>().ok()?, row)));
    named.filter(move |(name, _)| is_watched(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(version: u64, life: u64, requests: u64) -> ModelEvidence {
        ModelEvidence {
            name: "m".into(),
            version,
            life,
            requests,
            runs: vec![requests],
            provider: "cpu".into(),
            ..Default::default()
        }
    }

    #[test]
    fn lives_are_added_up_and_a_new_version_begins_anew() {
        let mut ledger = Ledger::begin(&row(1, 7, 10)).unwrap();
        assert!(!ledger.handle(&row(1, 7, 10)), "the same again");
        assert!(ledger.handle(&row(1, 7, 15)));
        assert!(!ledger.handle(&row(1, 7, 12)), "late");
        assert!(ledger.handle(&ModelEvidence { crashes: 1, ..row(1, 8, 3) }), "a restart");
        assert!(ledger.handle(&ModelEvidence { crashes: 1, ..row(1, 9, 2) }), "another, in order");
        assert!(!ledger.handle(&row(1, 7, 99)), "a life that is over");
        let all = ledger.tally();
        assert_eq!((all.requests, all.crashes, all.runs), (20, 1, vec![20]));
        assert!(ledger.handle(&row(2, 10, 4)));
        assert_eq!((ledger.version().get(), ledger.tally().requests), (2, 4));
        assert!(ledger.handle(&row(1, 9, 5)), "it went back, to a life that had gone on");
        assert_eq!((ledger.version().get(), ledger.tally().requests), (1, 5));
        assert!(!ledger.handle(&row(0, 11, 1)) && Ledger::begin(&row(0, 1, 1)).is_none());
    }

    #[test]
    fn what_is_not_looked_at_is_not_kept() {
        let said = [row(1, 1, 1), ModelEvidence { name: "no name".into(), ..row(1, 1, 1) }];
        assert_eq!(rows(&said, |_| true).count(), 1);
        assert_eq!(rows(&said, |_| false).count(), 0);
    }

    proptest::proptest! {
        /// Whatever is repeated or swapped within a life, the largest sums hold.
        #[test]
        fn repeats_and_reorder_do_no_harm(
            sums in proptest::collection::vec(1_u64..1000, 1..20),
            order in proptest::collection::vec(0_usize..20, 1..60),
        ) {
            let mut ledger = Ledger::begin(&row(1, 7, 0)).unwrap();
            let mut most = 0;
            for at in order {
                let requests = sums[at % sums.len()];
                ledger.handle(&row(1, 7, requests));
                most = most.max(requests);
                proptest::prop_assert_eq!(ledger.tally().requests, most);
            }
        }
    }
}
