//! What is kept for how long, of whom: a segment's body goes after its time, and a while later the note that it was here,
//! which keeps a device from bringing it again.

use protocol::id::TenantName;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::crowds;
use super::store::{TelemetryError, TelemetryStore, empty_log};
use crate::state::{Cloud, now_s};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const DAY_S: i64 = 24 * 3600;
/// How long it is remembered that a segment was here, after its body went.
const REMEMBERED_S: i64 = 60 * DAY_S;
/// What a device that brings bytes of a broken stream has kept here at most, in days.
const PARTIAL_DAYS: u32 = 7;

/// For how long it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// In days; 0 for ever.
    pub days: u32,
    /// The same, of tenants that have a time of their own.
    pub tenant_days: BTreeMap<TenantName, u32>,
}

impl Retention {
    /// What came before that goes; none where it is kept for ever.
    fn before_s(&self, tenant: &str, now_s: i64) -> Option<i64> {
        let own = self.tenant_days.iter().find(|(name, _)| name.as_str() == tenant);
        before_s(own.map_or(self.days, |(_, days)| *days), now_s)
    }

    /// What has not come whole goes with the first of all.
    fn partials_before_s(&self, now_s: i64) -> Option<i64> {
        let all = self.tenant_days.values().chain([&self.days, &PARTIAL_DAYS]);
        before_s(*all.filter(|days| **days > 0).min()?, now_s)
    }
}

fn before_s(days: u32, now_s: i64) -> Option<i64> {
    (days > 0).then(|| now_s - i64::from(days) * DAY_S)
}

