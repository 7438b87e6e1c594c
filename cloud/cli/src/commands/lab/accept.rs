//! `outrigger lab accept`.

use anyhow::Context;
use protocol::measurement::SignedDelegation;
use std::path::PathBuf;

use crate::config::{Config, LAB_KEY};
use crate::errors::hinted;

/// Arguments of `lab accept`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The file that `outrigger lab delegate` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let what = || format!("cannot read {}", args.file.display());
    let signed: SignedDelegation =
        serde_json::from_slice(&std::fs::read(&args.file).with_context(what)?)
            .with_context(what)?;
    let config = Config::open()?;
    let own = config.key(LAB_KEY)?.map(|key| hex::encode(key.public().0));
    if own.as_ref() != Some(&signed.read().with_context(what)?.lab_key) {
        let what = format!("{} is for another lab key than this machine's", args.file.display());
        return Err(hinted(what, "outrigger lab key shows the one to delegate to"));
    }
    config.keep_delegation(&signed)?;
    eprintln!("next: outrigger model compress IN.onnx --calibration DATA --device NAME -o FOLDER");
    Ok(())
}
