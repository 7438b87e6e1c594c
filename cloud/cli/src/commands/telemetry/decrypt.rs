//! `outrigger telemetry decrypt`: opens segments, and prints one JSON object for each record.

use anyhow::Context;
use protocol::id::{ContentHash, DeviceId};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use telemetry::key::PrivateKey;
use telemetry::open::{OpenError, Opener};
use telemetry::segment::{ENCAPSULATED_BYTES, Segment};

use crate::config::Config;
use crate::errors::hinted;

/// Arguments of `telemetry decrypt`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Segments, or folders with segments, as `outrigger telemetry pull` leaves them.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    keys: KeysArgs,
}

/// Which analytics keys open segments.
#[derive(clap::Args)]
pub(crate) struct KeysArgs {
    /// A file with an analytics key, beside those of this operator; repeatable.
    #[arg(long = "key", value_name = "FILE")]
    keys: Vec<PathBuf>,
}

impl KeysArgs {
    /// All keys at hand.
    pub(super) fn open(&self) -> anyhow::Result<Vec<PrivateKey>> {
        let mut keys = Config::open()?.analytics_keys()?;
        for path in &self.keys {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            keys.push(PrivateKey::from_hex(&text)?);
        }
        Ok(keys)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let keys = args.keys.open()?;
    let mut files = Vec::new();
    for path in &args.paths {
        find(path, &mut files)?;
    }
    files.sort(); // by device, and by number
    let mut seen: BTreeMap<(DeviceId, u64), ContentHash> = BTreeMap::new();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut unopened, mut count) = (0usize, 0usize);
    for file in &files {
        let bytes =
            std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        match print(&bytes, file, &keys, &mut seen, &mut out) {
            Ok(()) => count += 1,
            Err(Failed::Segment(error)) => {
                eprintln!("{}: {}", file.display(), protocol::problem::chain(error.as_ref()));
                unopened += 1;
            }
            // Whoever reads has had enough.
            Err(Failed::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                return Ok(());
            }
            Err(Failed::Output(error)) => return Err(error.into()),
        }
    }
    out.flush()?;
    match unopened {
        0 => Ok(()),
        _ => Err(hinted(
            format!("{unopened} of {} segments were not opened", unopened + count),
            "each is named above, with the reason",
        )),
    }
}

enum Failed {
    Segment(anyhow::Error),
    Output(std::io::Error),
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Segment(error.into())
    }
}

fn print(
    bytes: &[u8],
    path: &Path,
    keys: &[PrivateKey],
    seen: &mut BTreeMap<(DeviceId, u64), ContentHash>,
    out: &mut impl Write,
) -> Result<(), Failed> {
    let segment = Segment::parse(bytes)?;
    let header = &segment.header;
    let hash = ContentHash::of(bytes);
    match seen.insert((header.device.clone(), header.segment), hash) {
        Some(before) if before == hash => return Ok(()), // a copy says nothing new
        Some(_) => {
            let number = header.segment;
            return Err(Failed::Segment(anyhow::anyhow!(
                "another segment {number} of this device was read before: one of the two is forged"
            )));
        }
        None => {}
    }
    let key = match header.key_id {
        None => keys.first(),
        Some(id) => keys.iter().find(|key| key.public().id() == id),
    };
    let records = match (key, header.key_id) {
        (Some(key), _) => Opener::begin(bytes, &segment, key, detached(path))?.records()?,
        (None, None) => telemetry::open::in_the_clear(bytes, &segment)?,
        (None, Some(id)) => return Err(OpenError::OtherKey(id).into()),
    };
    for record in records {
        writeln!(out, "{}", record.to_json(header)).map_err(Failed::Output)?;
    }
    Ok(())
}

/// The encapsulated key that lies beside a segment of samples.
pub(super) fn detached(path: &Path) -> Option<[u8; ENCAPSULATED_BYTES]> {
    let text = std::fs::read_to_string(path.with_extension("key")).ok()?;
    hex::decode(text.trim()).ok()?.try_into().ok()
}

/// The segments at a path, and below it.
pub(super) fn find(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unreadable = || format!("cannot read {}", path.display());
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).with_context(unreadable)? {
        let own = entry.with_context(unreadable)?.path();
        if own.is_dir() || own.extension().is_some_and(|ending| ending == "seg") {
            find(&own, files)?;
        }
    }
    Ok(())
}
