//! Sends closed segments, behind everything else on the connection, until the cloud says that they are durable there.
//! `edge::spool::upload` says which and when. What breaks off is offered again; the cloud says what it has of it.

use super::spool::{Ready, Spool, SpoolError};
use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::state::State;
use crate::uplink::{Uplink, UplinkError};
use ::link::durable::aside;
use ::link::frames::{self, LinkError};
use bytes::Bytes;
use edge::spool::shelf::{Cause, Entry};
use edge::spool::upload::{Action, Uploads};
use protocol::id::ContentHash;
use protocol::mux::Priority;
use protocol::problem::{ProblemCode, chain};
use protocol::wire::{
    DesiredState, TelemetryOffer, TelemetrySegment, TelemetryTaken, TelemetryWanted,
};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a piece on the wire has at most, so that an answer never waits long for one.
const PIECE_BYTES: usize = 16 << 10;
/// How long the cloud may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a refusal without one.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Sends.
pub(super) struct Uploader {
    spool: Arc<Spool>,
    uplink: Uplink,
    clock: Arc<Clock>,
    state: Arc<State>,
    counters: Arc<Counters>,
    uploads: Uploads,
    desired: watch::Receiver<Option<DesiredState>>,
}

/// What sending works with.
pub(super) struct Parts {
    pub(super) spool: Arc<Spool>,
    pub(super) uplink: Uplink,
    pub(super) clock: Arc<Clock>,
    pub(super) state: Arc<State>,
    pub(super) counters: Arc<Counters>,
    pub(super) desired: watch::Receiver<Option<DesiredState>>,
}

/// Why a batch was not sent.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the cloud said nothing for {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the cloud wants what was not offered")]
    Unoffered,
}

impl From<::link::connection::Ended> for UploadError {
    fn from(error: ::link::connection::Ended) -> Self {
        Self::Link(error.into())
    }
}

/// A segment on its way.
struct Parcel {
    entry: Entry,
    bytes: Bytes,
    offer: TelemetrySegment,
}

impl Parcel {
    fn new(entry: Entry, ready: Ready) -> Self {
        let detached_key = ready.detached_key.map(|key| Bytes::copy_from_slice(&key));
        let sha256 = ContentHash::of(&ready.bytes);
        let offer = TelemetrySegment {
            segment: entry.segment,
            size_bytes: ready.bytes.len() as u64,
            sha256: Bytes::copy_from_slice(sha256.as_bytes()),
            detached_key: detached_key.unwrap_or_default(),
        };
        Self { entry, bytes: ready.bytes.into(), offer }
    }
}

/// What became of a batch.
#[derive(Default)]
struct Outcome {
    taken: Vec<u64>,
    refused: Vec<u64>,
    retry_after_ms: u32,
}

impl Uploader {
    /// Goes on from what was written down as sent.
    pub(super) fn open(parts: Parts, settings: &config::Telemetry) -> Result<Self, SpoolError> {
        let Parts { spool, uplink, clock, state, counters, desired } = parts;
        let uploads = Uploads::new(settings.upload(), aside(|| state.telemetry_spent())?);
        Ok(Self { spool, uplink, clock, state, counters, uploads, desired })
    }

    /// Sends for ever.
    pub(super) async fn run(mut self) {
        loop {
            let takes = |state: &Option<DesiredState>| {
                state.as_ref().is_some_and(|state| state.takes_telemetry)
            };
            if self.desired.wait_for(takes).await.is_err() {
                return; // the agent is shutting down
            }
            let _ = self.uplink.connected().await; // before anything is read for it
            let (now, now_s) = (Instant::now(), self.clock.now_s());
            match self.spool.with_shelf(|shelf| self.uploads.poll(shelf, now, now_s)) {
                Action::Wait { until: None, .. } => self.spool.changed.notified().await,
                // Something new on the shelf does not open a window, but may be what is small enough.
                Action::Wait { until: Some(until), .. } => {
                    tokio::time::sleep_until(until.into()).await;
                }
                Action::Send(batch) => self.send(batch).await,
            }
        }
    }

