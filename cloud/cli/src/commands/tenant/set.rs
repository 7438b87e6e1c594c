//! `outrigger tenant set`.

use protocol::id::TenantName;
use serde_json::{Value, json};

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `tenant set`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The tenant; made if there is none of that name.
    #[arg(value_name = "NAME")]
    name: TenantName,
    /// A model that its keys and devices may ask; * stands for any run of characters; repeatable.
    #[arg(long = "model", required = true, value_name = "PATTERN")]
    models: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let body = json!({ "models": args.models }).to_string();
    let path = format!("/v1/tenants/{}", args.name);
    let answer: Value = client.send("PUT", &path, body.as_bytes())?;
    if args.json {
        output::json(&answer);
    } else {
        output::line(&format!("{} may ask {}", args.name, args.models.join(" ")));
    }
    Ok(())
}
