//! Enrolment tokens, and the one transaction in which a token becomes a device.

use fleet::enrol::{self, Grant, TokenRecord};
use fleet::rollout::query::Labels;
use protocol::id::{ContentHash, DeviceId, TenantName};
use protocol::problem::{Problem, ProblemCode};
use protocol::token::SecretDigest;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::audit::{By, append};
use super::keys::bytes32;
use super::{Store, StoreError, conversion_failure, parsed};

/// A token that is about to be handed out.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Finds the record.
    pub id: String,
    /// SHA-256 of the secret.
    pub digest: SecretDigest,
    /// What the devices will be called ([`enrol::label`]).
    pub label: String,
    /// How many there may be.
    pub uses_max: u32,
    /// Whom the device will belong to.
    pub tenant: TenantName,
    /// What the devices can be asked for by.
    pub labels: Labels,
    /// Unix seconds after which it is worthless.
    pub expires_at_s: i64,
}

/// A token as it stands.
#[derive(Debug, Clone)]
pub struct StoredToken {
    /// Its id.
    pub id: String,
    /// What its devices are called.
    pub label: String,
    /// Whom they belong to.
    pub tenant: TenantName,
    /// What they can be asked for by.
    pub labels: Labels,
    /// Unix seconds.
    pub created_at_s: i64,
    /// Unix seconds after which it is worthless.
    pub expires_at_s: i64,
    /// Unix seconds; `None` unless revoked.
    pub revoked_at_s: Option<i64>,
    /// How many devices it is good for, and how many it has let in.
    pub uses_max: u32,
    /// See `uses_max`.
    pub uses: u32,
}

/// A device that asks to enrol, with its signing request already verified.
#[derive(Debug, Clone)]
pub struct Applicant {
    /// The token's id.
    pub token_id: String,
    /// SHA-256 of the presented secret.
    pub presented: SecretDigest,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub key: ContentHash,
    /// What the device calls itself.
    pub hostname: String,
    /// Its agent's version.
    pub agent_version: String,
    /// The id it gets if it is new.
    pub fresh_id: DeviceId,
    /// Unix seconds.
    pub now_s: i64,
}

/// Why a device was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The token does not buy it.
    #[error("{0}")]
    Refused(Problem),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for EnrolError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

impl Store {
    /// Keeps a fresh token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_token(&self, by: &By, token: &NewToken) -> Result<(), StoreError> {
        let sql = "INSERT INTO enrolment_tokens (id, digest, label, tenant, uses_max, created_at_s,
                                                 expires_at_s, labels)
                   VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        self.change(|transaction| {
            let digest = token.digest.0.as_slice();
            let NewToken { id, label, tenant, uses_max, expires_at_s, .. } = token;
            let tenant = tenant.as_str();
            let labels = labels_json(&token.labels);
            let values =
                params![id, digest, label, tenant, uses_max, by.now_s, expires_at_s, labels];
            transaction.execute(sql, values)?;
            let life_s = expires_at_s - by.now_s;
            let detail = format!("{label:?} for {uses_max} devices, for {life_s} s");
            Ok(append(transaction, by, "token.create", id, &detail)?)
        })
    }

    /// Every token that was ever made, the newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        let sql = "SELECT *, (SELECT count(*) FROM token_uses WHERE token = id) AS uses
                   FROM enrolment_tokens ORDER BY created_at_s DESC, id";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], StoredToken::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Takes a token back; false for one that is unknown or was taken back before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn revoke_token(&self, by: &By, id: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE enrolment_tokens SET revoked_at_s = ?
                   WHERE id = ? AND revoked_at_s IS NULL";
        self.change(|transaction| {
            let known = transaction.execute(sql, params![by.now_s, id])? == 1;
            if known {
                append(transaction, by, "token.revoke", id, "")?;
            }
            Ok(known)
        })
    }

    /// Decides about an applicant and carries the decision out, in one transaction: of devices that race
    /// for a token, as many win as it is good for.
    ///
    /// # Errors
    /// [`EnrolError::Refused`] with what the device is told.
    pub fn enrol(&self, applicant: &Applicant) -> Result<DeviceId, EnrolError> {
        self.change(|transaction| {
            let found = find_token(transaction, applicant)?;
            let record = found.as_ref().map(|(record, _)| record);
            let grant = enrol::decide(record, &applicant.presented, applicant.now_s);
            let grant = grant.map_err(EnrolError::Refused)?;
            let belongs = found.map(|(_, belongs)| belongs).unwrap_or_default();
            carry_out(transaction, applicant, grant, belongs)
        })
    }
}

