//! Pushed bundles: their signed manifests and the blobs that belong to them.

use protocol::id::{ContentHash, ModelName, Variant, Version};
use protocol::manifest::{Manifest, SignedManifest};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use std::collections::BTreeSet;

use super::assignments::bump_revision;
use super::audit::{By, append};
use super::{Store, StoreError, conversion_failure, parsed, to_sql, unsigned, version};

/// A bundle that the cloud holds.
#[derive(Debug, Clone)]
pub struct BundleRecord {
    /// Its name: the hash of its manifest.
    pub bundle: ContentHash,
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// For devices or for the cloud.
    pub variant: Variant,
    /// The manifest with its signature.
    pub signed: SignedManifest,
    /// Bytes of all its files.
    pub size_bytes: u64,
    /// Unix seconds.
    pub pushed_at_s: i64,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The bundle is new.
    Added,
    /// The very same bundle was there.
    Unchanged,
}

/// Why a bundle was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Versions only grow.
    #[error("version {pushed} of {model} ({variant}) is not newer than version {newest}")]
    NotNewer {
        /// The model.
        model: ModelName,
        /// The variant.
        variant: Variant,
        /// The version that was pushed.
        pushed: Version,
        /// The newest that is there.
        newest: Version,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for PushError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

const SELECT: &str =
    "SELECT bundle, model, version, variant, signed_manifest, size_bytes, pushed_at_s FROM bundles";

impl BundleRecord {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let signed: Vec<u8> = row.get("signed_manifest")?;
        Ok(Self {
            bundle: parsed(row, "bundle")?,
            model: parsed(row, "model")?,
            version: version(row, "version")?,
            variant: parsed(row, "variant")?,
            signed: SignedManifest::from_json(&signed)
                .map_err(|e| conversion_failure(Type::Blob, e))?,
            size_bytes: unsigned(row, "size_bytes")?,
            pushed_at_s: row.get("pushed_at_s")?,
        })
    }
}

impl Store {
    /// Takes a bundle in whose signature, files and model were checked.
    ///
    /// # Errors
    /// [`PushError::NotNewer`] unless the very same bundle is there.
    pub fn push_bundle(
        &self,
        by: &By,
        signed: &SignedManifest,
        manifest: &Manifest,
    ) -> Result<Pushed, PushError> {
        self.change(|transaction| {
            if has_bundle(transaction, signed.bundle())? {
                return Ok(Pushed::Unchanged);
            }
            check_newer(transaction, manifest)?;
            insert_bundle(transaction, by, signed, manifest)?;
            bump_revision(transaction)?;
            let subject = format!("{}@{} {}", manifest.model, manifest.version, manifest.variant);
            append(transaction, by, "model.push", &subject, &signed.bundle().to_string())?;
            Ok(Pushed::Added)
        })
    }

    /// Whether a push of this manifest would be taken: the check before the costly ones.
    ///
    /// # Errors
    /// As [`Store::push_bundle`].
    pub fn check_push(
        &self,
        bundle: ContentHash,
        manifest: &Manifest,
    ) -> Result<Pushed, PushError> {
        self.change(|transaction| {
            if has_bundle(transaction, bundle)? {
                return Ok(Pushed::Unchanged);
            }
            check_newer(transaction, manifest)?;
            Ok(Pushed::Added)
        })
    }

    /// Every bundle, by model, version and variant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bundles(&self) -> Result<Vec<BundleRecord>, StoreError> {
        self.read(|connection| {
            let sql = format!("{SELECT} ORDER BY model, version, variant DESC");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([], BundleRecord::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The size of a file of a cloud variant, which inference nodes may read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn cloud_blob(&self, blob: ContentHash) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT f.size_bytes FROM bundle_files f JOIN bundles b USING (bundle)
                   WHERE b.variant = 'cloud' AND f.sha256 = ? LIMIT 1";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let size = statement.query_row([blob.to_string()], |row| unsigned(row, "size_bytes"));
            Ok(size.optional()?)
        })
    }

