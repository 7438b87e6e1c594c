//! Who calls: every live key and tenant, held in memory, so that a request costs no query and a
//! revocation acts at once.
//!
//! The table holds all keys that can be used, not a part of them: an unknown id is known to be
//! unknown without asking the database, so that made-up keys cost it nothing. Its size is bounded
//! by `KEYS_MAX`. The database stays the truth; what is written there is put in here before the
//! call that changed it is answered.

use fleet::access::{Denied, KeyRecord, Permission, decide};
use fleet::attempts::Attempts;
use protocol::id::TenantName;
use protocol::pattern::ModelPatterns;
use protocol::problem::{Problem, ProblemCode};
use protocol::token::SecretDigest;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::state::now_s;
use crate::store::keys::StoredKey;
use crate::store::tenants::Tenant;

/// A key's last use is noted this coarsely.
const USED_STEP_S: i64 = 60;

/// Who asks, as usage is metered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whom the asker belongs to.
    pub tenant: TenantName,
    /// `key ID` or `device ID`.
    pub caller: Arc<str>,
}

/// A key that can be used.
#[derive(Debug)]
pub struct LiveKey {
    /// What it may do.
    pub record: KeyRecord,
    /// Its id, to be handed on.
    pub id: Arc<str>,
    /// Who its holder is.
    pub identity: Identity,
    last_used_s: AtomicI64,
    noted_s: AtomicI64,
}

impl LiveKey {
    fn new(record: KeyRecord, last_used_s: Option<i64>) -> Self {
        let last_used_s = last_used_s.unwrap_or(0);
        let caller = format!("key {}", record.id).into();
        Self {
            id: record.id.as_str().into(),
            identity: Identity { tenant: record.tenant.clone(), caller },
            record,
            last_used_s: AtomicI64::new(last_used_s),
            noted_s: AtomicI64::new(last_used_s),
        }
    }

    /// Whether its role includes the permission.
    ///
    /// # Errors
    /// `Unauthorised`, with what is missing.
    pub fn need(&self, permission: Permission) -> Result<(), Problem> {
        if self.record.role.allows(permission) {
            return Ok(());
        }
        let text = format!("the role {} does not include this: {permission:?}", self.record.role);
        Err(Problem::new(ProblemCode::Unauthorised, text).hint("ask an admin of this cloud"))
    }

    /// The key as the audit log names it.
    pub fn actor(&self) -> String {
        self.record.title()
    }

    /// When it was used last, Unix seconds, to the second while this process runs.
    pub fn last_used_s(&self) -> Option<i64> {
        Some(self.last_used_s.load(Relaxed)).filter(|at_s| *at_s > 0)
    }
}

/// Keys, tenants, and who failed to show one.
#[derive(Debug)]
pub struct Access {
    keys: RwLock<HashMap<String, Arc<LiveKey>>>,
    tenants: RwLock<HashMap<TenantName, ModelPatterns>>,
    attempts: Mutex<Attempts>,
    started: Instant,
}

impl Access {
    /// The table of what the database holds.
    pub fn new(keys: Vec<StoredKey>, tenants: Vec<Tenant>) -> Self {
        let now_s = now_s();
        let live = keys.into_iter().filter(|key| key.is_live(now_s));
        let live = live.map(|key| LiveKey::new(key.record, key.last_used_s));
        Self {
            keys: RwLock::new(live.map(|key| (key.record.id.clone(), Arc::new(key))).collect()),
            tenants: RwLock::new(tenants.into_iter().map(|t| (t.name, t.models)).collect()),
            attempts: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// The holder of a secret.
    ///
    /// # Errors
    /// [`Denied`], after the same work for an unknown id as for a wrong secret.
    pub fn authenticate(&self, id: &str, shown: &SecretDigest) -> Result<Arc<LiveKey>, Denied> {
        let key = self.find(id);
        let now_s = now_s();
        decide(key.as_ref().map(|key| &key.record), shown, now_s)?;
        let key = key.ok_or(Denied::Unknown)?;
        key.last_used_s.store(now_s, Relaxed);
        Ok(key)
    }

    fn find(&self, id: &str) -> Option<Arc<LiveKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// A key that was shown before, unless it was revoked or has ended since.
    pub fn still_live(&self, id: &str) -> Option<Arc<LiveKey>> {
        let now_s = now_s();
        self.find(id).filter(|key| key.record.expires_at_s.is_none_or(|end_s| now_s < end_s))
    }

    /// From now on the key is believed.
    pub fn add(&self, record: KeyRecord) {
        let key = Arc::new(LiveKey::new(record, None));
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let now_s = now_s();
        keys.retain(|_, key| key.record.expires_at_s.is_none_or(|end_s| now_s < end_s));
        keys.insert(key.record.id.clone(), key);
    }

    /// From now on the key is not believed.
    pub fn remove(&self, id: &str) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// What a tenant's keys and devices may ask; nothing for an unknown tenant.
    pub fn tenant_models(&self, tenant: &TenantName) -> Option<ModelPatterns> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner).get(tenant).cloned()
    }

    /// A tenant may ask this from now on.
    pub fn put_tenant(&self, name: TenantName, models: ModelPatterns) {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner).insert(name, models);
    }

    /// Counts a failure of an address.
    ///
    /// # Errors
    /// How long it should wait, when it failed too often.
    pub fn failed(&self, address: IpAddr) -> Result<(), Duration> {
        let now = self.started.elapsed();
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).failed(address, now)
    }

    /// The keys whose last use is to be noted in the database, and when it was.
    pub fn used(&self) -> Vec<(String, i64)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let stale = |key: &&Arc<LiveKey>| {
            key.last_used_s.load(Relaxed) - key.noted_s.load(Relaxed) >= USED_STEP_S
        };
        let note = |key: &Arc<LiveKey>| {
            let at_s = key.last_used_s.load(Relaxed);
            key.noted_s.store(at_s, Relaxed);
            (key.record.id.clone(), at_s)
        };
        keys.values().filter(stale).map(note).collect()
    }

    /// A key was used on another node.
    pub fn note_use(&self, id: &str, at_s: i64) {
        if let Some(key) = self.find(id) {
            key.last_used_s.fetch_max(at_s, Relaxed);
            key.noted_s.fetch_max(at_s, Relaxed);
        }
    }

    /// Takes the place of the whole table; when a key was used last is kept.
    pub fn replace(&self, keys: Vec<StoredKey>, tenants: Vec<Tenant>) {
        let fresh = Self::new(keys, tenants);
        let taken = |lock: RwLock<_>| lock.into_inner().unwrap_or_else(PoisonError::into_inner);
        let new = taken(fresh.keys);
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        for (id, key) in &new {
            if let Some(known) = keys.get(id) {
                key.last_used_s.fetch_max(known.last_used_s.load(Relaxed), Relaxed);
                key.noted_s.fetch_max(known.noted_s.load(Relaxed), Relaxed);
            }
        }
        *keys = new;
        drop(keys);
        let tenants = fresh.tenants.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.tenants.write().unwrap_or_else(PoisonError::into_inner) = tenants;
    }

    /// How many keys can be used.
    pub fn live_keys(&self) -> usize {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}
