//! `outrigger device token list`.

use serde::Deserialize;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `device token list`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Token {
    id: String,
    label: String,
    tenant: String,
    state: String,
    count: u32,
    used: u32,
    created_at_s: i64,
    expires_at_s: i64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let tokens = client.list("/v1/tokens", "tokens")?;
    if args.json {
        output::json(&tokens);
        return Ok(());
    }
    let tokens: Vec<Token> = serde_json::from_value(tokens)?;
    let now_s = output::now_s();
    let row = |token: Token| {
        let is_live = token.state == "live";
        let left = if is_live { token.count - token.used } else { 0 };
        let ends_min = (token.expires_at_s - now_s).max(0) / 60;
        let ends = if is_live { format!("in {ends_min} min") } else { "-".to_owned() };
        let made = output::ago(token.created_at_s, now_s);
        let devices = format!("{} of {}", token.used, token.count);
        let left = left.to_string();
        vec![token.id, token.label, token.tenant, token.state, devices, left, ends, made]
    };
    let header = ["token", "label", "tenant", "state", "devices", "left", "ends", "made"];
    let rows = tokens.into_iter().map(row).collect();
    output::table(&header, rows, "There are no tokens: outrigger device token");
    Ok(())
}
