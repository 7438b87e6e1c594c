//! `outrigger-cloud restore`: a server out of a backup.

use outrigger_cloud::backup::{self, Restored, Wanted};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Progress, SecretArgs, advised, hinted, now_s};

/// Arguments of `restore`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The server's folder; it must be absent or empty.
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
    #[command(flatten)]
    secret: SecretArgs,
    /// A device, node or key that was shut out after the backup was made; repeatable.
    #[arg(long = "shut-out", value_name = "ID")]
    shut_out: Vec<String>,
    /// Keys of the API go on: none was revoked since the backup was made, or --shut-out names it.
    #[arg(long)]
    keep_keys: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let secret = args.secret.read()?;
    let wanted = Wanted { shut_out: args.shut_out.clone(), keep_keys: args.keep_keys };
    let progress = Progress::new("restoring");
    let now_s = now_s();
    let moved = |done, of| progress.at(done, of);
    let done = backup::restore(&args.file, &secret, &args.data_dir, &wanted, now_s, &moved);
    let restored = done.map_err(|error| {
        let hint = error.hint();
        hinted(error.into(), hint)
    })?;
    progress.finish();
    match args.json {
        true => println!("{:#}", as_json(&restored)),
        false => say(&restored, now_s),
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(restored: &Restored) -> serde_json::Value {
    json!({
        "backup": restored.description,
        "void": { "tokens": restored.void.tokens, "keys": restored.void.keys },
        "admin_key": restored.admin_key,
    })
}

fn say(restored: &Restored, now_s: i64) {
    let Restored { description, void, admin_key } = restored;
    let hours = (now_s - description.made_at_s) / 3600;
    println!(
        "restored backup {} ({hours} h old): {} devices, {} files; void: {} tokens, {} keys",
        description.id, description.devices, description.files, void.tokens, void.keys
    );
    advised("devices reconnect by themselves, but for those that enrolled after the backup");
    advised("what was denied, removed or assigned after it must be so again; see outrigger audit");
    if let Some(path) = admin_key {
        let path = path.display();
        advised(&format!("log in anew: outrigger login --cloud HOST:PORT --key-file {path}"));
    }
}
