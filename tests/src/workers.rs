//! The cloud's worker processes, seen from outside.

use crate::world::{Cloud, with_descendants};
use anyhow::Context;

/// The processes that run models for a cloud, in the order of their ids.
///
/// # Errors
/// The cloud does not run, or this is no Linux.
pub fn of(cloud: &Cloud) -> anyhow::Result<Vec<u32>> {
    let root = cloud.process().context("the cloud does not run")?.id();
    let mut workers = with_descendants(&[root])?;
    workers.retain(|process| *process != root && runs_a_model(*process));
    workers.sort_unstable();
    Ok(workers)
}

fn runs_a_model(process: u32) -> bool {
    let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|word| word == b"run-model")
}

/// Whether a process is there and has not ended.
pub fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !['Z', 'X'].contains(&state))
}

/// Sends a signal to a worker.
///
/// # Errors
/// It has ended.
pub fn signal(process: u32, signal: i32) -> anyhow::Result<()> {
    let id = libc::pid_t::try_from(process)?;
    // SAFETY: a signal to a process that a cloud of this test started; were it gone and its id taken
    // within microseconds, another process of this test's user would get it.
    #[allow(unsafe_code)]
    let sent = unsafe { libc::kill(id, signal) };
    if sent != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}
