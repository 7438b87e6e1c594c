//! Who runs on which cores: a server that is measured must not share its cores with those who ask it,
//! or what they take would look as if the server had lost it.

use anyhow::ensure;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of this machine in two parts: all but one for the programs that are measured, and one for
/// this one.
#[derive(Debug, Clone, Copy)]
pub struct Apart {
    theirs: CpuSet,
    ours: CpuSet,
}

impl Apart {
    /// Divides the cores that this thread may use.
    ///
    /// # Errors
    /// There is one only.
    pub fn new() -> anyhow::Result<Self> {
        let mut theirs = sched_getaffinity(None)?;
        ensure!(theirs.count() > 1, "this needs two cores at least");
        let last = (0..CpuSet::MAX_CPU).rev().find(|core| theirs.is_set(*core)).unwrap_or(0);
        theirs.unset(last);
        let mut ours = CpuSet::new();
        ours.set(last);
        Ok(Self { theirs, ours })
    }

    /// Runs `start` where what it starts is to run, and comes back to this program's own core.
    ///
    /// # Errors
    /// The system refuses, or `start` fails.
    pub fn start<T>(&self, start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        sched_setaffinity(None, &self.theirs)?;
        let started = start();
        sched_setaffinity(None, &self.ours)?;
        started
    }
}