    async fn send(&mut self, batch: Vec<Entry>) {
        let read = |entry: Entry| Some(Parcel::new(entry.clone(), self.spool.read(&entry)?));
        let parcels: Vec<Parcel> = aside(|| batch.into_iter().filter_map(read).collect());
        if parcels.is_empty() {
            return; // damaged, and counted
        }
        match self.exchange(&parcels).await {
            Ok(outcome) => self.settle(&parcels, &outcome),
            Err(UploadError::Link(LinkError::Refused(problem))) => {
                self.counters.telemetry_not_sent(&problem.to_string());
                let asked = Duration::from_millis(problem.retry_after_ms.into());
                let wait = if asked.is_zero() { RETRY_AFTER } else { asked };
                self.uploads.handle_retry_after(wait, Instant::now());
            }
            Err(error) => {
                self.counters.telemetry_not_sent(&chain(&error));
                let entropy = u64::from_le_bytes(::link::entropy());
                self.uploads.handle_failed(Instant::now(), entropy);
            }
        }
    }

    async fn exchange(&mut self, parcels: &[Parcel]) -> Result<Outcome, UploadError> {
        let connection = self.uplink.bulk().await?;
        let (mut send, mut receive) = connection.open_bi().await?;
        send.set_priority(Priority::Telemetry);
        let segments = parcels.iter().map(|parcel| parcel.offer.clone()).collect();
        frames::send(&mut send, &TelemetryOffer { segments }).await?;
        let wanted: TelemetryWanted = patiently(frames::receive(&mut receive)).await?;
        let TelemetryWanted { wants, taken, refused, retry_after_ms } = wanted;
        let mut outcome = Outcome { taken, refused, retry_after_ms };
        if wants.is_empty() {
            receive.stop(ProblemCode::None);
            return Ok(outcome);
        }
        for want in &wants {
            let parcel = parcels.iter().find(|parcel| parcel.entry.segment == want.segment);
            let from = usize::try_from(want.offset).unwrap_or(usize::MAX);
            let rest = parcel.filter(|parcel| from <= parcel.bytes.len());
            let mut rest = rest.ok_or(UploadError::Unoffered)?.bytes.slice(from..);
            while !rest.is_empty() {
                let piece = rest.split_to(PIECE_BYTES.min(rest.len()));
                self.spend(piece.len() as u64);
                patiently(send.write_chunk(piece)).await?;
            }
        }
        send.finish()?;
        let said: TelemetryTaken = patiently(frames::receive(&mut receive)).await?;
        outcome.taken.extend(said.taken);
        outcome.refused.extend(said.refused);
        outcome.retry_after_ms = outcome.retry_after_ms.max(said.retry_after_ms);
        Ok(outcome)
    }

    /// What goes over the wire counts, whether it arrives or not.
    fn spend(&mut self, bytes: u64) {
        if let Some(spent) = self.uploads.save(bytes) {
            // What cannot be written down is spent all the same, until the next start.
            let _ = aside(|| self.state.keep_telemetry_spent(&spent));
        }
        self.uploads.handle_sent(bytes);
        self.counters.telemetry_sent(bytes);
    }

    fn settle(&mut self, parcels: &[Parcel], outcome: &Outcome) {
        for parcel in parcels {
            let segment = &parcel.entry.segment;
            let gone = if outcome.taken.contains(segment) {
                self.counters.telemetry_taken(parcel.entry.records);
                None
            } else if outcome.refused.contains(segment) {
                Some(Cause::Refused)
            } else {
                continue;
            };
            aside(|| self.spool.forget(&parcel.entry, gone));
        }
        if !outcome.taken.is_empty() {
            self.uploads.handle_taken();
        }
        match outcome.retry_after_ms {
            0 if outcome.taken.is_empty() && outcome.refused.is_empty() => {
                let entropy = u64::from_le_bytes(::link::entropy());
                self.uploads.handle_failed(Instant::now(), entropy);
            }
            0 => {}
            wait => {
                let wait = Duration::from_millis(wait.into());
                self.uploads.handle_retry_after(wait, Instant::now());
            }
        }
    }
}

async fn patiently<T>(wait: impl Future<Output = Result<T, LinkError>>) -> Result<T, UploadError> {
    let end = tokio::time::timeout(PATIENCE, wait).await;
    Ok(end.map_err(|_| UploadError::Silent)??)
}
