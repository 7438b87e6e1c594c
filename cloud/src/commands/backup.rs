//! `outrigger-cloud backup`: everything that the server is, in one encrypted file.

use anyhow::Context;
use outrigger_cloud::backup::{self, Secret};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Progress, advised, hinted, now_s};

/// Arguments of `backup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server's folder; the server may be running.
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    /// The file to write; it must not be there yet.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    secret: SecretArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What to seal with: one of these.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct SecretArgs {
    /// Seal with the key in this file, which only you can read.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Make a key in this file first, and seal with it.
    #[arg(long, value_name = "FILE")]
    new_key: Option<PathBuf>,
    /// Seal with the passphrase in this file, or on stdin where it is -.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl SecretArgs {
    fn read(&self) -> anyhow::Result<Secret> {
        let secret = match (&self.key_file, &self.new_key, &self.passphrase_file) {
            (Some(path), _, _) => backup::read_key(path),
            (_, Some(path), _) => backup::make_key(path),
            (_, _, Some(path)) => backup::read_passphrase(path),
            _ => anyhow::bail!("name --key-file, --new-key or --passphrase-file"),
        };
        secret.context("there is nothing to seal the backup with")
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let secret = args.secret.read()?;
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
    if let Some(path) = &args.secret.new_key {
        advised(&format!(
            "keep {} elsewhere: who has it can read every backup, and without it none opens",
            path.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
