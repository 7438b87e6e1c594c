//! `outrigger login`: the first contact with a cloud, with a key or by signing in.

use anyhow::Context;
use fleet::access::{Permission, Role};
use protocol::id::ContentHash;
use protocol::manifest::SignerKey;
use protocol::token::{InvalidToken, Token};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::client::Client;
use crate::config::{Config, Credentials, SIGNING_KEY};
use crate::errors::hinted;
use crate::output;
use crate::probe::{Address, learn_ca};

mod browser;
mod callback;
mod oidc;

/// Larger than any key.
const KEY_FILE_MAX_BYTES: u64 = 4096;

/// Arguments of `login`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("how").args(["key_file", "oidc"]).required(true)))]
pub(crate) struct Args {
    /// Where the cloud is.
    #[arg(long, value_name = "HOST:PORT")]
    cloud: String,
    /// The file with the key (the first one is admin.key in the cloud's data folder), or - for
    /// standard input. Never on the command line: everybody on this machine could read it there.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Sign in at the cloud's provider, in a browser.
    #[arg(long)]
    oidc: bool,
    /// The cloud's CA, as `outrigger-cloud ca show` prints it; not needed where this machine has been logged in to
    /// that cloud before.
    #[arg(long, value_name = "SHA256", requires = "oidc")]
    ca: Option<ContentHash>,
    /// Only print where to sign in: the browser is opened by hand, perhaps on another machine.
    #[arg(long, requires = "oidc")]
    no_browser: bool,
}

#[derive(Deserialize)]
struct Me {
    name: String,
    role: Role,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let address = Address::parse(&args.cloud)?;
    let config = Config::open()?;
    match &args.key_file {
        None => oidc::sign_in(&config, &address, args),
        Some(key_file) => {
            let key = read_key(key_file)?;
            let ca = learn_ca(&address, key.ca_hash)?;
            let credentials = Credentials::new(&address, &key);
            let client = Client::new(&credentials, &ca);
            let me: Me = client.get("/v1/whoami")?;
            let signing = config.ensure_key(SIGNING_KEY)?.public();
            config.keep(&credentials, &ca)?;
            say_who(&address, &me);
            trust(&client, me.role, signing)?;
            say_next(me.role);
            Ok(())
        }
    }
}

fn say_who(address: &Address, me: &Me) {
    output::line(&format!("logged in to {address} as {} (role {})", me.name, me.role));
}

fn read_key(path: &Path) -> anyhow::Result<Token> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(KEY_FILE_MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|f| f.take(KEY_FILE_MAX_BYTES).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read the key from {}", path.display()))?;
    text.parse().map_err(|error: InvalidToken| {
        hinted(
            format!("this is no key: {error}"),
            "the first key is admin.key in the cloud's folder",
        )
    })
}

/// Lets the cloud, and the devices that enrol from now on, trust this operator's signing key.
fn trust(client: &Client, role: Role, key: SignerKey) -> anyhow::Result<()> {
    let public_key = hex::encode(key.0);
    if !role.allows(Permission::TrustSigner) {
        if role.allows(Permission::Push) {
            eprintln!(
                "note: before you can push, an admin must trust your signing key {public_key}"
            );
        }
        return Ok(());
    }
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
    let name = user.unwrap_or_else(|| "operator".to_owned());
    let body = json!({ "public_key": public_key, "name": name }).to_string();
    let answer: Value = client.send("POST", "/v1/signers", body.as_bytes())?;
    if answer["added"] == true {
        eprintln!("Devices that enrol from now on trust what your signing key signs.");
    }
    Ok(())
}

fn say_next(role: Role) {
    let next = match role {
        Role::Signer | Role::Admin => "outrigger model push FOLDER",
        Role::Operator => "outrigger device token",
        Role::Viewer => "outrigger device list",
        Role::Client => "send this key with requests to /v2; it is good for nothing else",
    };
    eprintln!("next: {next}");
}
