//! `outrigger telemetry pull`: copies what devices have recorded, as they have sealed it.

use anyhow::{Context, bail};
use link::durable::{self, Access};
use protocol::id::{ContentHash, DeviceId};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use telemetry::segment::Segment;

use crate::client::Client;
use crate::config::Config;
use crate::errors::hinted;
use crate::output;

/// Remembers how far a folder is, so that the next pull asks only for what is new.
const MARK: &str = "pulled";

/// Arguments of `telemetry pull`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder; what is there already is not fetched again.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A segment as the API lists it.
#[derive(Debug, Deserialize)]
struct Listed {
    id: i64,
    device: DeviceId,
    segment: u64,
    size_bytes: u64,
    sha256: ContentHash,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let client = Client::open(&Config::open()?)?;
    durable::create_private_folder(&args.folder)
        .with_context(|| format!("cannot make the folder {}", args.folder.display()))?;
    let mark = args.folder.join(MARK);
    let mut after = read_mark(&mark, client.cloud())?;
    let (mut segments, mut bytes) = (0u64, 0u64);
    loop {
        let path = format!("/v1/telemetry/segments?after={after}");
        let listed: Vec<Listed> = serde_json::from_value(client.list(&path, "segments")?)?;
        let Some(last) = listed.last().map(|segment| segment.id) else { break };
        for segment in &listed {
            fetch(&client, &args.folder, segment)?;
            segments += 1;
            bytes += segment.size_bytes;
        }
        after = last;
        let text = format!("{} {after}\n", client.cloud());
        durable::write(&mark, text.as_bytes(), Access::Private)
            .with_context(|| format!("cannot write {}", mark.display()))?;
    }
    if args.json {
        let told = serde_json::json!({ "segments": segments, "bytes": bytes });
        output::line(&told.to_string());
    } else {
        eprintln!("{segments} segments, {bytes} bytes");
    }
    Ok(())
}

fn read_mark(mark: &Path, cloud: &str) -> anyhow::Result<i64> {
    let Ok(text) = std::fs::read_to_string(mark) else { return Ok(0) };
    match text.trim().split_once(' ') {
        Some((from, after)) if from == cloud => Ok(after.parse().unwrap_or(0)),
        _ => Err(hinted(
            format!("{} was filled from another cloud", mark.display()),
            "name another folder: the numbers of two clouds cannot be mixed",
        )),
    }
}

fn fetch(client: &Client, folder: &Path, listed: &Listed) -> anyhow::Result<()> {
    let Listed { id, device, segment, sha256, .. } = listed;
    let answer = client.fetch(&format!("/v1/telemetry/segments/{id}"));
    let Some((bytes, key)) = answer? else {
        return Ok(()); // deleted since it was listed
    };
    if ContentHash::of(&bytes) != *sha256 {
        bail!("segment {segment} of {device} is not what the cloud says that it is");
    }
    let parsed = Segment::parse(&bytes)?;
    if (&parsed.header.device, parsed.header.segment) != (device, *segment) {
        bail!("segment {segment} of {device} is another one");
    }
    let folder = folder.join(device.as_str());
    durable::create_private_folder(&folder)?;
    if let Some(key) = key {
        durable::write(
            &folder.join(format!("{segment:012}.key")),
            key.as_bytes(),
            Access::Private,
        )?;
    }
    let path = folder.join(format!("{segment:012}.seg"));
    durable::write(&path, &bytes, Access::Private)
        .with_context(|| format!("cannot write {}", path.display()))
}
