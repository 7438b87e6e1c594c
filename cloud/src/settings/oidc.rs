//! `[oidc]`: where operators sign in.

use fleet::sign_in::provider::Issuer;
use fleet::sign_in::roles::{ClaimPath, RULES_MAX, Rule};
use fleet::sign_in::{SESSION_H, SESSION_MAX_H};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use super::Objection;
use crate::backup::read_line;

/// Where operators sign in, and what they may do then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oidc {
    /// The OpenID provider's URL, as it calls itself; nobody signs in when it is empty.
    pub issuer: String,
    /// What the provider calls this cloud.
    pub client_id: String,
    /// A file with the secret that this cloud shows to the provider; none when empty.
    pub client_secret_file: PathBuf,
    /// What the provider is asked for, with spaces between.
    pub scopes: String,
    /// The claim that says to which groups somebody belongs: its name, or a JSON pointer.
    pub claim: String,
    /// `ROLE=VALUE` for each value of the claim that has a role, `ROLE=*` for anybody; the first that fits holds.
    pub roles: Vec<Rule>,
    /// How long somebody stays signed in, in hours.
    pub session_h: u32,
    /// The certificates that the provider is trusted by, as PEM; the system's when empty.
    pub ca_file: PathBuf,
}

impl Default for Oidc {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            client_id: String::new(),
            client_secret_file: PathBuf::new(),
            scopes: "openid profile email".to_owned(),
            claim: "groups".to_owned(),
            roles: Vec::new(),
            session_h: SESSION_H,
            ca_file: PathBuf::new(),
        }
    }
}

impl Oidc {
    /// The file that a setting names, if it names one.
    pub(crate) fn secret_file(&self) -> Option<&Path> {
        Some(self.client_secret_file.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    pub(super) fn check(&self, found: &mut Vec<Objection>) {
        if self.issuer.is_empty() {
            return;
        }
        let mut object =
            |key, error: String, hint: &str| found.push(Objection::new(key, error, hint));
        if let Err(error) = self.issuer.parse::<Issuer>() {
            let hint = "write it as the provider does: https://id.example/realms/ml";
            object("oidc.issuer", error.to_string(), hint);
        }
        if self.client_id.is_empty() {
            let hint = "the provider gives one to each of its clients";
            object("oidc.client_id", "this cloud has no name at the provider".to_owned(), hint);
        }
        let is_scope = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\' || b == b' ';
        let has_openid = self.scopes.split(' ').any(|scope| scope == "openid");
        if !has_openid || !self.scopes.bytes().all(is_scope) {
            let error = format!("{:?} does not ask for a sign-in", self.scopes);
            object("oidc.scopes", error, "for example: openid profile email groups");
        }
        if let Err(error) = self.claim.parse::<ClaimPath>() {
            object("oidc.claim", error.to_string(), "for example: groups");
        }
        if !(1..=RULES_MAX).contains(&self.roles.len()) {
            let error = format!("{} rules say who has which role", self.roles.len());
            let hint = "1 to 64, for example: roles = [\"admin=ml-admins\", \"viewer=*\"]";
            object("oidc.roles", error, hint);
        }
        if !(1..=SESSION_MAX_H).contains(&self.session_h) {
            let error = format!("a session of {} hours is too short, or too long", self.session_h);
            object("oidc.session_h", error, "choose 1 to 168");
        }
        if let Some(Err(error)) = self.secret_file().map(read_line) {
            let hint = "its first line is the secret, and nobody else may read it";
            object("oidc.client_secret_file", protocol::problem::chain(&error), hint);
        }
        if self.issuer.starts_with("https:")
            && let Err(error) = link::roots::roots(&self.ca_file)
        {
            let hint = "name a file of PEM with the certificate of the provider's CA";
            object("oidc.ca_file", protocol::problem::chain(&error), hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objections(oidc: &Oidc) -> Vec<&'static str> {
        let mut found = Vec::new();
        oidc.check(&mut found);
        found.into_iter().map(|objection| objection.key).collect()
    }

    #[test]
    fn what_makes_no_sense_is_said_of_each_setting() {
        assert!(objections(&Oidc::default()).is_empty(), "nobody signs in");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "s3cret\n").unwrap();
        let wrong = Oidc {
            issuer: "http://id.example".to_owned(),
            scopes: "profile".to_owned(),
            claim: String::new(),
            session_h: 169,
            client_secret_file: folder.path().join("absent"),
            ..Oidc::default()
        };
        let keys = ["issuer", "client_id", "scopes", "claim", "roles", "session_h"];
        let mut keys: Vec<_> = keys.iter().map(|key| format!("oidc.{key}")).collect();
        keys.push("oidc.client_secret_file".to_owned());
        assert_eq!(objections(&wrong), keys);
        let right = Oidc {
            issuer: "http://127.0.0.1:9".to_owned(),
            client_id: "outrigger".to_owned(),
            roles: vec!["viewer=*".parse().unwrap()],
            ..Oidc::default()
        };
        assert!(objections(&right).is_empty());
        let far = Oidc { issuer: "https://id.example".to_owned(), ca_file: file.clone(), ..right };
        assert_eq!(objections(&far), ["oidc.ca_file"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let set = |mode| {
                std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            };
            let issuer = "http://127.0.0.1:9".to_owned();
            let secret =
                Oidc { issuer, client_secret_file: file.clone(), ca_file: PathBuf::new(), ..far };
            set(0o644);
            assert_eq!(objections(&secret), ["oidc.client_secret_file"]);
            set(0o600);
            assert!(objections(&secret).is_empty());
        }
    }
}
