//! `outrigger tenant list`.

use protocol::id::TenantName;
use protocol::pattern::ModelPatterns;
use serde::Deserialize;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `tenant list`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Tenant {
    name: TenantName,
    models: ModelPatterns,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let tenants = client.list("/v1/tenants", "tenants")?;
    if args.json {
        output::json(&tenants);
        return Ok(());
    }
    let tenants: Vec<Tenant> = serde_json::from_value(tenants)?;
    let row = |tenant: Tenant| vec![tenant.name.to_string(), tenant.models.to_string()];
    let header = ["tenant", "models"];
    output::table(&header, tenants.into_iter().map(row).collect(), "There are no tenants.");
    Ok(())
}
