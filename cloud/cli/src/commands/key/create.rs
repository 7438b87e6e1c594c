//! `outrigger key create`.

use fleet::access::Role;
use serde_json::{Value, json};
use std::path::PathBuf;

use crate::client::Client;
use crate::config::{Config, write_private};
use crate::errors::hinted;
use crate::output;
use crate::time::parse_span;

/// Arguments of `key create`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What people call the key.
    #[arg(long, value_name = "TEXT")]
    name: String,
    /// What its holder may do: client (ask models, nothing else), viewer, operator, signer, admin.
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// A model that it may ask; * stands for any run of characters; repeatable.
    #[arg(long = "model", default_value = "*", value_name = "PATTERN")]
    models: Vec<String>,
    /// Whom it belongs to.
    #[arg(long, default_value = "default", value_name = "TENANT")]
    tenant: String,
    /// When it ends, for example 12h or 30d; never when absent.
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    expires: Option<u32>,
    /// Write the key to a file that only you can read, instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON; with --output, without the key itself.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let body = json!({
        "name": args.name,
        "role": args.role,
        "models": args.models,
        "tenant": args.tenant,
        "expires_in_s": args.expires,
    });
    let mut answer: Value = client.send("POST", "/v1/keys", body.to_string().as_bytes())?;
    let key = answer["key"].as_str().unwrap_or_default().to_owned();
    if let Some(path) = &args.output {
        write_private(path, format!("{key}\n").as_bytes()).map_err(|error| {
            let id = answer["id"].as_str().unwrap_or_default();
            let hint = format!("the key is lost; revoke it with: outrigger key revoke {id}");
            hinted(format!("{error:#}"), &hint)
        })?;
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("key");
        }
    }
    match (&args.output, args.json) {
        (_, true) => output::json(&answer),
        (None, false) => output::line(&key),
        (Some(path), false) => eprintln!("The key is in {}.", path.display()),
    }
    if args.output.is_none() {
        eprintln!("It is shown this once. Callers send: Authorization: Bearer KEY");
    }
    Ok(())
}
