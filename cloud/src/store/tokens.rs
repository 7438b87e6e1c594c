//! Enrolment tokens, and the one transaction in which a token becomes a device.

use fleet::enrol::{self, Grant, TokenRecord};
use protocol::id::{ContentHash, DeviceId, TenantName};
use protocol::problem::{Problem, ProblemCode};
use protocol::token::SecretDigest;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::audit::{By, append};
use super::keys::bytes32;
use super::{Store, StoreError, parse_text, parsed};

/// A token that is about to be handed out.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Finds the record.
    pub id: String,
    /// SHA-256 of the secret.
    pub digest: SecretDigest,
    /// What the device will be called.
    pub label: String,
    /// Whom the device will belong to.
    pub tenant: TenantName,
    /// Unix seconds after which it is worthless.
    pub expires_at_s: i64,
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
        let sql = "INSERT INTO enrolment_tokens (id, digest, label, tenant, created_at_s,
                                                 expires_at_s) VALUES (?, ?, ?, ?, ?, ?)";
        self.change(|transaction| {
            let digest = token.digest.0.as_slice();
            let tenant = token.tenant.as_str();
            let values =
                params![token.id, digest, token.label, tenant, by.now_s, token.expires_at_s];
            transaction.execute(sql, values)?;
            let detail = format!("{:?} for {} s", token.label, token.expires_at_s - by.now_s);
            Ok(append(transaction, by, "token.create", &token.id, &detail)?)
        })
    }

    /// Decides about an applicant and carries the decision out, in one transaction: of two
    /// devices that race for one token, one wins.
    ///
    /// # Errors
    /// [`EnrolError::Refused`] with what the device is told.
    pub fn enrol(&self, applicant: &Applicant) -> Result<DeviceId, EnrolError> {
        self.change(|transaction| {
            let found = find_token(transaction, &applicant.token_id)?;
            let record = found.as_ref().map(|(record, _)| record);
            let grant = enrol::decide(record, &applicant.presented, applicant.key, applicant.now_s);
            let grant = grant.map_err(EnrolError::Refused)?;
            let belongs = found.map(|(_, belongs)| belongs).unwrap_or_default();
            carry_out(transaction, applicant, grant, &belongs)
        })
    }
}

/// What a token says of its device: its label, and the tenant.
type Belongs = (String, TenantName);

fn find_token(
    transaction: &Transaction<'_>,
    id: &str,
) -> rusqlite::Result<Option<(TokenRecord, Belongs)>> {
    let sql = "SELECT digest, label, tenant, expires_at_s, used_by_key FROM enrolment_tokens
               WHERE id = ?";
    let found = transaction.query_row(sql, [id], |row| {
        Ok((token_record(row)?, (row.get("label")?, parsed(row, "tenant")?)))
    });
    found.optional()
}

/// What decides about the holder of a token, whatever it lets in.
pub(super) fn token_record(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    let used_by: Option<String> = row.get("used_by_key")?;
    Ok(TokenRecord {
        secret: SecretDigest(bytes32(row, "digest")?),
        expires_at_s: row.get("expires_at_s")?,
        used_by: used_by.map(|text| parse_text(&text)).transpose()?,
    })
}

fn carry_out(
    transaction: &Transaction<'_>,
    applicant: &Applicant,
    grant: Grant,
    belongs: &Belongs,
) -> Result<DeviceId, EnrolError> {
    if grant == Grant::NewDevice {
        let sql = "UPDATE enrolment_tokens SET used_by_key = ? WHERE id = ?";
        transaction.execute(sql, params![applicant.key.to_string(), applicant.token_id])?;
    }
    match find_device(transaction, applicant.key)? {
        Some((_, true)) => {
            let text = "this device was denied by the operator";
            Err(EnrolError::Refused(Problem::new(ProblemCode::Unauthorised, text)))
        }
        Some((device, false)) => Ok(device),
        None => insert_device(transaction, applicant, belongs),
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
    (label, tenant): &Belongs,
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
