//! Roll-outs, their devices, and the evidence from these. A step of a roll-out and everything that follows from it, the
//! versions that devices are told, what is assigned in the end and the audit entries, are one transaction: wherever the
//! process ends, the next one goes on from there.

use fleet::rollout::Rollout;
use fleet::rollout::ledger::Ledger;
use fleet::rollout::member::Member;
use protocol::id::{DeviceId, ModelName, RolloutId, Variant, Version};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

use super::assignments::bump_revision;
use super::audit::{By, append};
use super::models::find;
use super::{Store, StoreError, conversion_failure, parsed, to_sql};

/// Why a roll-out was not begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is nothing to install.
    #[error("there is no edge variant of {model}@{version}")]
    NoEdgeVariant {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
    },
    /// Devices could not defer any more.
    #[error("{model}@{version} has no cloud variant, and versions before it have one")]
    NoCloudVariant {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
    },
    /// Another one of the same model has some of the devices.
    #[error("the roll-out {other} of the same model is under way on {devices} of these devices")]
    Overlaps {
        /// The other one.
        other: RolloutId,
        /// How many of its devices are meant again.
        devices: usize,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for BeginError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A roll-out as it is kept.
#[derive(Debug, Clone)]
pub struct KeptRollout {
    /// Its id.
    pub id: RolloutId,
    /// The roll-out.
    pub rollout: Rollout,
    /// Who planned it.
    pub planned_by: String,
    /// Unix seconds.
    pub planned_at_s: i64,
}

impl KeptRollout {
    /// The same with another state.
    #[must_use]
    pub fn with(&self, rollout: Rollout) -> Self {
        let Self { id, planned_by, planned_at_s, .. } = self;
        Self {
            id: id.clone(),
            rollout,
            planned_by: planned_by.clone(),
            planned_at_s: *planned_at_s,
        }
    }
}

/// A version that a device was told by a roll-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The device.
    pub device: DeviceId,
    /// By which.
    pub rollout: RolloutId,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
}

/// What a device runs from now on because of a roll-out that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assigned {
    /// Every device of the fleet, those that come later too.
    Everyone,
    /// These.
    Devices(Vec<DeviceId>),
}

/// A step of a roll-out, to be written down.
#[derive(Debug)]
pub struct Step<'a> {
    /// Whose.
    pub id: &'a RolloutId,
    /// How it stands now.
    pub rollout: &'a Rollout,
    /// The devices of which something changed.
    pub members: Vec<(&'a DeviceId, &'a Member)>,
    /// What happened, for the audit log.
    pub entries: Vec<String>,
    /// Where it is done: who runs its version from now on.
    pub assigned: Option<Assigned>,
}

impl Store {
    /// Keeps a roll-out that was planned.
    ///
    /// # Errors
    /// [`BeginError`]; nothing was begun then.
    pub fn begin_rollout(
        &self,
        by: &By,
        id: &RolloutId,
        rollout: &Rollout,
    ) -> Result<(), BeginError> {
        self.change(|transaction| {
            let (model, version) = model_of(rollout)?;
            check_variants(transaction, model, version)?;
            check_overlap(transaction, model, rollout)?;
            let values = params![
                id.as_str(),
                model.as_str(),
                to_sql(version.get()),
                rollout.phase().as_str(),
                rollout.phase().is_end(),
                json(rollout)?,
                by.actor,
                by.now_s,
                by.now_s
            ];
            let sql = "INSERT INTO rollouts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
            transaction.execute(sql, values)?;
            let members: Vec<_> = rollout.members().iter().collect();
            keep_members(transaction, id, rollout, &members)?;
            bump_revision(transaction)?;
            let detail = format!("{model}@{version} to {} devices", members.len());
            Ok(append(transaction, by, "rollout.start", id.as_str(), &detail)?)
        })
    }

