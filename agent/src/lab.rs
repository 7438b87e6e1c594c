//! Models that are timed here for whoever builds them, where this device's owner allows it
//! (`[lab] enabled`): an order in the desired state is verified, its files are fetched, the models run
//! in turn in a confined child ([`crate::sandbox`]), and the report goes up with the reported state.
//! Nothing of that is installed, or answers a request; the files go with the report.
//!
//! One order at a time, and at the lowest urgency of processor and link. A report stands until the
//! cloud no longer asks for it, so it survives a broken link; after a restart the order is carried out
//! once more.

use crate::clock::Clock;
use crate::counters::Counters;
use crate::sandbox::{Course, Failed, Sandbox};
use crate::uplink::Uplink;
use crate::uplink::blob::{FetchError, Incoming};
use crate::uplink::gate::Gate;
use edge::backoff::Backoff;
use protocol::id::DeviceId;
use protocol::manifest::SignerKey;
use protocol::measurement::{InvalidOrder, Measured, Order, Report, SignedOrder};
use protocol::problem::chain;
use protocol::wire::{DesiredState, MeasurementReport, ReportedState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The folder of models that are here only to be timed.
const FOLDER: &str = "lab";

/// What the lab works with.
pub(crate) struct Parts {
    pub(crate) device: DeviceId,
    pub(crate) enabled: bool,
    pub(crate) trusted: Vec<SignerKey>,
    /// Of a runtime that runs models here, in one line.
    pub(crate) runtime: String,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) uplink: Uplink,
    pub(crate) clock: Arc<Clock>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) reported: watch::Sender<ReportedState>,
    pub(crate) gate: Arc<Gate>,
}

/// Carries out orders.
pub(crate) struct Lab {
    parts: Parts,
    folder: PathBuf,
    incoming: Incoming,
}

/// Why an order was not carried out.
#[derive(Debug, thiserror::Error)]
enum LabError {
    #[error("this device's owner does not let models be measured on it")]
    NotAllowed,
    #[error(transparent)]
    Order(#[from] InvalidOrder),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Run(#[from] Failed),
    #[error("the folder of measured models cannot be used")]
    Folder(#[from] io::Error),
}

impl LabError {
    /// Whether the same order may succeed later.
    fn is_passing(&self) -> bool {
        match self {
            Self::Fetch(FetchError::Transfer(error)) => error.keeps_partial(),
            Self::Fetch(error) => !matches!(error, FetchError::Disk { .. }),
            _ => false,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::NotAllowed => "[lab] enabled = true in the device's agent.toml allows it",
            Self::Order(InvalidOrder::UnknownKey(_)) => {
                "a device trusts the operators' keys that were known when it enrolled"
            }
            Self::Order(InvalidOrder::Expired(_)) => "are the clocks right? Order it anew",
            Self::Fetch(error) => error.hint(),
            Self::Run(Failed::Killed(_) | Failed::Interrupted(_)) => "order it anew",
            _ => "",
        }
    }
}

/// An order that the cloud asks for, by its id.
struct Asked {
    id: String,
    signed: SignedOrder,
}

/// What cannot even be read has no id to report under, and is left out.
fn asked(desired: Option<&DesiredState>) -> Vec<Asked> {
    let read = |json: &bytes::Bytes| {
        let signed = SignedOrder::from_json(json).ok()?;
        Some(Asked { id: signed.read().ok()?.id, signed })
    };
    desired.into_iter().flat_map(|state| &state.measurements).filter_map(read).collect()
}

impl Lab {
    /// What a former process left in the folder is thrown away.
    pub(crate) fn new(state_dir: &Path, parts: Parts) -> io::Result<Self> {
        let folder = state_dir.join(FOLDER);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let incoming = Incoming::new(
            folder.clone(),
            (parts.gate.clone(), None), // peers have what is installed, and this is not
            parts.counters.clone(),
        )?;
        Ok(Self { parts, folder, incoming })
    }

    /// Follows the desired state for ever.
    pub(crate) async fn run(self, mut desired: watch::Receiver<Option<DesiredState>>) {
        loop {
            let asked = asked(desired.borrow_and_update().as_ref());
            self.forget_all_but(&asked);
            match asked.iter().find(|order| !self.has_reported(&order.id)) {
                Some(order) => {
                    let report = self.carry_out(&order.signed).await;
                    self.report(&order.id, &report);
                }
                None if desired.changed().await.is_err() => return, // the agent is shutting down
                None => {}
            }
        }
    }

    /// Tries until it is done, or can no longer be.
    async fn carry_out(&self, signed: &SignedOrder) -> Report {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let error = match self.attempt(signed).await {
                Ok(measured) => return Report::Measured(measured),
                Err(error) => error,
            };
            if !error.is_passing() {
                return Report::Refused { why: chain(&error), hint: error.hint().to_owned() };
            }
            let known = if let LabError::Fetch(fetch) = &error { fetch.not_before() } else { None };
            let delay = backoff.next_delay(u64::from_le_bytes(::link::entropy()));
            tokio::time::sleep(known.unwrap_or(delay)).await;
        }
    }

    async fn attempt(&self, signed: &SignedOrder) -> Result<Measured, LabError> {
        if !self.parts.enabled {
            return Err(LabError::NotAllowed);
        }
        let now_s = self.parts.clock.now_s();
        let order = signed.verify(&self.parts.trusted, &self.parts.device, now_s)?;
        let fetched = self.fetch(&order).await;
        let measured = match fetched {
            Ok(()) => self.measure(&order).await,
            Err(error) if error.is_passing() => return Err(error), // what is here is continued
            Err(error) => Err(error),
        };
        self.clear();
        measured
    }

    async fn fetch(&self, order: &Order) -> Result<(), LabError> {
        for file in order.files() {
            if !self.folder.join(file.sha256.to_string()).exists() {
                self.incoming.fetch(&self.parts.uplink, (*file).into(), &[]).await?;
            }
        }
        Ok(())
    }

    async fn measure(&self, order: &Order) -> Result<Measured, LabError> {
        let threads = usize::from(order.threads);
        let course = Course {
            folder: self.folder.clone(),
            models: order.models.iter().map(|model| model.sha256.to_string()).collect(),
            inputs: order.inputs.sha256.to_string(),
            threads,
            time: Duration::from_secs(order.time_s.into()),
        };
        let sandbox = self.parts.sandbox.clone();
        let timing = tokio::task::spawn_blocking(move || sandbox.time(course)).await;
        let timing = timing.map_err(|panic| io::Error::other(panic.to_string()))??;
        Ok(Measured {
            machine: models::machine::own(&self.parts.runtime, threads),
            models: timing.models,
            peak_memory_bytes: timing.peak_memory_bytes,
        })
    }

    /// What cannot be removed now is removed at the next start.
    fn clear(&self) {
        for entry in std::fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
    }

    fn has_reported(&self, id: &str) -> bool {
        self.parts.reported.borrow().measured.iter().any(|report| report.id == id)
    }

    fn report(&self, id: &str, report: &Report) {
        self.parts.counters.measured(id, report);
        let said = MeasurementReport { id: id.to_owned(), report: report.to_json().into() };
        self.parts.reported.send_modify(|state| state.measured.push(said));
    }

    fn forget_all_but(&self, asked: &[Asked]) {
        let is_asked = |report: &MeasurementReport| asked.iter().any(|order| order.id == report.id);
        self.parts.reported.send_if_modified(|state| {
            let before = state.measured.len();
            state.measured.retain(is_asked);
            state.measured.len() != before
        });
    }
}
