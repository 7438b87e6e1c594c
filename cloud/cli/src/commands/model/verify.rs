//! `outrigger model verify`: whether a folder is what somebody signed.

use anyhow::{Context, bail};
use protocol::id::ContentHash;
use protocol::limits::MODEL_SIGNATURE_MAX_BYTES;
use protocol::model_signature::{self, Files};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::sign::{SIGNATURE_FILE, hash_folder, inside};
use crate::output;

/// Arguments of `model verify`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The file with the signer's public key: P-256, PEM.
    #[arg(long, value_name = "FILE")]
    public_key: PathBuf,
    /// The signature; model.sig in the folder when absent.
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let place = args.signature.clone().unwrap_or_else(|| args.folder.join(SIGNATURE_FILE));
    let at = || place.display().to_string();
    let mut bundle = Vec::new();
    let most = MODEL_SIGNATURE_MAX_BYTES as u64 + 1;
    File::open(&place).with_context(at)?.take(most).read_to_end(&mut bundle).with_context(at)?;
    let key = std::fs::read_to_string(&args.public_key)
        .with_context(|| args.public_key.display().to_string())?;
    let signed = model_signature::verify(&bundle, &key).with_context(at)?;
    let mut ignored = signed.ignored.clone();
    ignored.extend(inside(&args.folder, &place).filter(|own| !signed.files.contains_key(own)));
    let found = hash_folder(&args.folder, &ignored)?;
    let differences = differences(&signed.files, &found);
    if !differences.is_empty() {
        bail!("the folder is not what was signed: {}", differences.join(", "));
    }
    output::line(&format!("{} files of {} are as they were signed", found.len(), signed.name));
    Ok(())
}

fn differences(signed: &Files, found: &Files) -> Vec<String> {
    let change = |(name, hash): (&String, &ContentHash)| match found.get(name) {
        None => Some(format!("{name} is missing")),
        Some(other) if other != hash => Some(format!("{name} was altered")),
        Some(_) => None,
    };
    let added = found.keys().filter(|name| !signed.contains_key(*name));
    let added = added.map(|name| format!("{name} was added"));
    signed.iter().filter_map(change).chain(added).collect()
}
