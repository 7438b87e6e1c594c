//! `outrigger model list`.

use crate::client::Client;
use crate::config::Config;
use crate::output;

use super::{Bundle, LISTED_COLUMNS};

/// Arguments of `model list`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let models = client.list("/v1/models", "models")?;
    if args.json {
        output::json(&models);
        return Ok(());
    }
    let bundles: Vec<Bundle> = serde_json::from_value(models)?;
    let rows = bundles.iter().map(Bundle::listed_row).collect();
    output::table(&LISTED_COLUMNS, rows, "There are no models yet: outrigger model push FOLDER");
    Ok(())
}
