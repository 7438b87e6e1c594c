//! `outrigger-cloud restore`: a server out of a backup.

use anyhow::Context;
use outrigger_cloud::backup::{self, Restored, Wanted};
use serde_json::json;
use std::path::{Path, PathBuf};
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
    /// A file with more of them, one a line, as `outrigger device list --denied` prints them; repeatable.
    #[arg(long = "deny", value_name = "FILE")]
    deny: Vec<PathBuf>,
    /// Keys of the API go on: none was revoked since the backup was made, or --shut-out names it.
    #[arg(long)]
    keep_keys: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let secret = args.secret.read()?;
    let mut shut_out = args.shut_out.clone();
    for file in &args.deny {
        shut_out.extend(named_in(file)?);
    }
    let wanted = Wanted { shut_out, keep_keys: args.keep_keys };
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

/// The names in a file, one a line; what follows `#` is for people.
fn named_in(file: &Path) -> anyhow::Result<Vec<String>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
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
    advised(
        "devices denied after it are let in again, unless --deny FILE or --shut-out ID named them:",
    );
    advised("  outrigger device deny ID, for each in your copy of: outrigger device list --denied");
    advised(
        "what was removed or assigned after it must be so again; an old audit log says what was",
    );
    advised("bundles named as good after it: outrigger repo sign");
    if let Some(path) = admin_key {
        let path = path.display();
        advised(&format!("log in anew: outrigger login --cloud HOST:PORT --key-file {path}"));
    }
}
