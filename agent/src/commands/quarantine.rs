//! `outrigger-agent quarantine`: what is not tried again, and letting it be tried again.

use super::{StateDir, explain_lock, hinted, local};
use crate::lock::StateLock;
use crate::serve::QUARANTINE_PATH;
use crate::state::{Quarantined, State};
use clap::Subcommand;
use comfy_table::{Table, presets};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// Arguments of `quarantine`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show what is in quarantine, and why.
    List {
        #[command(flatten)]
        state_dir: StateDir,
        /// A JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Let a bundle be tried again.
    Release {
        #[command(flatten)]
        state_dir: StateDir,
        /// The bundle's hash, or as many digits of it as tell it from the others.
        #[arg(value_name = "HASH")]
        bundle: String,
        /// A JSON object instead of a line.
        #[arg(long)]
        json: bool,
    },
}

/// How long the agent may take to let one out.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.action {
        Action::List { state_dir, json } => list(&state_dir.path(), *json)?,
        Action::Release { state_dir, bundle, json } => release(&state_dir.path(), bundle, *json)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn entries(state_dir: &Path) -> anyhow::Result<Vec<Quarantined>> {
    if !state_dir.join("state.db").exists() {
        return Ok(Vec::new());
    }
    Ok(State::inspect(state_dir)?.quarantine()?)
}

fn list(state_dir: &Path, json: bool) -> anyhow::Result<()> {
    let entries = entries(state_dir)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(());
    }
    if entries.is_empty() {
        println!("nothing is in quarantine");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["model", "bundle", "since", "reason"]);
    for entry in &entries {
        let since = u64::try_from(entry.since_s).unwrap_or(0);
        let since = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(since));
        let model = format!("{}@{}", entry.model, entry.version);
        let bundle = entry.bundle.to_string();
        table.add_row([&model, &bundle[..12], &since, &entry.reason]);
    }
    println!("{table}");
    eprintln!("next: outrigger-agent quarantine release HASH");
    Ok(())
}

fn release(state_dir: &Path, wanted: &str, json: bool) -> anyhow::Result<()> {
    let entries = entries(state_dir)?;
    let named: Vec<&Quarantined> = entries.iter().filter(|e| is_named(e, wanted)).collect();
    let [entry] = named.as_slice() else {
        let what = match named.len() {
            0 => format!("no bundle {wanted:?} is in quarantine"),
            many => format!("{many} bundles begin with {wanted:?}"),
        };
        return Err(hinted(what, "outrigger-agent quarantine list shows what is"));
    };
    let at_once = match ask(state_dir, entry) {
        Some(released) => released?,
        None => release_stopped(state_dir, entry)?,
    };
    if json {
        println!("{}", serde_json::json!({ "released": entry, "tried_again": at_once }));
    } else {
        let when = if at_once { "is tried again" } else { "is tried when the agent starts" };
        println!("{}@{} is released and {when}, where it is wanted", entry.model, entry.version);
    }
    Ok(())
}

fn is_named(entry: &Quarantined, wanted: &str) -> bool {
    !wanted.is_empty() && entry.bundle.to_string().starts_with(&wanted.to_lowercase())
}

/// The running agent lets it out itself, and tries at once; `None` when none answers.
fn ask(state_dir: &Path, entry: &Quarantined) -> Option<anyhow::Result<bool>> {
    let path = format!("{QUARANTINE_PATH}{}", entry.bundle);
    let answer = local::call(&local::socket(state_dir)?, "DELETE", &path, PATIENCE).ok()?;
    Some(match answer.status {
        204 | 404 => Ok(true), // 404: somebody was faster
        status => Err(hinted(format!("the agent answered {status}"), "see the agent's log")),
    })
}

fn release_stopped(state_dir: &Path, entry: &Quarantined) -> anyhow::Result<bool> {
    let _lock = StateLock::take(state_dir).map_err(|e| explain_lock(&e))?;
    State::open(state_dir)?.release(entry.bundle)?;
    Ok(false)
}
