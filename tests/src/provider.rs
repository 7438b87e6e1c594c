//! A real OpenID provider, the npm package `oidc-provider`, and a person with a browser who signs in there.

mod browser;
mod packages;

pub use browser::{Browser, Visit};

use anyhow::Context;
use packages::Packages;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// The package, at the version that the tests were written with.
const PACKAGE: &str = "oidc-provider@9.13.3";
/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it knows.
#[derive(Debug, Clone)]
pub struct Directory {
    /// Names, and the claims of each.
    pub people: Value,
    /// The only client, in the words of OpenID Connect's registration.
    pub client: Value,
    /// Whether claims stand in the ID token; otherwise the userinfo endpoint alone tells them.
    pub claims_in_token: bool,
}

impl Directory {
    /// A native application with this id, and nobody who could sign in.
    pub fn new(client_id: &str) -> Self {
        let client = json!({
            "client_id": client_id,
            "application_type": "native",
            "token_endpoint_auth_method": "none",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code"],
            "response_types": ["code"],
            "id_token_signed_response_alg": "RS256",
        });
        Self { people: json!({}), client, claims_in_token: false }
    }

    /// The same with somebody more.
    #[must_use]
    pub fn with(mut self, name: &str, claims: Value) -> Self {
        self.people[name] = claims;
        self
    }

    /// The same with another property of the client.
    #[must_use]
    pub fn client(mut self, property: &str, value: &str) -> Self {
        self.client[property] = value.into();
        self
    }
}

/// The running provider. It ends with the value, or with the process that holds it.
pub struct Provider {
    packages: Packages,
    settings: PathBuf,
    issuer: String,
    child: Option<Child>,
}

impl Provider {
    /// Starts it on a free loopback port. `None`, with the reason printed, where Node.js or its registry is missing.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(folder: &Path, directory: &Directory) -> anyhow::Result<Option<Self>> {
        let Some(packages) = Packages::with(PACKAGE)? else { return Ok(None) };
        let settings = folder.join("provider.json");
        let mut provider = Self { packages, settings, issuer: String::new(), child: None };
        provider.restart(directory)?;
        Ok(Some(provider))
    }

    /// Starts it anew, on the port that it had, with other keys and no memory.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self, directory: &Directory) -> anyhow::Result<()> {
        self.stop();
        let port = self.issuer.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        let settings = json!({
            "packages": self.packages.folder(),
            "port": port.unwrap_or(0),
            "people": directory.people,
            "clients": [directory.client],
            "claims_in_token": directory.claims_in_token,
        });
        std::fs::write(&self.settings, settings.to_string())?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("node/provider.mjs");
        let log = std::fs::File::create(self.settings.with_extension("log"))?;
        let child = Command::new("node")
            .arg(script)
            .arg(&self.settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let stdout = self.child.insert(child).stdout.take().context("a pipe was asked for")?;
        let (say, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| {
                let _ = say.send(line); // who writes where nobody reads is ended: read to the end
            });
        });
        let log = || std::fs::read_to_string(self.settings.with_extension("log"));
        let issuer = lines.recv_timeout(PATIENCE).ok().filter(|line| !line.is_empty());
        self.issuer =
            issuer.with_context(|| format!("the provider does not start: {:?}", log()))?;
        Ok(())
    }

    /// Ends it.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its address, as its tokens say it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}
