//! Releases of the agent: the builds that were pushed, and which version devices should run. A device that no
//! assignment names runs what its owner installed.

use protocol::id::{ContentHash, DeviceId};
use protocol::limits::RELEASE_TARGETS_MAX;
use protocol::release::{Release, ReleaseVersion, SignedRelease};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::assignments::bump_revision;
use super::audit::{By, append};
use super::models::Pushed;
use super::{Store, StoreError, conversion_failure, parse_text, parsed, to_sql, unsigned};

/// A build that the cloud holds.
#[derive(Debug, Clone)]
pub struct ReleaseRecord {
    /// The release with its signature.
    pub signed: SignedRelease,
    /// Its version.
    pub version: ReleaseVersion,
    /// What it was built for.
    pub target: String,
    /// Bytes of the program.
    pub size_bytes: u64,
    /// Unix seconds.
    pub pushed_at_s: i64,
}

/// A version for one device, or for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseAssignment {
    /// The device, or `None` for the whole fleet.
    pub device: Option<DeviceId>,
    /// The version.
    pub version: ReleaseVersion,
}

/// Why a release was not taken in, or not assigned.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A version is one program for each kind of machine.
    #[error("there is another build of {version} for {target}")]
    OtherBuild {
        /// The version.
        version: ReleaseVersion,
        /// What it was built for.
        target: String,
    },
    /// Too many kinds of machines.
    #[error("there are {RELEASE_TARGETS_MAX} builds of {0} already")]
    TooMany(ReleaseVersion),
    /// There is no such version.
    #[error("there is no release {0} of the agent")]
    Absent(ReleaseVersion),
    /// No such device.
    #[error("there is no device {0}")]
    NoDevice(DeviceId),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for ReleaseError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl ReleaseRecord {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let signed: Vec<u8> = row.get("signed")?;
        Ok(Self {
            signed: SignedRelease::from_json(&signed)
                .map_err(|e| conversion_failure(Type::Blob, e))?,
            version: parsed(row, "version")?,
            target: row.get("target")?,
            size_bytes: unsigned(row, "size_bytes")?,
            pushed_at_s: row.get("pushed_at_s")?,
        })
    }
}

impl Store {
    /// Takes a release in whose signature and file were checked.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn push_release(
        &self,
        by: &By,
        signed: &SignedRelease,
        release: &Release,
    ) -> Result<Pushed, ReleaseError> {
        let Release { version, target, program, .. } = release;
        self.change(|transaction| {
            let sql = "SELECT id, target FROM releases WHERE version = ?";
            let mut statement = transaction.prepare_cached(sql)?;
            let row = |row: &Row<'_>| Ok((parsed(row, "id")?, row.get("target")?));
            let builds = statement.query_map([version.to_string()], row)?;
            let builds: Vec<(ContentHash, String)> = builds.collect::<Result<_, _>>()?;
            if let Some((id, target)) = builds.iter().find(|(_, own)| own == target) {
                let (version, target) = (*version, target.clone());
                return match *id == signed.id() {
                    true => Ok(Pushed::Unchanged),
                    false => Err(ReleaseError::OtherBuild { version, target }),
                };
            }
            if builds.len() >= RELEASE_TARGETS_MAX {
                return Err(ReleaseError::TooMany(*version));
            }
            let values = params![
                signed.id().to_string(),
                version.to_string(),
                target,
                signed.to_json(),
                program.sha256.to_string(),
                to_sql(program.size_bytes),
                by.now_s
            ];
            transaction.execute("INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?, ?)", values)?;
            bump_revision(transaction)?;
            let subject = format!("{version} {target}");
            append(transaction, by, "agent.push", &subject, &program.sha256.to_string())?;
            Ok(Pushed::Added)
        })
    }

    /// Every build, the newest version first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn releases(&self) -> Result<Vec<ReleaseRecord>, StoreError> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT * FROM releases ORDER BY target")?;
            let rows = statement.query_map([], ReleaseRecord::from_row)?;
            let mut records: Vec<ReleaseRecord> = rows.collect::<Result<_, _>>()?;
            records.sort_by_key(|record| std::cmp::Reverse(record.version));
            Ok(records)
        })
    }

    /// Says which version one device, or every device, should run; none where that is left to its owner.
    ///
    /// # Errors
    /// [`ReleaseError`].
    pub fn assign_release(
        &self,
        by: &By,
        device: Option<&DeviceId>,
        version: Option<ReleaseVersion>,
    ) -> Result<(), ReleaseError> {
        self.change(|transaction| {
            check(transaction, device, version)?;
            let whom = device.map_or("", DeviceId::as_str);
            match version {
                Some(version) => transaction.execute(
                    "INSERT OR REPLACE INTO release_assignments VALUES (?, ?, ?)",
                    params![whom, version.to_string(), by.now_s],
                )?,
                None => transaction
                    .execute("DELETE FROM release_assignments WHERE device = ?", [whom])?,
            };
            bump_revision(transaction)?;
            let subject = if whom.is_empty() { "all devices" } else { whom };
            let detail = version.map_or("none".to_owned(), |version| version.to_string());
            Ok(append(transaction, by, "agent.assign", subject, &detail)?)
        })
    }

    /// Every assignment, that of all devices first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn release_assignments(&self) -> Result<Vec<ReleaseAssignment>, StoreError> {
        self.read(|connection| {
            let sql = "SELECT device, version FROM release_assignments ORDER BY device";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                let device: String = row.get("device")?;
                let device = (!device.is_empty()).then(|| parse_text(&device)).transpose()?;
                Ok(ReleaseAssignment { device, version: parsed(row, "version")? })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn check(
    transaction: &Transaction<'_>,
    device: Option<&DeviceId>,
    version: Option<ReleaseVersion>,
) -> Result<(), ReleaseError> {
    let exists = |sql: &str, key: &str| -> rusqlite::Result<bool> {
        transaction.query_row(sql, [key], |row| row.get(0))
    };
    if let Some(version) = version {
        let sql = "SELECT EXISTS (SELECT 1 FROM releases WHERE version = ?)";
        if !exists(sql, &version.to_string())? {
            return Err(ReleaseError::Absent(version));
        }
    }
    if let Some(device) = device
        && !exists("SELECT EXISTS (SELECT 1 FROM devices WHERE id = ?)", device.as_str())?
    {
        return Err(ReleaseError::NoDevice(device.clone()));
    }
    Ok(())
}

/// The version that a device should run, if one is assigned: the row that names it, else the fleet's.
const ASSIGNED: &str = "SELECT version FROM release_assignments WHERE device IN ('', ?1)
                        ORDER BY device DESC LIMIT 1";

/// The builds of the version that a device should run, as they are sent.
pub(super) fn wanted(
    connection: &Connection,
    device: &DeviceId,
) -> rusqlite::Result<Vec<bytes::Bytes>> {
    let sql = format!("SELECT signed FROM releases WHERE version = ({ASSIGNED}) ORDER BY target");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows =
        statement.query_map([device.as_str()], |row| super::bytes_or_empty(row, "signed"))?;
    rows.collect()
}

/// The size of a program that a device may read: one of the version that it should run.
pub(super) fn file_size(
    connection: &Connection,
    device: &DeviceId,
    blob: ContentHash,
) -> rusqlite::Result<Option<u64>> {
    let sql = format!(
        "SELECT size_bytes FROM releases WHERE version = ({ASSIGNED}) AND sha256 = ?2 LIMIT 1"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let key = params![device.as_str(), blob.to_string()];
    statement.query_row(key, |row| unsigned(row, "size_bytes")).optional()
}
