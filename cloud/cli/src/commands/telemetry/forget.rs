//! `outrigger telemetry forget`: takes all that a device has told out of a dataset.

use analytics::dataset::Dataset;
use protocol::id::DeviceId;
use std::path::PathBuf;

/// Arguments of `telemetry forget`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The device.
    #[arg(value_name = "DEVICE")]
    device: DeviceId,
    /// The dataset's folder.
    #[arg(long, value_name = "FOLDER")]
    dataset: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let rows = Dataset::open(&args.dataset)?.forget_device(&args.device)?;
    eprintln!(
        "{rows} rows of {} are gone from here; what the cloud keeps goes with `outrigger telemetry delete`",
        args.device
    );
    Ok(())
}