    /// Every file that a bundle, an order of a lab or a release of the agent names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn named_blobs(&self) -> Result<BTreeSet<ContentHash>, StoreError> {
        let sql = "SELECT sha256 FROM bundle_files UNION SELECT sha256 FROM measured_files
                   UNION SELECT sha256 FROM releases";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let files = statement.query_map([], |row| parsed(row, "sha256"))?;
            Ok(files.collect::<Result<_, _>>()?)
        })
    }

    /// Whether two files belong to the same variant of the same model, or are the agent for the same kind of machine,
    /// in whatever versions: then whoever may read the one may learn of the other.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn are_of_one_model(
        &self,
        file: ContentHash,
        other: ContentHash,
    ) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (
                     SELECT 1 FROM bundle_files f JOIN bundles b ON b.bundle = f.bundle
                     JOIN bundles c ON c.model = b.model AND c.variant = b.variant
                     JOIN bundle_files g ON g.bundle = c.bundle
                     WHERE f.sha256 = ?1 AND g.sha256 = ?2
                     UNION ALL
                     SELECT 1 FROM releases r JOIN releases s ON s.target = r.target
                     WHERE r.sha256 = ?1 AND s.sha256 = ?2)";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let files = [file.to_string(), other.to_string()];
            Ok(statement.query_row(files, |row| row.get(0))?)
        })
    }

    /// The signed manifest of a bundle.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn signed_manifest(
        &self,
        bundle: ContentHash,
    ) -> Result<Option<SignedManifest>, StoreError> {
        self.read(|connection| {
            let sql = format!("{SELECT} WHERE bundle = ?");
            let mut statement = connection.prepare_cached(&sql)?;
            let found = statement.query_row([bundle.to_string()], BundleRecord::from_row);
            Ok(found.optional()?.map(|record| record.signed))
        })
    }

    /// The bundle of one variant of one version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bundle(
        &self,
        model: &ModelName,
        version: Version,
        variant: Variant,
    ) -> Result<Option<BundleRecord>, StoreError> {
        self.read(|connection| Ok(find(connection, model, version, variant)?))
    }
}

/// The bundle of one variant of one version.
pub(super) fn find(
    connection: &Connection,
    model: &ModelName,
    version: Version,
    variant: Variant,
) -> rusqlite::Result<Option<BundleRecord>> {
    let sql = format!("{SELECT} WHERE model = ? AND version = ? AND variant = ?");
    let mut statement = connection.prepare_cached(&sql)?;
    let values = params![model.as_str(), to_sql(version.get()), variant.as_str()];
    statement.query_row(values, BundleRecord::from_row).optional()
}

fn has_bundle(transaction: &Transaction<'_>, bundle: ContentHash) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM bundles WHERE bundle = ?)";
    transaction.query_row(sql, [bundle.to_string()], |row| row.get(0))
}

fn check_newer(transaction: &Transaction<'_>, manifest: &Manifest) -> Result<(), PushError> {
    let sql = "SELECT version FROM bundles WHERE model = ? AND variant = ?
               ORDER BY version DESC LIMIT 1";
    let values = params![manifest.model.as_str(), manifest.variant.as_str()];
    let newest = transaction.query_row(sql, values, |row| version(row, "version")).optional()?;
    match newest {
        Some(newest) if manifest.version <= newest => Err(PushError::NotNewer {
            model: manifest.model.clone(),
            variant: manifest.variant,
            pushed: manifest.version,
            newest,
        }),
        _ => Ok(()),
    }
}

/// Keeps a copy of the control node's bundle, once.
pub(super) fn insert_copy(
    transaction: &Transaction<'_>,
    signed: &SignedManifest,
    manifest: &Manifest,
    now_s: i64,
) -> rusqlite::Result<()> {
    if has_bundle(transaction, signed.bundle())? {
        return Ok(());
    }
    let by = By { actor: "control node".into(), now_s };
    insert_bundle(transaction, &by, signed, manifest)
}

fn insert_bundle(
    transaction: &Transaction<'_>,
    by: &By,
    signed: &SignedManifest,
    manifest: &Manifest,
) -> rusqlite::Result<()> {
    let bundle = signed.bundle().to_string();
    let sql = "INSERT INTO bundles (bundle, model, version, variant, signed_manifest, signer,
                                    size_bytes, pushed_at_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let values = params![
        bundle,
        manifest.model.as_str(),
        to_sql(manifest.version.get()),
        manifest.variant.as_str(),
        signed.to_json(),
        signed.key_id.to_string(),
        to_sql(manifest.size_bytes()),
        by.now_s
    ];
    transaction.execute(sql, values)?;
    let sql = "INSERT INTO bundle_files (bundle, name, sha256, size_bytes) VALUES (?, ?, ?, ?)";
    let mut statement = transaction.prepare_cached(sql)?;
    for (name, file) in &manifest.files {
        let (hash, size) = (file.sha256.to_string(), to_sql(file.size_bytes));
        statement.execute(params![bundle, name, hash, size])?;
    }
    Ok(())
}
