//! `outrigger node token`.

use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;

use crate::client::Client;
use crate::config::Config;
use crate::time::parse_span;
use crate::token_file;

/// Arguments of `node token`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long the token is good for, for example 30m, 1h or 7d.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = parse_span)]
    ttl: u32,
    /// What the node will be called; its host name when absent.
    #[arg(long, default_value = "", value_name = "TEXT")]
    label: String,
    /// A host name or address under which clients of the standard reach the node; repeatable. Agents
    /// need none.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Write the token to this file, which only you can read.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Deserialize)]
struct Answer {
    token: String,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let body = json!({ "ttl_s": args.ttl, "label": args.label, "names": args.names }).to_string();
    let answer: Answer = client.send("POST", "/v1/nodes/tokens", body.as_bytes())?;
    let file = token_file::hand_out(&answer.token, Some(&args.output))?;
    eprintln!("It is good for one node. On its machine:");
    eprintln!(
        "next: outrigger-cloud serve --role inference --join {} --token-file {file} --data-dir FOLDER",
        client.cloud()
    );
    Ok(())
}
