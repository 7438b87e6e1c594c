//! Who may do what: five roles in one table, and what a key must be to be believed.

use protocol::id::{ModelName, TenantName};
use protocol::pattern::ModelPatterns;
use protocol::token::SecretDigest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The role of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees everything, changes nothing.
    Viewer,
    /// Assigns models and enrols devices.
    Operator,
    /// Pushes signed models.
    Signer,
    /// May do everything, also decide who signs.
    Admin,
    /// Asks models for answers, and nothing else.
    Client,
}

/// What can be done over HTTPS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Look at devices, models and assignments.
    View,
    /// Make enrolment tokens.
    Enrol,
    /// Assign a version to devices.
    Assign,
    /// Push blobs and signed manifests.
    Push,
    /// Add a key that devices will trust.
    TrustSigner,
    /// Ask models for answers.
    Infer,
    /// Load and unload models on the cloud, and say which versions answer.
    Load,
    /// Make and revoke keys and tenants.
    ManageKeys,
    /// Fetch what devices have recorded, as they have sealed it.
    ReadTelemetry,
}

impl Permission {
    /// Every one.
    pub const ALL: [Permission; 9] = [
        Permission::View,
        Permission::Enrol,
        Permission::Assign,
        Permission::Push,
        Permission::TrustSigner,
        Permission::Infer,
        Permission::Load,
        Permission::ManageKeys,
        Permission::ReadTelemetry,
    ];
}

impl Role {
    /// Every one, as people are told of them.
    pub const ALL: [Role; 5] =
        [Role::Client, Role::Viewer, Role::Operator, Role::Signer, Role::Admin];

    /// Whether the role includes the permission.
    pub fn allows(self, permission: Permission) -> bool {
        use Permission::{Assign, Enrol, Infer, Load, Push, ReadTelemetry, View};
        match self {
            Role::Viewer => permission == View,
            Role::Operator => {
                matches!(permission, View | Enrol | Assign | Infer | Load | ReadTelemetry)
            }
            Role::Signer => matches!(permission, View | Push),
            Role::Admin => true,
            Role::Client => permission == Infer,
        }
    }

    /// The role as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Signer => "signer",
            Role::Admin => "admin",
            Role::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Not one of the roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; the roles are client, viewer, operator, signer and admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Role::ALL
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// What is known of a key.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// The public half of the key.
    pub id: String,
    /// SHA-256 of the secret.
    pub digest: SecretDigest,
    /// What its holder may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// Whom it belongs to.
    pub tenant: TenantName,
    /// The models that it may ask.
    pub models: ModelPatterns,
    /// Unix seconds from which it is worthless; `None` for never.
    pub expires_at_s: Option<i64>,
}

/// Why a key is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No such key, a revoked one, or another secret: not to be told apart.
    #[error("this key is not known to this cloud")]
    Unknown,
    /// Its time is over; said only to who knows the secret.
    #[error("this key has expired")]
    Expired,
}

/// Decides whether the holder of a secret is who the key says. An unknown id costs the same
/// comparison as a wrong secret.
///
/// # Errors
/// [`Denied`].
pub fn decide(
    record: Option<&KeyRecord>,
    presented: &SecretDigest,
    now_s: i64,
) -> Result<(), Denied> {
    let nobody = SecretDigest([0; 32]);
    let is_holder = record.map_or(&nobody, |record| &record.digest).matches(presented);
    let record = record.filter(|_| is_holder).ok_or(Denied::Unknown)?;
    match record.expires_at_s {
        Some(end_s) if now_s >= end_s => Err(Denied::Expired),
        _ => Ok(()),
    }
}

/// The models that somebody may ask: what the key says, and what its tenant may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelScope {
    /// Of the key, or of the assignments of a device.
    pub own: ModelPatterns,
    /// Of the tenant.
    pub tenant: ModelPatterns,
}

impl ModelScope {
    /// Whether a model may be asked.
    pub fn includes(&self, model: &ModelName) -> bool {
        self.own.matches(model) && self.tenant.matches(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::token::Secret;

    #[test]
    fn only_the_holder_and_only_in_time() {
        let secret = Secret::from_entropy([1; 32]).digest();
        let wrong = Secret::from_entropy([2; 32]).digest();
        let zero = SecretDigest([0; 32]);
        let key = |expires_at_s| KeyRecord {
            id: "k".into(),
            digest: secret,
            role: Role::Client,
            name: "n".into(),
            tenant: TenantName::default(),
            models: ModelPatterns::all(),
            expires_at_s,
        };
        assert_eq!(decide(Some(&key(None)), &secret, i64::MAX), Ok(()));
        assert_eq!(decide(Some(&key(Some(10))), &secret, 9), Ok(()));
        assert_eq!(decide(Some(&key(Some(10))), &secret, 10), Err(Denied::Expired));
        assert_eq!(decide(Some(&key(Some(10))), &wrong, 10), Err(Denied::Unknown));
        assert_eq!(decide(None, &secret, 0), Err(Denied::Unknown));
        assert_eq!(decide(None, &zero, 0), Err(Denied::Unknown));
    }

    #[test]
    fn the_tenant_bounds_its_keys() {
        let patterns = |text: &str| text.parse().unwrap();
        let scope = ModelScope { own: patterns("a* b"), tenant: patterns("b c* ax") };
        let asked = |model: &&str| scope.includes(&model.parse().unwrap());
        let included: Vec<_> = ["a", "ax", "b", "c"].into_iter().filter(|m| asked(m)).collect();
        assert_eq!(included, ["ax", "b"]);
    }

    #[test]
    fn table() {
        let mut lines = Vec::new();
        for role in ["client", "viewer", "operator", "signer", "admin"] {
            let role: Role = role.parse().unwrap();
            let allowed: Vec<_> = Permission::ALL.into_iter().filter(|p| role.allows(*p)).collect();
            lines.push(format!("{role:8} {allowed:?}"));
        }
        insta::assert_snapshot!(lines.join("\n"));
        assert!("root".parse::<Role>().is_err());
    }
}
