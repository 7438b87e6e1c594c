//! What a device has counted of the versions that answer on it, told as often as the cloud asks, and not at all where it does
//! not. Nothing is counted as it happens: what happened since the last look is drawn when somebody looks.

use crate::behaviour::{Behaviours, Served, Traits};
use crate::chance::Chance;
use link::device::Counts;
use protocol::evidence::bucket;
use protocol::id::ModelName;
use protocol::wire::{ModelEvidence, Watch};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Of what nobody has asked for so long, the rest is left out.
const LOOK_BACK_MAX: Duration = Duration::from_secs(600);

/// What the versions on one device have done.
pub(crate) struct Counting {
    behaviours: Arc<Behaviours>,
    counted: Mutex<Counted>,
}

struct Counted {
    traits: Traits,
    /// The share that is checked while nobody looks.
    usually_checked: f64,
    chance: Chance,
    /// The version of each model that answers, and since when what it does is not counted yet.
    answering: BTreeMap<ModelName, (u64, Instant)>,
    rows: BTreeMap<(ModelName, u64), ModelEvidence>,
}

impl Counting {
    pub(crate) fn new(behaviours: Arc<Behaviours>, traits: Traits, chance: Chance) -> Self {
        let (answering, rows) = (BTreeMap::new(), BTreeMap::new());
        let usually_checked = traits.checked;
        let counted = Counted { traits, usually_checked, chance, answering, rows };
        Self { behaviours, counted: Mutex::new(counted) }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this version answers; where it did before, it counts on.
    pub(crate) fn switch(&self, name: &ModelName, version: u64) {
        let mut counted = self.counted();
        self.catch_up(&mut counted, name);
        counted.answering.insert(name.clone(), (version, Instant::now()));
        let life = counted.chance.next();
        let row = counted.rows.entry((name.clone(), version));
        row.or_insert_with(|| ModelEvidence {
            name: name.to_string(),
            version,
            life,
            provider: "cpu".into(),
            ..Default::default()
        });
    }

    /// Whether this version has ever answered.
    pub(crate) fn has_answered(&self, version: u64) -> bool {
        self.counted().rows.keys().any(|(_, own)| *own == version)
    }

    fn catch_up(&self, counted: &mut Counted, name: &ModelName) {
        let Counted { traits, chance, answering, rows, .. } = counted;
        let Some((version, since)) = answering.get_mut(name) else { return };
        let now = Instant::now();
        let passed = now.saturating_duration_since(*since).min(LOOK_BACK_MAX);
        *since = now;
        let served = self.behaviours.of(*version).serve(traits, passed, chance);
        if let Some(row) = rows.get_mut(&(name.clone(), *version)) {
            add(row, &served);
        }
    }
}

impl Counts for Counting {
    fn look_closely(&self, watch: Option<&Watch>) {
        let mut counted = self.counted();
        let asked = watch.map_or(0, |watch| watch.calls_per_check);
        let share = if asked == 0 { 0.0 } else { f64::from(asked).recip() };
        counted.traits.checked = counted.usually_checked.max(share);
    }

    fn rows(&self, models: &[String]) -> Vec<ModelEvidence> {
        let mut counted = self.counted();
        let names = models.iter().filter_map(|name| name.parse().ok());
        let row = |name: ModelName| {
            self.catch_up(&mut counted, &name);
            let version = counted.answering.get(&name)?.0;
            counted.rows.get(&(name, version)).cloned()
        };
        names.filter_map(row).collect()
    }

    fn phase(&self) -> f64 {
        self.counted().chance.unit()
    }
}

fn add(row: &mut ModelEvidence, served: &Served) {
    row.requests += served.requests;
    row.errors += served.errors;
    row.deferred += served.deferred;
    row.checked += served.checked;
    row.disagreed += served.disagreed;
    row.judged += served.judged;
    row.confidence_micros += served.confidence_micros;
    row.crashes += u32::try_from(served.crashes).unwrap_or(u32::MAX);
    for took_us in &served.runs_us {
        let bucket = bucket(*took_us);
        if row.runs.len() <= bucket {
            row.runs.resize(bucket + 1, 0);
        }
        row.runs[bucket] += 1;
    }
}