impl StoredToken {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            label: row.get("label")?,
            tenant: parsed(row, "tenant")?,
            labels: labels(row)?,
            created_at_s: row.get("created_at_s")?,
            expires_at_s: row.get("expires_at_s")?,
            revoked_at_s: row.get("revoked_at_s")?,
            uses_max: row.get("uses_max")?,
            uses: row.get("uses")?,
        })
    }
}

/// What a token says of its device: its name, the tenant, and its labels.
type Belongs = (String, TenantName, Labels);

fn labels_json(labels: &Labels) -> String {
    serde_json::to_string(labels).unwrap_or_else(|_| "{}".to_owned()) // texts always are JSON
}

fn labels(row: &Row<'_>) -> rusqlite::Result<Labels> {
    let text: String = row.get("labels")?;
    serde_json::from_str(&text).map_err(|e| conversion_failure(Type::Text, e))
}

fn find_token(
    transaction: &Transaction<'_>,
    applicant: &Applicant,
) -> rusqlite::Result<Option<(TokenRecord, Belongs)>> {
    let sql = "SELECT digest, label, tenant, labels, expires_at_s, revoked_at_s, uses_max,
                   (SELECT count(*) FROM token_uses WHERE token = id) AS uses,
                   EXISTS (SELECT 1 FROM token_uses WHERE token = id AND key_hash = ?2) AS knows_key
               FROM enrolment_tokens WHERE id = ?1";
    let found =
        transaction.query_row(sql, params![applicant.token_id, applicant.key.to_string()], |row| {
            let record = TokenRecord {
                secret: SecretDigest(bytes32(row, "digest")?),
                expires_at_s: row.get("expires_at_s")?,
                is_revoked: row.get::<_, Option<i64>>("revoked_at_s")?.is_some(),
                uses_max: row.get("uses_max")?,
                uses: row.get("uses")?,
                knows_key: row.get("knows_key")?,
            };
            Ok((record, (row.get("label")?, parsed(row, "tenant")?, labels(row)?)))
        });
    found.optional()
}

fn carry_out(
    transaction: &Transaction<'_>,
    applicant: &Applicant,
    grant: Grant,
    (mut label, tenant, labels): Belongs,
) -> Result<DeviceId, EnrolError> {
    if let Grant::NewDevice { number } = grant {
        let sql = "INSERT INTO token_uses VALUES (?, ?, ?, ?)";
        let key = applicant.key.to_string();
        transaction.execute(sql, params![applicant.token_id, key, number, applicant.now_s])?;
        label = enrol::label(&label, number);
    }
    match find_device(transaction, applicant.key)? {
        Some((_, true)) => {
            let text = "this device was denied by the operator";
            Err(EnrolError::Refused(Problem::new(ProblemCode::Unauthorised, text)))
        }
        Some((device, false)) => Ok(device),
        None => {
            let device = insert_device(transaction, applicant, &label, &tenant)?;
            super::labels::replace(transaction, &device, &labels)?;
            Ok(device)
        }
    }
}

/// The device with this key, and whether it is denied.
fn find_device(
    transaction: &Transaction<'_>,
    key: ContentHash,
) -> rusqlite::Result<Option<(DeviceId, bool)>> {
    let sql = "SELECT id, denied FROM devices WHERE key_hash = ?";
    let found = transaction
        .query_row(sql, [key.to_string()], |row| Ok((parsed(row, "id")?, row.get("denied")?)));
    found.optional()
}

fn insert_device(
    transaction: &Transaction<'_>,
    applicant: &Applicant,
    label: &str,
    tenant: &TenantName,
) -> Result<DeviceId, EnrolError> {
    let sql = "INSERT INTO devices (id, key_hash, label, tenant, hostname, agent_version,
                                    enrolled_at_s) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let device = applicant.fresh_id.clone();
    let key = applicant.key.to_string();
    transaction.execute(
        sql,
        params![
            device.as_str(),
            key,
            label,
            tenant.as_str(),
            applicant.hostname,
            applicant.agent_version,
            applicant.now_s
        ],
    )?;
    let by = By { actor: format!("token {}", applicant.token_id), now_s: applicant.now_s };
    append(transaction, &by, "device.enrol", device.as_str(), &applicant.hostname)?;
    Ok(device)
}
