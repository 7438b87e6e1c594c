//! Who may do what over the admin API: four roles, one table.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The role of an operator's key.
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
}

/// What can be done over the admin API.
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
}

impl Role {
    /// Whether the role includes the permission.
    pub fn allows(self, permission: Permission) -> bool {
        use Permission::{Assign, Enrol, Push, View};
        match self {
            Role::Viewer => permission == View,
            Role::Operator => matches!(permission, View | Enrol | Assign),
            Role::Signer => matches!(permission, View | Push),
            Role::Admin => true,
        }
    }

    /// The role as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Signer => "signer",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Not one of the four roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role; the roles are viewer, operator, signer and admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Role::Viewer, Role::Operator, Role::Signer, Role::Admin]
            .into_iter()
            .find(|r| r.as_str() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        use Permission::{Assign, Enrol, Push, TrustSigner, View};
        let mut lines = Vec::new();
        for role in ["viewer", "operator", "signer", "admin"] {
            let role: Role = role.parse().unwrap();
            let allowed: Vec<_> = [View, Enrol, Assign, Push, TrustSigner]
                .into_iter()
                .filter(|p| role.allows(*p))
                .collect();
            lines.push(format!("{role:8} {allowed:?}"));
        }
        insta::assert_snapshot!(lines.join("\n"));
        assert!("root".parse::<Role>().is_err());
    }
}
