//! Who may do what: five roles in one table, and what a key must be to be believed.

use protocol::id::{ModelName, TenantName};
use protocol::pattern::ModelPatterns;
use protocol::token::SecretDigest;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

use crate::sign_in::provider::Issuer;

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

/// A person, as a provider knows them: the same one, however often they sign in and whatever they are called.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Person {
    issuer: String,
    subject: String,
}

/// No person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a person is an issuer and a subject, with a space between")]
pub struct InvalidPerson;

impl Person {
    /// Whom this issuer calls by this subject. A URL has no space in it.
    pub fn new(issuer: &Issuer, subject: &str) -> Self {
        Self { issuer: issuer.as_str().to_owned(), subject: subject.to_owned() }
    }

    /// Who knows them.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// What they are called there, for ever.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.issuer, self.subject)
    }
}

impl FromStr for Person {
    type Err = InvalidPerson;
    fn from_str(text: &str) -> Result<Self, InvalidPerson> {
        let (issuer, subject) = text.split_once(' ').ok_or(InvalidPerson)?;
        match issuer.is_empty() || subject.is_empty() {
            true => Err(InvalidPerson),
            false => Ok(Self { issuer: issuer.to_owned(), subject: subject.to_owned() }),
        }
    }
}

impl TryFrom<String> for Person {
    type Error = InvalidPerson;
    fn try_from(text: String) -> Result<Self, InvalidPerson> {
        text.parse()
    }
}

impl From<Person> for String {
    fn from(person: Person) -> Self {
        person.to_string()
    }
}

/// Who acts, where it matters whether two are the same. A key that nobody signed in for is somebody of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Actor {
    /// The holder of a key, as the audit log names it.
    Key(String),
    /// Somebody who signed in.
    Person {
        /// The same for the key of one sign-in.
        key: String,
        /// Who it is.
        person: Person,
    },
}

impl Actor {
    /// As the audit log names them.
    pub fn name(&self) -> &str {
        match self {
            Self::Key(key) | Self::Person { key, .. } => key,
        }
    }

    /// Whether both are one: the same person, or the same key.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Person { person, .. }, Self::Person { person: other, .. }) => person == other,
            _ => self.name() == other.name(),
        }
    }
}

impl From<&str> for Actor {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
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
    /// Who signed in for it; `None` where an admin made it.
    pub person: Option<Person>,
}

impl KeyRecord {
    /// The key as the audit log names it.
    pub fn title(&self) -> String {
        format!("{} ({})", self.name, self.id)
    }

    /// Who acts by it.
    pub fn actor(&self) -> Actor {
        let key = self.title();
        match self.person.clone() {
            Some(person) => Actor::Person { key, person },
            None => Actor::Key(key),
        }
    }
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
            person: None,
        };
        assert_eq!(decide(Some(&key(None)), &secret, i64::MAX), Ok(()));
        assert_eq!(decide(Some(&key(Some(10))), &secret, 9), Ok(()));
        assert_eq!(decide(Some(&key(Some(10))), &secret, 10), Err(Denied::Expired));
        assert_eq!(decide(Some(&key(Some(10))), &wrong, 10), Err(Denied::Unknown));
        assert_eq!(decide(None, &secret, 0), Err(Denied::Unknown));
        assert_eq!(decide(None, &zero, 0), Err(Denied::Unknown));
    }

    #[test]
    fn a_person_is_one_by_whatever_key() {
        let issuer = |text: &str| text.parse::<Issuer>().unwrap();
        let ada = Person::new(&issuer("https://id.example"), "ada lovelace");
        let other = Person::new(&issuer("https://id2.example"), "ada lovelace");
        assert_eq!(ada.to_string(), "https://id.example ada lovelace");
        assert_eq!(ada.to_string().parse(), Ok(ada.clone()));
        assert_eq!((ada.issuer(), ada.subject()), ("https://id.example", "ada lovelace"));
        for bad in ["", "x", " x", "x "] {
            assert_eq!(bad.parse::<Person>(), Err(InvalidPerson), "{bad:?}");
        }
        let by =
            |key: &str, person: &Person| Actor::Person { key: key.into(), person: person.clone() };
        for (a, b, is_same) in [
            (by("ada (1)", &ada), by("ada@example.com (2)", &ada), true),
            (by("ada (1)", &ada), by("ada (1)", &other), false),
            (Actor::from("ada (1)"), by("ada (2)", &ada), false),
            (Actor::from("ada (1)"), "ada (2)".into(), false),
            (Actor::from("ada (1)"), "ada (1)".into(), true),
        ] {
            assert_eq!((a.is_same(&b), b.is_same(&a)), (is_same, is_same), "{a:?} {b:?}");
            let json = serde_json::to_string(&a).unwrap();
            assert_eq!(serde_json::from_str::<Actor>(&json).unwrap(), a, "{json}");
        }
        let before = serde_json::from_str::<Actor>(r#""ada (1)""#).unwrap();
        assert_eq!(before, "ada (1)".into(), "as it was written before people signed in");
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
