//! `outrigger model policy`.

use protocol::id::{ModelName, Version};
use protocol::versions::VersionPolicy;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `model policy`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model.
    model: ModelName,
    #[command(flatten)]
    which: Which,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The newest N versions answer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    latest: Option<u32>,
    /// Every version answers.
    #[arg(long)]
    all: bool,
    /// These versions answer, separated by commas.
    #[arg(long, value_name = "VERSIONS", value_delimiter = ',')]
    versions: Vec<Version>,
}

impl Which {
    fn policy(&self) -> VersionPolicy {
        match self.latest {
            Some(count) => VersionPolicy::Latest(count),
            None if self.all => VersionPolicy::All,
            None => VersionPolicy::Listed(self.versions.iter().copied().collect()),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let policy = args.which.policy();
    let body = json!({ "policy": policy }).to_string();
    let path = format!("/v1/models/{}/policy", args.model);
    let answer: Value = client.send("PUT", &path, body.as_bytes())?;
    if args.json {
        output::json(&answer);
    } else {
        output::line(&format!("versions of {} that answer on the cloud: {policy}", args.model));
    }
    Ok(())
}