/// Sweeps at the start, and every hour, until the server ends.
pub(crate) async fn keep_sweeping(cloud: Arc<Cloud>, retention: Retention) {
    let mut stopping = cloud.stopping.subscribe();
    while !*stopping.borrow_and_update() {
        let (retention, now_s) = (retention.clone(), now_s());
        match cloud.telemetry.call(move |store| store.expire(&retention, now_s)).await {
            Ok(swept) => cloud.events.telemetry_expired(swept),
            Err(error) => cloud.events.internal_error(&error),
        }
        tokio::select! {
            _ = stopping.changed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

impl TelemetryStore {
    /// Deletes what is past its time: the keys of samples first. How many segments that were.
    ///
    /// # Errors
    /// [`TelemetryError`].
    fn expire(&self, retention: &Retention, now_s: i64) -> Result<usize, TelemetryError> {
        let tenants = tenants(&self.segments())?; // the lock is free again below
        let mut expired = 0;
        for tenant in tenants {
            if let Some(before_s) = retention.before_s(&tenant, now_s) {
                self.shred_samples(&tenant, before_s)?;
                expired += void(&self.segments(), &tenant, before_s)?;
            }
        }
        let connection = self.segments();
        if let Some(before_s) = before_s(retention.days, now_s) {
            crowds::expire(&connection, before_s)?;
        }
        if let Some(before_s) = retention.partials_before_s(now_s) {
            connection.execute("DELETE FROM partials WHERE received_at_s < ?", [before_s])?;
        }
        Ok(expired)
    }

    /// Destroys the keys of a tenant's samples that came before that.
    fn shred_samples(&self, tenant: &str, before_s: i64) -> Result<(), TelemetryError> {
        let samples: Vec<(String, i64)> = {
            let connection = self.segments();
            let mut statement = connection.prepare_cached(
                "SELECT device, segment FROM segments
                 WHERE tenant = ? AND received_at_s < ? AND class = 'samples' AND body IS NOT NULL",
            )?;
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            statement.query_map(params![tenant, before_s], read)?.collect::<Result<_, _>>()?
        };
        if samples.is_empty() {
            return Ok(());
        }
        let mut keys = self.keys();
        let transaction = keys.transaction()?;
        for (device, segment) in samples {
            let delete = "DELETE FROM detached WHERE device = ? AND segment = ?";
            transaction.execute(delete, params![device, segment])?;
        }
        transaction.commit()?;
        Ok(empty_log(&keys)?)
    }
}

/// Of whom there is anything here.
fn tenants(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let select = "SELECT tenant FROM segments UNION SELECT tenant FROM counters";
    let mut statement = connection.prepare_cached(select)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Deletes what came of a tenant before that. How many segments that were.
fn void(connection: &Connection, tenant: &str, before_s: i64) -> rusqlite::Result<usize> {
    let void = "UPDATE segments SET body = NULL WHERE tenant = ? AND received_at_s < ? AND body IS NOT NULL";
    let expired = connection.execute(void, params![tenant, before_s])?;
    let forget = "DELETE FROM segments WHERE tenant = ? AND received_at_s < ?";
    connection.execute(forget, params![tenant, before_s - REMEMBERED_S])?;
    let counters = "DELETE FROM counters WHERE tenant = ? AND hour_s < ?";
    connection.execute(counters, params![tenant, before_s])?;
    Ok(expired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Filter, Known, Offered, judge};
    use fleet::crowd::CrowdPolicy;
    use protocol::id::{ContentHash, DeviceId};
    use telemetry::Class;
    use telemetry::key::PrivateKey;
    use telemetry::seal::{Beginning, Sealer};
    use telemetry::wire::record::What;
    use telemetry::wire::{Counters, ModelCounters, Record, Sample};

    /// A store, and what devices bring to it.
    struct Shelf {
        _folder: tempfile::TempDir,
        store: TelemetryStore,
    }

    impl Shelf {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = TelemetryStore::open(folder.path(), CrowdPolicy::default()).unwrap();
            Self { _folder: folder, store }
        }

        /// A device brings a segment with one record, on that day.
        fn brings(&self, (device, tenant): (&str, &str), segment: u64, what: What, day: i64) {
            let class = match what {
                What::Counters(_) => Class::Counters,
                _ => Class::Samples,
            };
            let device: DeviceId = device.parse().unwrap();
            let own = device.clone();
            let beginning =
                Beginning { device: own, segment, class, now_unix_ms: 1, previous: (0, 0) };
            let key = PrivateKey::from_entropy(&[1; 32]);
            let (mut sealer, begun) =
                Sealer::begin(beginning, Some(key.public()), [2; 32]).unwrap();
            let record = Record { number: 1, observed_unix_ms: 1, what: Some(what) };
            let bytes = [begun.head, sealer.frame(vec![record]).unwrap()].concat();
            let (size_bytes, sha256) = (bytes.len() as u64, ContentHash::of(&bytes));
            let offered = Offered { segment, size_bytes, sha256, detached_key: begun.detached_key };
            let verdict = judge(&device, offered.clone(), bytes).unwrap();
            let tenant = tenant.parse().unwrap();
            self.store.keep(&device, &tenant, &[verdict], day * DAY_S).unwrap();
            assert_eq!(self.store.known(&device, &[offered]).unwrap(), [Known::Taken]);
        }

        /// Devices and numbers of the segments whose bodies are here.
        fn listed(&self) -> Vec<(String, i64)> {
            let all = Filter { limit: 100, ..Filter::default() };
            self.store.list(&all).unwrap().into_iter().map(|l| (l.device, l.segment)).collect()
        }

        fn rows(&self, table: &str) -> i64 {
            let connection =
                if table == "detached" { self.store.keys() } else { self.store.segments() };
            let count = format!("SELECT count(*) FROM {table}");
            connection.query_row(&count, [], |row| row.get(0)).unwrap()
        }

        fn expire(&self, retention: &Retention, day: i64) -> usize {
            self.store.expire(retention, day * DAY_S).unwrap()
        }
    }

    fn sample() -> What {
        What::Sample(Sample { model: "m".into(), ..Default::default() })
    }

    fn counters() -> What {
        let model =
            ModelCounters { model: "m".into(), version: 1, requests: 5, ..Default::default() };
        What::Counters(Counters { models: vec![model], ..Default::default() })
    }

    fn retention(days: u32, of_acme: Option<u32>) -> Retention {
        let own = of_acme.map(|days| ("acme".parse().unwrap(), days));
        Retention { days, tenant_days: own.into_iter().collect() }
    }

    #[test]
    fn a_tenant_has_a_time_of_its_own_and_the_others_have_that_of_all() {
        let shelf = Shelf::new();
        for (number, day) in [(1, 70), (2, 95)] {
            shelf.brings(("d-acme", "acme"), number, sample(), day);
            shelf.brings(("d-else", "default"), number, sample(), day);
        }
        let (acme, other) = ("d-acme".to_owned(), "d-else".to_owned());
        let kept = retention(90, Some(3));
        assert_eq!(shelf.expire(&kept, 97), 1, "the older one of acme");
        assert_eq!(shelf.listed(), [(other.clone(), 1), (acme, 2), (other.clone(), 2)]);
        assert_eq!(shelf.rows("detached"), 3, "the key goes with what it opens");
        assert_eq!((shelf.rows("segments"), shelf.expire(&kept, 97)), (4, 0), "it is known");
        assert_eq!(shelf.expire(&kept, 161), 2);
        assert_eq!(shelf.listed(), [(other, 2)]);
        assert_eq!(shelf.rows("segments"), 2, "those of acme are forgotten");
        assert_eq!((shelf.expire(&kept, 221), shelf.rows("segments")), (1, 1));
    }

    #[test]
    fn a_time_of_its_own_counts_where_all_else_is_kept_for_ever_and_the_other_way() {
        let shelf = Shelf::new();
        shelf.brings(("d-acme", "acme"), 1, counters(), 1);
        shelf.brings(("d-else", "default"), 1, counters(), 1);
        assert_eq!(shelf.expire(&retention(0, None), 9_999), 0);
        assert_eq!(shelf.rows("counters"), 2);
        assert_eq!(shelf.expire(&retention(0, Some(30)), 32), 1);
        assert_eq!((shelf.listed(), shelf.rows("counters")), (vec![("d-else".to_owned(), 1)], 1));

        let shelf = Shelf::new();
        shelf.brings(("d-acme", "acme"), 1, sample(), 1);
        assert_eq!(shelf.expire(&retention(90, Some(0)), 9_999), 0, "acme's is kept for ever");
    }

    #[test]
    fn what_has_not_come_whole_goes_within_a_week() {
        let shelf = Shelf::new();
        let device = "d-1".parse().unwrap();
        let sha256 = ContentHash::of(b"whole");
        let offered = Offered { segment: 1, size_bytes: 5, sha256, detached_key: None };
        shelf.store.keep_partial(&device, &offered, b"who", DAY_S).unwrap();
        shelf.expire(&retention(0, None), 7);
        assert_eq!(shelf.rows("partials"), 1);
        shelf.expire(&retention(0, None), 9);
        assert_eq!(shelf.rows("partials"), 0);
    }
}
