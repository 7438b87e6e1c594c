//! Who should run what, and what follows from it for one device.

use fleet::desired::{Assignment, desired_for};
use protocol::id::{ContentHash, DeviceId, ModelName, Variant, Version};
use protocol::manifest::{Manifest, SignedManifest};
use protocol::wire;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::{BTreeMap, BTreeSet};

use super::audit::{By, append};
use super::models::find;
use super::{Store, StoreError, parse_text, parsed, to_sql, unsigned, version};

/// Why a version was not assigned.
#[derive(Debug, thiserror::Error)]
pub enum AssignError {
    /// There is no edge variant to install.
    #[error("there is no edge variant of {model}@{version}")]
    NoEdgeVariant {
        /// The model.
        model: ModelName,
        /// The version.
        version: Version,
    },
    /// No such device.
    #[error("there is no device {0}")]
    NoDevice(DeviceId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for AssignError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a device should run, as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The message for the device.
    pub state: wire::DesiredState,
    /// The edge bundles in it.
    pub bundles: Vec<ContentHash>,
}

impl Store {
    /// Assigns a version to one device, or to the whole fleet.
    ///
    /// # Errors
    /// [`AssignError`].
    pub fn assign(&self, by: &By, assignment: &Assignment) -> Result<(), AssignError> {
        self.change(|transaction| {
            check(transaction, assignment)?;
            let device = assignment.device.as_ref().map_or("", DeviceId::as_str);
            let sql = "INSERT INTO assignments (model, device, version, assigned_at_s)
                       VALUES (?, ?, ?, ?)
                       ON CONFLICT (model, device) DO UPDATE
                       SET version = excluded.version, assigned_at_s = excluded.assigned_at_s";
            let number = to_sql(assignment.version.get());
            let values = params![assignment.model.as_str(), device, number, by.now_s];
            transaction.execute(sql, values)?;
            bump_revision(transaction)?;
            let subject = if device.is_empty() { "all devices" } else { device };
            let detail = format!("{}@{}", assignment.model, assignment.version);
            Ok(append(transaction, by, "model.assign", subject, &detail)?)
        })
    }

    /// Every assignment.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn assignments(&self) -> Result<Vec<Assignment>, StoreError> {
        self.read(|connection| Ok(all(connection)?))
    }

    /// The models that a device should run, of whatever version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn wanted_models(&self, device: &DeviceId) -> Result<BTreeSet<ModelName>, StoreError> {
        self.read(|connection| Ok(wanted(connection, device)?.into_keys().collect()))
    }

    /// The number of the newest desired state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revision(&self) -> Result<u64, StoreError> {
        self.read(|connection| Ok(revision(connection)?))
    }

    /// What a device should run.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn desired(&self, device: &DeviceId) -> Result<Desired, StoreError> {
        self.read(|connection| {
            let mut desired = Desired {
                state: wire::DesiredState {
                    revision: revision(connection)?,
                    nodes: super::nodes::endpoints(connection)?,
                    measurements: super::measurements::waiting(connection, device)?,
                    analytics_key: super::analytics::newest(connection)?.unwrap_or_default().into(),
                    takes_telemetry: true,
                    releases: super::releases::wanted(connection, device)?,
                    ..Default::default()
                },
                bundles: vec![],
            };
            for (model, version) in wanted(connection, device)? {
                let edge = find(connection, &model, version, Variant::Edge)?;
                let cloud = find(connection, &model, version, Variant::Cloud)?;
                let Some(edge) = edge else { continue };
                desired.bundles.push(edge.bundle);
                desired.state.models.push(wire::DesiredModel {
                    name: model.to_string(),
                    version: version.get(),
                    signed_manifest: edge.signed.to_json().into(),
                    cloud_variant: cloud.is_some(),
                    transports: cloud.map(|cloud| transports(&cloud.signed)).unwrap_or_default(),
                });
            }
            Ok(desired)
        })
    }

    /// The size of a blob that a device may read: one of a bundle or a release that it should run, or of an
    /// order to time models.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn readable_blob(
        &self,
        device: &DeviceId,
        blob: ContentHash,
    ) -> Result<Option<u64>, StoreError> {
        let desired = self.desired(device)?;
        let sql = "SELECT size_bytes FROM bundle_files WHERE bundle = ? AND sha256 = ?";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            for bundle in &desired.bundles {
                let key = params![bundle.to_string(), blob.to_string()];
                let size =
                    statement.query_row(key, |row| unsigned(row, "size_bytes")).optional()?;
                if size.is_some() {
                    return Ok(size);
                }
            }
            let of_release = super::releases::file_size(connection, device, blob)?;
            match of_release {
                Some(size) => Ok(Some(size)),
                None => Ok(super::measurements::file_size(connection, device, blob)?),
            }
        })
    }
}

/// What may be sent packed to a cloud variant, whose manifest was verified when it was pushed.
fn transports(signed: &SignedManifest) -> Vec<wire::InputTransport> {
    let manifest = Manifest::from_json(signed.manifest.as_bytes()).ok();
    let thrift = manifest.and_then(|manifest| manifest.thrift);
    thrift.map(|thrift| wire::input_transports(&thrift.inputs)).unwrap_or_default()
}

fn check(transaction: &Transaction<'_>, assignment: &Assignment) -> Result<(), AssignError> {
    let (model, version) = (&assignment.model, assignment.version);
    if find(transaction, model, version, Variant::Edge)?.is_none() {
        return Err(AssignError::NoEdgeVariant { model: model.clone(), version });
    }
    if let Some(device) = &assignment.device {
        let sql = "SELECT EXISTS (SELECT 1 FROM devices WHERE id = ?)";
        let exists: bool = transaction.query_row(sql, [device.as_str()], |row| row.get(0))?;
        if !exists {
            return Err(AssignError::NoDevice(device.clone()));
        }
    }
    Ok(())
}

fn all(connection: &Connection) -> rusqlite::Result<Vec<Assignment>> {
    let sql = "SELECT device, model, version FROM assignments ORDER BY model, device";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([], assignment)?;
    rows.collect()
}

fn assignment(row: &Row<'_>) -> rusqlite::Result<Assignment> {
    let device: String = row.get("device")?;
    let device = (!device.is_empty()).then(|| parse_text(&device)).transpose()?;
    Ok(Assignment { device, model: parsed(row, "model")?, version: version(row, "version")? })
}

/// What one device should run: what is assigned, and above that what roll-outs have told it.
fn wanted(
    connection: &Connection,
    device: &DeviceId,
) -> rusqlite::Result<BTreeMap<ModelName, Version>> {
    let sql = "SELECT device, model, version FROM assignments WHERE device IN ('', ?)";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([device.as_str()], assignment)?;
    let mut wanted = desired_for(device, &rows.collect::<Result<Vec<_>, _>>()?);
    wanted.extend(super::rollouts::told(connection, device)?);
    Ok(wanted)
}

fn revision(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT number FROM desired_revision";
    connection.query_row(sql, [], |row| unsigned(row, "number"))
}

pub(super) fn bump_revision(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute("UPDATE desired_revision SET number = number + 1", [])?;
    Ok(())
}
