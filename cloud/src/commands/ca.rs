//! `outrigger-cloud ca`: another fleet CA in the place of the one that there is.

use anyhow::Context;
use clap::Subcommand;
use outrigger_cloud::ca::{self, FleetCa, RotationError};
use outrigger_cloud::store::audit::By;
use outrigger_cloud::store::beside::Beside;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::{advised, hinted, now_s};

/// Arguments of `ca`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a new CA that the old one vouches for; the next start of the server exchanges them, and
    /// devices follow when they connect.
    Rotate(Rotate),
    /// Stop believing the CA from before; holds from the next start on.
    Retire(Retire),
    /// Show the CA, and who still has a certificate of the one before.
    Show(Show),
}

#[derive(clap::Args)]
struct Rotate {
    #[command(flatten)]
    server: Server,
    /// For how many days the old CA is believed: whoever is away for longer must enrol again.
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=3650))]
    overlap_days: u16,
}

#[derive(clap::Args)]
struct Retire {
    #[command(flatten)]
    server: Server,
    /// Also while devices, nodes or tokens need it: they must enrol again then.
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
struct Show {
    #[command(flatten)]
    server: Server,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Whose CA it is.
#[derive(clap::Args)]
struct Server {
    /// The server's folder; the server may be running.
    #[arg(long, value_name = "FOLDER")]
    data_dir: PathBuf,
}

impl Server {
    fn ca(&self) -> PathBuf {
        self.data_dir.join("ca")
    }

    fn store(&self) -> anyhow::Result<Beside> {
        if !self.ca().join("ca.key").is_file() {
            let text = format!("{} holds no fleet CA", self.data_dir.display());
            return Err(hinted(anyhow::anyhow!(text), "name the folder of the control node"));
        }
        Beside::open(&self.data_dir.join("cloud.db")).context("the database cannot be used")
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Rotate(args) => rotate(args)?,
        Command::Retire(args) => retire(args)?,
        Command::Show(args) => show(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn by() -> By {
    By { actor: "outrigger-cloud ca".into(), now_s: now_s() }
}

fn failed(error: RotationError) -> anyhow::Error {
    let hint = match error {
        RotationError::UnderWay => "see who has not moved: outrigger-cloud ca show",
        RotationError::None => "there is nothing to end",
        RotationError::Ca(_) => "",
    };
    hinted(error.into(), hint)
}

fn rotate(args: &Rotate) -> anyhow::Result<()> {
    let store = args.server.store()?;
    let overlap = Duration::from_secs(u64::from(args.overlap_days) * 24 * 3600);
    let hash = ca::rotate(&args.server.ca(), overlap).map_err(failed)?;
    store.note(&by(), "ca.rotate", &hash.to_string())?;
    println!("the fleet CA {hash} takes over when the server starts next");
    advised("devices and nodes follow when they connect; see outrigger-cloud ca show");
    advised("operators: outrigger login again; other clients need the new ca/ca.pem");
    advised("make a backup after the start: an older one brings the old CA back");
    Ok(())
}

fn retire(args: &Retire) -> anyhow::Result<()> {
    let store = args.server.store()?;
    let waiting = Waiting::find(&args.server.ca(), &store)?;
    if !args.force && !waiting.is_over() {
        let text = format!(
            "{} devices and nodes and {} tokens need the CA from before",
            waiting.ids.len(),
            waiting.tokens
        );
        let hint = "see who: outrigger-cloud ca show; or --force, and they enrol again";
        return Err(hinted(anyhow::anyhow!(text), hint));
    }
    ca::retire(&args.server.ca()).map_err(failed)?;
    store.note(&by(), "ca.retire", "")?;
    println!("the CA from before is believed until the server starts next, and no longer");
    Ok(())
}

/// Who needs the CA from before.
struct Waiting {
    ids: Vec<String>,
    tokens: u64,
    /// Unix seconds until which it is believed; nothing where there is none.
    until_s: Option<i64>,
}

impl Waiting {
    fn find(folder: &Path, store: &Beside) -> anyhow::Result<Self> {
        let Some(previous) = FleetCa::previous_in(folder)? else {
            return Ok(Self { ids: Vec::new(), tokens: 0, until_s: None });
        };
        Ok(Self {
            ids: store.without_certificate_of(ca::hash_in(folder)?)?,
            tokens: store.tokens_from_before(previous.since_s(), now_s())?,
            until_s: Some(previous.until_s()),
        })
    }

    fn is_over(&self) -> bool {
        self.ids.is_empty() && self.tokens == 0
    }
}

fn show(args: &Show) -> anyhow::Result<()> {
    let (folder, store) = (args.server.ca(), args.server.store()?);
    let (hash, next) = (ca::hash_in(&folder)?, ca::is_prepared(&folder));
    let Waiting { ids, tokens, until_s } = Waiting::find(&folder, &store)?;
    if args.json {
        let text = json!({
            "ca_hash": hash, "exchange_at_next_start": next, "previous_until_s": until_s,
            "not_moved": ids, "tokens_from_before": tokens,
        });
        println!("{text:#}");
        return Ok(());
    }
    println!("fleet CA {hash}");
    if next {
        println!("another one takes its place when the server starts next");
    }
    if let Some(until_s) = until_s {
        let days = (until_s - now_s()) / 86_400;
        println!("the CA from before is believed for another {days} days");
        println!("{} devices and nodes have not moved, {tokens} tokens name it", ids.len());
        ids.iter().for_each(|id| println!("{id}"));
    }
    Ok(())
}
