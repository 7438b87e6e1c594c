//! What a fleet's telemetry comes to: segments in the cloud, opened by the operator, as plain JSON values.

pub mod chaos;
pub mod flash;
pub mod kills;

use crate::world::{Operator, World, eventually};
use anyhow::Context;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// An agent that records everything, and does so at once.
pub const EVERYTHING: &str = "[telemetry]\nevents = \"all\"\ncommit_s = 1\nsummary_s = 1\nsegment_s = 1\n\
    [telemetry.samples]\nmodels = [\"fashion\"]\nhard = 1.0\nrandom = 1.0\nper_hour = 100000\n\
    [log]\nlevel = \"debug\"\n[link]\nreconnect_max_s = 1\n";

/// Copies what is new in the cloud to `folder`, and opens all that is there.
///
/// # Errors
/// What the operator's command printed.
pub fn records(operator: &Operator, folder: &Path) -> anyhow::Result<Vec<Value>> {
    let folder = folder.to_string_lossy();
    operator.run(&["telemetry", "pull", &folder])?;
    let text = operator.run(&["telemetry", "decrypt", &folder])?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Waits until what is in the cloud meets a condition.
///
/// # Errors
/// It never does; with how many records there were.
pub fn wait_for(
    world: &World,
    what: &str,
    met: impl Fn(&[Value]) -> bool,
) -> anyhow::Result<Vec<Value>> {
    let folder = world.folder().join("pulled");
    let mut last = 0;
    let found = eventually(what, Duration::from_secs(60), || {
        let all = records(&world.operator, &folder).ok()?;
        last = all.len();
        met(&all).then_some(all)
    });
    found.with_context(|| format!("{last} records"))
}

/// The records of one kind, by the names that they have in JSON.
pub fn of_kind<'a>(records: &'a [Value], event: &str) -> Vec<&'a Value> {
    let event = format!("outrigger.{event}");
    records.iter().filter(|record| record["event"] == event.as_str()).collect()
}

/// The numbers of records.
pub fn numbers(records: &[Value]) -> Vec<u64> {
    records.iter().filter_map(|record| record["number"].as_u64()).collect()
}

/// The numbers of all records that an agent's log says are durable.
pub fn acknowledged(log: &str) -> BTreeSet<u64> {
    let field = |line: &str, name: &str| -> Option<u64> {
        let from = line.split(name).nth(1)?;
        from.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let written = log.lines().filter(|line| line.contains("telemetry is written"));
    let ranges = written.filter_map(|line| Some(field(line, "first=")?..=field(line, "last=")?));
    ranges.flatten().collect()
}

/// Whether any file below a folder holds these bytes.
///
/// # Errors
/// One cannot be read.
pub fn holds(folder: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let found = match path.symlink_metadata()?.file_type() {
            kind if kind.is_dir() => holds(&path, bytes)?,
            kind if kind.is_file() => {
                std::fs::read(&path)?.windows(bytes.len()).any(|window| window == bytes)
            }
            _ => false,
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
