//! What this device tells of itself, sealed for its operator before it touches the disk.
//!
//! A request leaves sums and, now and then, an event with the [`recorder`]; a thread of its own ([`writer`]) writes them
//! down in groups ([`spool`], put in order after a crash by [`recovery`]); and the [`uploader`] sends closed segments
//! over the connection to the cloud, behind everything else, until they are acknowledged as durable there. For whom is
//! sealed, an operator says ([`mod@key`]), not the cloud. When, how much and what goes first is decided in `edge::spool`.

mod key;
pub(crate) mod recorder;
mod recovery;
mod spool;
mod sums;
#[cfg(test)]
pub(crate) mod tests;
mod uploader;
mod vitals;
mod writer;

pub(crate) use recorder::{Recorder, Wanted};

use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::repository::Repository;
use protocol::wire::{DesiredState, ReportedState};
use spool::{Spool, SpoolError};
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::sync::watch;

/// Records that wait to be written; one more is given up, and counted.
pub(crate) const QUEUE_RECORDS: usize = 4096;

/// What the cloud wants, and what it is told of versions.
pub(crate) type Heard = (watch::Receiver<Option<DesiredState>>, watch::Receiver<ReportedState>);

/// Starts all of it; nothing where the owner wants none.
pub(crate) fn start(
    state_dir: &Path,
    settings: &config::Telemetry,
    repository: Arc<Repository>,
    counters: Arc<Counters>,
    (desired, reported): Heard,
) -> Result<Option<Arc<Recorder>>, SpoolError> {
    if !settings.enabled {
        return Ok(None);
    }
    let (state, clock, uplink) =
        (repository.state.clone(), repository.clock.clone(), repository.uplink.clone());
    let on_disk = spool::Parts {
        device: repository.device.clone(),
        state: state.clone(),
        clock: clock.clone(),
        counters: counters.clone(),
        policy: settings.spool(),
        room: settings.room(),
    };
    let spool = Arc::new(Spool::open(state_dir.join("telemetry"), on_disk)?);
    let (sender, queue) = mpsc::sync_channel(QUEUE_RECORDS);
    let recorder = Arc::new(Recorder::new(sender, settings.wanted()));
    let holder = key::Holder {
        spool: spool.clone(),
        recorder: recorder.clone(),
        repository,
        counters: counters.clone(),
    };
    holder.restore();
    let writer = writer::Writer {
        spool: spool.clone(),
        recorder: recorder.clone(),
        clock: clock.clone(),
        uplink: uplink.clone(),
        policy: settings.spool(),
        every: settings.summary(),
        state_dir: state_dir.to_owned(),
    };
    let thread = std::thread::Builder::new().name("telemetry".into());
    thread.spawn(move || writer.run(&queue)).map_err(SpoolError::Disk)?;
    tokio::spawn(holder.run(desired.clone()));
    tokio::spawn(writer::follow_rollouts(recorder.clone(), reported));
    let parts = uploader::Parts { spool, uplink, clock, state, counters, desired };
    tokio::spawn(uploader::Uploader::open(parts, settings)?.run());
    Ok(Some(recorder))
}

/// The device's clock, for people: nothing is ordered by it.
fn unix_ms(clock: &Clock) -> u64 {
    clock.now_ns() / 1_000_000
}
