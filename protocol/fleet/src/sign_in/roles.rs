//! What somebody who signed in may do, and what they are called.

use protocol::limits::NAME_MAX_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

use super::id_token::{Claims, subject};
use crate::access::Role;

/// Rules that there may be.
pub const RULES_MAX: usize = 64;

/// Who gets a role: `ROLE=VALUE`, where the claim has that value, or `ROLE=*` for anybody who signs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    role: Role,
    value: String,
}

/// No rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRule {
    /// Not of the form.
    #[error("{0:?} is no rule: write ROLE=VALUE, or ROLE=* for anybody who signs in")]
    Form(String),
    /// No role.
    #[error(transparent)]
    Role(#[from] crate::access::UnknownRole),
    /// What is no person.
    #[error("the role client is for programs: give them a key (outrigger key create)")]
    Client,
}

impl FromStr for Rule {
    type Err = InvalidRule;
    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let form = || InvalidRule::Form(text.to_owned());
        let (role, value) = text.split_once('=').ok_or_else(form)?;
        let (role, value): (Role, _) = (role.trim().parse()?, value.trim());
        match (role, value) {
            (_, "") => Err(form()),
            (Role::Client, _) => Err(InvalidRule::Client),
            _ => Ok(Self { role, value: value.to_owned() }),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.role, self.value)
    }
}

impl TryFrom<String> for Rule {
    type Error = InvalidRule;
    fn try_from(text: String) -> Result<Self, InvalidRule> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

/// Which claim says to which groups somebody belongs: its name, or a JSON pointer to it (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(String);

/// No claim.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no claim: write its name, or a JSON pointer such as /realm_access/roles")]
pub struct InvalidClaimPath(String);

impl FromStr for ClaimPath {
    type Err = InvalidClaimPath;
    fn from_str(text: &str) -> Result<Self, InvalidClaimPath> {
        let is_path = (1..=NAME_MAX_BYTES).contains(&text.len())
            && !text.contains(char::is_control)
            && text != "/";
        match is_path {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidClaimPath(text.to_owned())),
        }
    }
}

impl ClaimPath {
    fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let Some(pointer) = self.0.strip_prefix('/') else { return claims.get(&self.0) };
        let (first, rest) = match pointer.split_once('/') {
            Some((first, rest)) => (first, format!("/{rest}")),
            None => (pointer, String::new()),
        };
        claims.get(&first.replace("~1", "/").replace("~0", "~"))?.pointer(&rest)
    }

    fn is_email(&self) -> bool {
        self.0.trim_start_matches('/') == "email"
    }

    /// Whether something is said of it; of an address also whether it is theirs.
    fn is_told(&self, claims: &Map<String, Value>) -> bool {
        self.find(claims).is_some() && (!self.is_email() || claims.contains_key("email_verified"))
    }

    /// The values; of an address only where the provider has seen that it is theirs.
    fn values<'a>(&self, claims: &'a Map<String, Value>) -> Vec<&'a str> {
        match self.find(claims) {
            _ if self.is_email() && !is_verified(claims) => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where groups stand.
    pub claim: ClaimPath,
    /// The first that fits holds.
    pub rules: Vec<Rule>,
}

/// Somebody whom no rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRole {
    /// The provider does not say to which groups they belong.
    #[error("the provider says nothing of the claim that roles are given by")]
    NotTold,
    /// It says so, and none of them has a role.
    #[error("no role of this cloud is for them")]
    NoneFits,
}

impl Rules {
    /// Whether the claim is not there, and a rule needs it.
    pub fn lack(&self, claims: &Claims) -> bool {
        self.rules.iter().any(|rule| rule.value != "*") && !self.claim.is_told(&claims.all)
    }

    /// What somebody may do.
    ///
    /// # Errors
    /// [`NoRole`].
    pub fn role(&self, claims: &Claims) -> Result<Role, NoRole> {
        let values = self.claim.values(&claims.all);
        let fits = |rule: &&Rule| rule.value == "*" || values.contains(&rule.value.as_str());
        let is_told = self.claim.is_told(&claims.all);
        let none = if is_told { NoRole::NoneFits } else { NoRole::NotTold };
        self.rules.iter().find(fits).map(|rule| rule.role).ok_or(none)
    }
}

impl Claims {
    /// What the provider says elsewhere of the same person; nothing where it is another.
    pub fn of_userinfo(&self, all: Map<String, Value>) -> Option<Self> {
        let subject = subject(&all).filter(|subject| *subject == self.subject)?;
        Some(Self { subject, all })
    }

    /// What people call them: the address, where the provider has seen that it is theirs, else the name that they
    /// go by there.
    pub fn name(&self) -> Option<&str> {
        let text = |name: &str| self.all.get(name).and_then(Value::as_str);
        let email = text("email").filter(|_| is_verified(&self.all));
        let names = [email, text("preferred_username")];
        names.into_iter().flatten().find(|name| is_name(name))
    }

    /// The subject, as something to call somebody who has no other name.
    pub fn nameless(&self) -> String {
        let seen = self.subject.chars().filter(|c| !is_hidden(*c));
        let name: String = seen.take(32).collect();
        if name.trim().is_empty() { "somebody".to_owned() } else { name.trim().to_owned() }
    }
}

fn is_verified(claims: &Map<String, Value>) -> bool {
    claims.get("email_verified") == Some(&Value::Bool(true))
}

fn is_name(text: &str) -> bool {
    (1..=NAME_MAX_BYTES).contains(&text.len()) && !text.contains(is_hidden) && text.trim() == text
}

/// What makes a line look like another one: control characters, and those that are not seen or turn the direction.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
