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
mod uploader;
mod vitals;
mod writer;

pub(crate) use recorder::{Recorder, Wanted};

use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::repository::Repository;
use crate::state::State;
use crate::uplink::Uplink;
use protocol::id::DeviceId;
use protocol::manifest::SignerKey;
use protocol::wire::{DesiredState, ReportedState};
use spool::{Spool, SpoolError};
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::sync::watch;

/// Records that wait to be written; one more is given up, and counted.
pub(crate) const QUEUE_RECORDS: usize = 4096;

/// What telemetry works with.
pub(crate) struct Parts<'a> {
    pub(crate) state_dir: &'a Path,
    pub(crate) settings: &'a config::Telemetry,
    pub(crate) device: DeviceId,
    pub(crate) trusted: Vec<SignerKey>,
    pub(crate) repository: Arc<Repository>,
    pub(crate) state: Arc<State>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) uplink: Uplink,
    pub(crate) desired: watch::Receiver<Option<DesiredState>>,
    pub(crate) reported: watch::Receiver<ReportedState>,
}

/// Starts all of it; nothing where the owner wants none.
pub(crate) fn start(parts: Parts<'_>) -> Result<Option<Arc<Recorder>>, SpoolError> {
    let Parts { settings, state, clock, counters, uplink, .. } = parts;
    if !settings.enabled {
        return Ok(None);
    }
    let on_disk = spool::Parts {
        device: parts.device,
        state: state.clone(),
        clock: clock.clone(),
        counters: counters.clone(),
        policy: settings.spool(),
        room: settings.room(),
    };
    let spool = Arc::new(Spool::open(parts.state_dir.join("telemetry"), on_disk)?);
    let (sender, queue) = mpsc::sync_channel(QUEUE_RECORDS);
    let recorder = Arc::new(Recorder::new(sender, settings.wanted()));
    let holder = key::Holder {
        spool: spool.clone(),
        recorder: recorder.clone(),
        state: state.clone(),
        repository: parts.repository,
        trusted: parts.trusted,
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
        state_dir: parts.state_dir.to_owned(),
    };
    std::thread::Builder::new()
        .name("telemetry".into())
        .spawn(move || writer.run(&queue))
        .map_err(SpoolError::Disk)?;
    tokio::spawn(holder.run(parts.desired.clone()));
    tokio::spawn(writer::follow_rollouts(recorder.clone(), parts.reported));
    let desired = parts.desired;
    let parts = uploader::Parts { spool, uplink, clock, state, counters, desired };
    tokio::spawn(uploader::Uploader::open(parts, settings)?.run());
    Ok(Some(recorder))
}

/// The device's clock, for people: nothing is ordered by it.
fn unix_ms(clock: &Clock) -> u64 {
    clock.now_ns() / 1_000_000
}
