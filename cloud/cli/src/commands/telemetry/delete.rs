//! `outrigger telemetry delete`: what is kept of a device, or of a tenant's devices, goes.

use protocol::id::{DeviceId, TenantName};
use serde_json::Value;

use crate::client::Client;
use crate::config::Config;
use crate::output;

/// Arguments of `telemetry delete`.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Args {
    /// Of this device.
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    /// Of all devices of this tenant.
    #[arg(long, value_name = "NAME")]
    tenant: Option<TenantName>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    let path = match (&args.device, &args.tenant) {
        (Some(device), _) => format!("devices/{device}"),
        (None, Some(tenant)) => format!("tenants/{tenant}"),
        (None, None) => return Ok(()), // clap asks for one of them
    };
    let answer: Value = client.send("DELETE", &format!("/v1/telemetry/{path}"), b"")?;
    output::line(&format!("{} segments were deleted", answer["deleted"]));
    Ok(())
}
