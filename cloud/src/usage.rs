//! Metering: what each caller asked of each model, summed in memory and written in groups.
//!
//! A request writes nothing by itself. The sums go to the database every [`FLUSH_EVERY`] and when
//! the server stops in order; a power cut or a kill loses the sums since the last time, and no more.

use protocol::id::ModelName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::access::Identity;
use crate::state::{Cloud, now_s};
use crate::store::usage::{Usage, UsageOf};

/// How often sums are written: what a power cut may lose.
pub const FLUSH_EVERY: Duration = Duration::from_secs(10);
/// Different sums between two writes; what is beyond is counted, and lost.
const SUMS_MAX: usize = 65_536;
const HOUR_S: i64 = 3600;

/// Whose sum, and of which model; `None` for a model that is not known here.
type Of = (Arc<str>, Option<ModelName>);

/// The sums since the last write.
#[derive(Debug, Default)]
pub struct Meter {
    sums: Mutex<HashMap<Of, (Identity, Usage)>>,
}

impl Meter {
    fn lock(&self) -> MutexGuard<'_, HashMap<Of, (Identity, Usage)>> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a sum; false when there are too many.
    pub(crate) fn add(&self, identity: &Identity, model: Option<ModelName>, usage: &Usage) -> bool {
        let mut sums = self.lock();
        let of = (identity.caller.clone(), model);
        if sums.len() >= SUMS_MAX && !sums.contains_key(&of) {
            return false;
        }
        let (_, sum) = sums.entry(of).or_insert_with(|| (identity.clone(), Usage::default()));
        sum.requests += usage.requests;
        sum.refused += usage.refused;
        sum.compute_us += usage.compute_us;
        sum.bytes_in += usage.bytes_in;
        sum.bytes_out += usage.bytes_out;
        true
    }

    fn take(&self, hour_s: i64) -> Vec<(UsageOf, Usage)> {
        let of = |((caller, model), (identity, usage)): (Of, (Identity, Usage))| {
            let model = model.map(String::from).unwrap_or_default();
            let tenant = identity.tenant.to_string();
            (UsageOf { hour_s, tenant, caller: caller.to_string(), model }, usage)
        };
        std::mem::take(&mut *self.lock()).into_iter().map(of).collect()
    }
}

/// Writes the sums, and which keys were used. What could not be written is kept for the next time.
pub async fn flush(cloud: &Cloud) {
    let now_s = now_s();
    let sums = cloud.meter.take(now_s - now_s.rem_euclid(HOUR_S));
    let used = cloud.access.used();
    if sums.is_empty() && used.is_empty() {
        return;
    }
    let kept = sums.clone();
    let written = cloud.db.call(move |store| store.add_usage(&sums, &used)).await;
    if let Err(error) = written {
        cloud.events.internal_error(&error);
        put_back(cloud, kept);
    }
}

fn put_back(cloud: &Cloud, sums: Vec<(UsageOf, Usage)>) {
    for (of, usage) in sums {
        let Ok(tenant) = of.tenant.parse() else { continue }; // it was one before
        let identity = Identity { tenant, caller: of.caller.into() };
        if !cloud.meter.add(&identity, of.model.parse().ok(), &usage) {
            cloud.events.usage_lost();
        }
    }
}

/// Writes the sums again and again, until the server stops; the last time is the server's.
pub async fn keep(cloud: Arc<Cloud>) {
    let mut stopping = cloud.stopping.subscribe();
    while !*stopping.borrow_and_update() {
        tokio::select! {
            _ = stopping.changed() => return,
            () = tokio::time::sleep(FLUSH_EVERY) => {}
        }
        flush(&cloud).await;
    }
}
