//! Labels of devices, and queries over them that have a name.

use fleet::labels::{self, GROUPS_MAX};
use fleet::rollout::query::{Labels, Query};
use protocol::id::{DeviceId, GroupName};
use rusqlite::{Connection, Transaction, params};
use std::collections::BTreeMap;

use super::audit::{By, append};
use super::{Store, StoreError, parsed};

/// Why labels or a group were not changed.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// No such device.
    #[error("there is no device {0}")]
    NoDevice(DeviceId),
    /// No such label.
    #[error("{device} has no label {key:?}")]
    NoLabel {
        /// The device.
        device: DeviceId,
        /// The key that was to go.
        key: String,
    },
    /// A label that nobody can give.
    #[error(transparent)]
    Invalid(#[from] labels::InvalidLabel),
    /// One more group than there may be.
    #[error("there are {GROUPS_MAX} groups already")]
    TooManyGroups,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for LabelError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// A query that has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// Whom it asks for.
    pub query: Query,
}

impl Store {
    /// Gives a device labels, and takes others away; all that it has then.
    ///
    /// # Errors
    /// [`LabelError`]; nothing changed then.
    pub fn label_device(
        &self,
        by: &By,
        device: &DeviceId,
        set: &Labels,
        remove: &[String],
    ) -> Result<Labels, LabelError> {
        self.change(|transaction| {
            let sql = "SELECT EXISTS (SELECT 1 FROM devices WHERE id = ?)";
            if !transaction.query_row(sql, [device.as_str()], |row| row.get::<_, bool>(0))? {
                return Err(LabelError::NoDevice(device.clone()));
            }
            let mut own = all(transaction)?.remove(device).unwrap_or_default();
            for key in remove {
                let absent = || LabelError::NoLabel { device: device.clone(), key: key.clone() };
                own.remove(key).ok_or_else(absent)?;
            }
            own.extend(set.clone());
            labels::check_all(&own)?;
            replace(transaction, device, &own)?;
            append(transaction, by, "device.label", device.as_str(), &in_words(set, remove))?;
            Ok(own)
        })
    }

    /// The labels of every device that has some.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn labels(&self) -> Result<BTreeMap<DeviceId, Labels>, StoreError> {
        self.read(|connection| Ok(all(connection)?))
    }

    /// Every group.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn groups(&self) -> Result<Vec<Group>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT name, query FROM device_groups ORDER BY name";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(Group { name: parsed(row, "name")?, query: parsed(row, "query")? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Gives a query a name, or another query to a name.
    ///
    /// # Errors
    /// [`LabelError`].
    pub fn put_group(&self, by: &By, group: &Group) -> Result<(), LabelError> {
        self.change(|transaction| {
            let (name, query) = (group.name.as_str(), group.query.to_string());
            let sql = "SELECT count(*) FROM device_groups WHERE name <> ?";
            if transaction.query_row(sql, [name], |row| row.get::<_, u32>(0))? >= GROUPS_MAX {
                return Err(LabelError::TooManyGroups);
            }
            let sql = "INSERT OR REPLACE INTO device_groups VALUES (?, ?, ?)";
            transaction.execute(sql, params![name, query, by.now_s])?;
            Ok(append(transaction, by, "group.set", name, &query)?)
        })
    }

    /// Forgets a group; false where there is none of that name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_group(&self, by: &By, name: &GroupName) -> Result<bool, StoreError> {
        self.change(|transaction| {
            let sql = "DELETE FROM device_groups WHERE name = ?";
            let known = transaction.execute(sql, [name.as_str()])? == 1;
            if known {
                append(transaction, by, "group.remove", name.as_str(), "")?;
            }
            Ok(known)
        })
    }
}

fn all(connection: &Connection) -> rusqlite::Result<BTreeMap<DeviceId, Labels>> {
    let mut statement =
        connection.prepare_cached("SELECT device, key, value FROM device_labels")?;
    let mut rows = statement.query([])?;
    let mut all: BTreeMap<DeviceId, Labels> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let own = all.entry(parsed(row, "device")?).or_default();
        own.insert(row.get("key")?, row.get("value")?);
    }
    Ok(all)
}

/// A device has these labels from now on, and no others.
pub(super) fn replace(
    transaction: &Transaction<'_>,
    device: &DeviceId,
    labels: &Labels,
) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM device_labels WHERE device = ?", [device.as_str()])?;
    let mut insert = transaction.prepare_cached("INSERT INTO device_labels VALUES (?, ?, ?)")?;
    for (key, value) in labels {
        insert.execute([device.as_str(), key, value])?;
    }
    Ok(())
}

fn in_words(set: &Labels, remove: &[String]) -> String {
    let set = set.iter().map(|(key, value)| format!("{key}={value}"));
    let removed = remove.iter().map(|key| format!("{key}-"));
    set.chain(removed).collect::<Vec<_>>().join(" ")
}
