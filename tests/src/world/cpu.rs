//! What processes cost: time on a processor, by the nanosecond.

use anyhow::Context;
use std::collections::BTreeMap;
use std::fs;

/// Measures the processor time of some processes and all that they started, from
/// `/proc/PID/task/*/schedstat`; the clock ticks of `/proc/PID/stat` are too coarse for a call.
pub struct CpuMeter {
    roots: Vec<u32>,
    before: BTreeMap<u32, u64>,
}

impl CpuMeter {
    /// Starts measuring.
    ///
    /// # Errors
    /// A process is gone, or this is no Linux.
    pub fn start(roots: &[u32]) -> anyhow::Result<Self> {
        Ok(Self { roots: roots.to_vec(), before: nanoseconds(roots)? })
    }

    /// Seconds since the start. What a thread used that has ended meanwhile is not in it.
    ///
    /// # Errors
    /// A process is gone.
    pub fn seconds(&self) -> anyhow::Result<f64> {
        let now = nanoseconds(&self.roots)?;
        let since = |(thread, now): (&u32, &u64)| {
            now.saturating_sub(self.before.get(thread).copied().unwrap_or(0))
        };
        Ok(now.iter().map(since).sum::<u64>() as f64 / 1e9)
    }
}

/// By thread.
fn nanoseconds(roots: &[u32]) -> anyhow::Result<BTreeMap<u32, u64>> {
    let mut by_thread = BTreeMap::new();
    for process in with_descendants(roots)? {
        let tasks = fs::read_dir(format!("/proc/{process}/task"));
        for task in tasks.with_context(|| format!("process {process} is gone"))? {
            let task = task?;
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let first = text.split(' ').next().context("an empty schedstat")?;
            let id = task.file_name().to_string_lossy().parse()?;
            by_thread.insert(id, first.parse()?);
        }
    }
    Ok(by_thread)
}

/// These processes, and those that they started.
///
/// # Errors
/// This is no Linux.
pub fn with_descendants(roots: &[u32]) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Ok(process) = name.to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        // The program's name stands in brackets, and may hold anything.
        let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
        if let Some(Ok(parent)) = behind.split_whitespace().nth(1).map(str::parse::<u32>) {
            parents.push((process, parent));
        }
    }
    let mut found = roots.to_vec();
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        at += 1;
    }
    Ok(found)
}
