//! `outrigger repo remove`: versions are not good any more. Devices that have one keep it until another is assigned;
//! nobody installs it anew.

use protocol::id::{ModelName, Variant, Version};
use protocol::tuf::install::target_path;
use std::str::FromStr;

use super::Signing;
use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::repository::{Remote, unname};

/// Arguments of `repo remove`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Versions, for example fashion@3.
    #[arg(required = true, value_name = "NAME@VERSION")]
    versions: Vec<Named>,
    #[command(flatten)]
    signing: Signing,
}

/// A version of a model.
#[derive(Debug, Clone)]
struct Named {
    model: ModelName,
    version: Version,
}

impl FromStr for Named {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (model, version) = text.split_once('@').ok_or("a version is NAME@VERSION")?;
        let read = |error: protocol::id::InvalidName| error.to_string();
        Ok(Self { model: model.parse().map_err(read)?, version: version.parse().map_err(read)? })
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::open()?;
    let client = Client::open(&config)?;
    let remote = Remote::get(&client)?.need()?;
    let keys = args.signing.open_keys(&config)?;
    let paths: Vec<String> = args
        .versions
        .iter()
        .flat_map(|named| {
            [Variant::Edge, Variant::Cloud]
                .map(|variant| target_path(&named.model, named.version, variant))
        })
        .collect();
    let files = unname(&remote, &keys, &paths, args.signing.expires_s())?;
    if files.is_empty() {
        return Err(hinted("none of these is named as good", "outrigger model list"));
    }
    args.signing.finish(&client, &remote, &files)?;
    eprintln!("Devices that run one keep it until another version is assigned.");
    Ok(())
}
