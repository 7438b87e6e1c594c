//! `outrigger-cloud backup`: everything that the server is, in one encrypted file.

use anyhow::Context;
use outrigger_cloud::backup;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Progress, SecretArgs, advised, hinted, now_s};

/// Arguments of `backup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server's folder; the server may be running.
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// The file to write; it must not be there yet.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Make a key in this file first, and seal with it.
    #[arg(long, value_name = "FILE", conflicts_with = "secret")]
    new_key: Option<PathBuf>,
    #[command(flatten)]
    secret: SecretArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let secret = match &args.new_key {
        Some(path) => backup::make_key(path).context("there is nothing to seal the backup with")?,
        None => args.secret.read()?,
    };
    let progress = Progress::new("backing up");
    let made = backup::create(&args.data_dir, &args.output, &secret, now_s(), &|done, of| {
        progress.at(done, of);
    });
    let description = made.map_err(|error| {
        let hint = error.hint();
        hinted(error.into(), hint)
    })?;
    progress.finish();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&description)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "backup {} of {} devices: {} files, {} bytes",
        description.id, description.devices, description.files, description.bytes
    );
    if let Some(path) = &args.new_key {
        advised(&format!(
            "keep {} elsewhere: who has it can read every backup, and without it none opens",
            path.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