    /// Writes a step down, with all that follows from it.
    ///
    /// # Errors
    /// [`StoreError`]; then it has not happened.
    pub fn keep_step(&self, by: &By, step: &Step<'_>) -> Result<(), StoreError> {
        self.change(|transaction| {
            let Step { id, rollout, members, entries, assigned } = step;
            let phase = rollout.phase();
            let sql = "UPDATE rollouts SET phase = ?, is_over = ?, state = ?, changed_at_s = ?
                       WHERE id = ?";
            let values =
                params![phase.as_str(), phase.is_end(), json(rollout)?, by.now_s, id.as_str()];
            transaction.execute(sql, values)?;
            keep_members(transaction, id, rollout, members)?;
            for entry in entries {
                append(transaction, by, "rollout.step", id.as_str(), entry)?;
            }
            if let Some(assigned) = assigned {
                assign(transaction, by, rollout, assigned)?;
            }
            if phase.is_end() {
                end(transaction, id)?;
            }
            if !members.is_empty() || assigned.is_some() {
                bump_revision(transaction)?;
            }
            Ok(())
        })
    }

    /// Those that are not over, with their devices.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn running_rollouts(&self) -> Result<Vec<KeptRollout>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT * FROM rollouts WHERE is_over = 0 ORDER BY planned_at_s, id";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], kept)?;
            let kept = rows.collect::<Result<Vec<_>, _>>()?;
            kept.into_iter().map(|kept| with_members(connection, kept)).collect()
        })
    }

    /// Every one, without its devices, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rollouts(&self, limit: u32) -> Result<Vec<KeptRollout>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT * FROM rollouts ORDER BY planned_at_s DESC, id LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([limit], kept)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// One of them, with its devices.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn rollout(&self, id: &RolloutId) -> Result<Option<KeptRollout>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM rollouts WHERE id = ?")?;
            let found = statement.query_row([id.as_str()], kept).optional()?;
            found.map(|kept| with_members(connection, kept)).transpose()
        })
    }

    /// What every device was told by roll-outs that are under way.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn told(&self) -> Result<Vec<Told>, StoreError> {
        self.read(|connection| {
            let sql =
                "SELECT device, rollout, model, version FROM rollout_devices WHERE is_told = 1";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(Told {
                    device: parsed(row, "device")?,
                    rollout: parsed(row, "rollout")?,
                    model: parsed(row, "model")?,
                    version: super::version(row, "version")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Keeps what devices have counted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep_evidence(
        &self,
        evidence: &[(DeviceId, ModelName, Ledger)],
    ) -> Result<(), StoreError> {
        self.change(|transaction| {
            let sql = "INSERT OR REPLACE INTO evidence VALUES (?, ?, ?)";
            let mut insert = transaction.prepare_cached(sql)?;
            for (device, model, ledger) in evidence {
                insert.execute(params![device.as_str(), model.as_str(), json(ledger)?])?;
            }
            Ok(())
        })
    }

    /// What devices have counted, as far as it was kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn evidence(&self) -> Result<Vec<(DeviceId, ModelName, Ledger)>, StoreError> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT * FROM evidence")?;
            let rows = statement.query_map([], |row| {
                Ok((parsed(row, "device")?, parsed(row, "model")?, from_json(row, "ledger")?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// The versions that roll-outs have told a device, whatever is assigned.
pub(super) fn told(
    connection: &Connection,
    device: &DeviceId,
) -> rusqlite::Result<Vec<(ModelName, Version)>> {
    let sql = "SELECT model, version FROM rollout_devices WHERE device = ? AND is_told = 1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([device.as_str()], |row| {
        Ok((parsed(row, "model")?, super::version(row, "version")?))
    })?;
    rows.collect()
}

/// A plan that was checked has both.
fn model_of(rollout: &Rollout) -> Result<(&ModelName, Version), StoreError> {
    let model = rollout.plan_of().model.as_ref();
    Ok((model.ok_or(rusqlite::Error::InvalidQuery)?, rollout.version()))
}

fn check_variants(
    transaction: &Transaction<'_>,
    model: &ModelName,
    version: Version,
) -> Result<(), BeginError> {
    if find(transaction, model, version, Variant::Edge)?.is_none() {
        return Err(BeginError::NoEdgeVariant { model: model.clone(), version });
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM bundles
               WHERE model = ? AND variant = 'cloud' AND version < ?)";
    let before = params![model.as_str(), to_sql(version.get())];
    let had_one: bool = transaction.query_row(sql, before, |row| row.get(0))?;
    if had_one && find(transaction, model, version, Variant::Cloud)?.is_none() {
        return Err(BeginError::NoCloudVariant { model: model.clone(), version });
    }
    Ok(())
}

/// A device in two roll-outs of a model would be told two versions.
fn check_overlap(
    transaction: &Transaction<'_>,
    model: &ModelName,
    rollout: &Rollout,
) -> Result<(), BeginError> {
    let sql = "SELECT rollout, device FROM rollout_devices JOIN rollouts ON id = rollout
               WHERE rollouts.model = ? AND is_over = 0";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([model.as_str()])?;
    let mut shared: BTreeMap<RolloutId, usize> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        if rollout.members().contains_key(&parsed::<DeviceId>(row, "device")?) {
            *shared.entry(parsed(row, "rollout")?).or_default() += 1;
        }
    }
    match shared.pop_first() {
        Some((other, devices)) => Err(BeginError::Overlaps { other, devices }),
        None => Ok(()),
    }
}

fn keep_members(
    transaction: &Transaction<'_>,
    id: &RolloutId,
    rollout: &Rollout,
    members: &[(&DeviceId, &Member)],
) -> Result<(), StoreError> {
    let (model, version) = model_of(rollout)?;
    let sql = "INSERT INTO rollout_devices VALUES (?, ?, ?, ?, ?, ?)
               ON CONFLICT (rollout, device) DO UPDATE SET is_told = excluded.is_told, state = excluded.state";
    let mut insert = transaction.prepare_cached(sql)?;
    for (device, member) in members {
        insert.execute(params![
            id.as_str(),
            device.as_str(),
            model.as_str(),
            to_sql(version.get()),
            member.standing.is_told(),
            json(member)?
        ])?;
    }
    Ok(())
}

/// The assignment moves.
fn assign(
    transaction: &Transaction<'_>,
    by: &By,
    rollout: &Rollout,
    assigned: &Assigned,
) -> Result<(), StoreError> {
    let (model, version) = model_of(rollout)?;
    let sql = "INSERT INTO assignments (model, device, version, assigned_at_s) VALUES (?, ?, ?, ?)
               ON CONFLICT (model, device) DO UPDATE
               SET version = excluded.version, assigned_at_s = excluded.assigned_at_s";
    let mut insert = transaction.prepare_cached(sql)?;
    let mut put = |device: &str| {
        insert.execute(params![model.as_str(), device, to_sql(version.get()), by.now_s])
    };
    let subject = match assigned {
        Assigned::Everyone => {
            transaction.execute("DELETE FROM assignments WHERE model = ?", [model.as_str()])?;
            put("")?;
            "all devices".to_owned()
        }
        Assigned::Devices(devices) => {
            for device in devices {
                put(device.as_str())?;
            }
            format!("{} devices", devices.len())
        }
    };
    let detail = format!("{model}@{version}");
    Ok(append(transaction, by, "model.assign", &subject, &detail)?)
}

/// Nobody is told anything by it any more; evidence of a model that no other one looks at goes.
fn end(transaction: &Transaction<'_>, id: &RolloutId) -> rusqlite::Result<()> {
    let sql = "UPDATE rollout_devices SET is_told = 0 WHERE rollout = ?";
    transaction.execute(sql, [id.as_str()])?;
    let sql = "DELETE FROM evidence
               WHERE model NOT IN (SELECT model FROM rollouts WHERE is_over = 0)";
    transaction.execute(sql, [])?;
    Ok(())
}

fn kept(row: &Row<'_>) -> rusqlite::Result<KeptRollout> {
    Ok(KeptRollout {
        id: parsed(row, "id")?,
        rollout: from_json(row, "state")?,
        planned_by: row.get("planned_by")?,
        planned_at_s: row.get("planned_at_s")?,
    })
}

fn with_members(connection: &Connection, kept: KeptRollout) -> Result<KeptRollout, StoreError> {
    let sql = "SELECT device, state FROM rollout_devices WHERE rollout = ?";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([kept.id.as_str()], |row| {
        Ok((parsed(row, "device")?, from_json(row, "state")?))
    })?;
    let members = rows.collect::<Result<_, _>>()?;
    Ok(KeptRollout { rollout: kept.rollout.with_members(members), ..kept })
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, rusqlite::Error> {
    serde_json::to_vec(value).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let bytes: Vec<u8> = row.get(column)?;
    serde_json::from_slice(&bytes).map_err(|e| conversion_failure(Type::Blob, e))
}
