//! A device brings its models to what is wanted: `edge::update` says what is to be done next, as on an agent. Files are
//! fetched and their hashes compared; what a model would do is left to its [`Behaviour`](crate::behaviour::Behaviour).

use crate::behaviour::{Behaviours, Load, Traits};
use crate::candidate::{self, Refusal};
use crate::chance::Chance;
use crate::evidence::Counting;
use edge::IllegalTransition;
use edge::backoff::Backoff;
use edge::probation::Fault;
use edge::update::{Action, Event, Target, Update};
use link::connection::Connection;
use link::frames::{self, LinkError};
use protocol::id::{ModelName, Variant};
use protocol::manifest::{InvalidSignature, Manifest, SignedManifest, SignerKey};
use protocol::problem::chain;
use protocol::transfer::{BlobRef, Download, TransferError};
use protocol::wire::{
    BlobHeader, BlobRequest, DesiredModel, DesiredState, ReportedModel, ReportedState,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two changes of mind of a device that flaps.
const FLAP: Duration = Duration::from_secs(2);
/// A confined child tries a version for so long, and for up to twice as long.
const TRIAL: Duration = Duration::from_secs(2);
/// Read from a stream at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Why a file or a version is not here.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("the cloud is away")]
    Away,
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the download is not what was signed")]
    Transfer(#[from] TransferError),
    #[error(transparent)]
    Signature(#[from] InvalidSignature),
    #[error("refused: the signed manifest is for another model, version or variant")]
    Another,
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl InstallError {
    fn is_passing(&self) -> bool {
        matches!(self, Self::Away | Self::Link(_) | Self::Transfer(_))
    }
}

/// One model on one device.
struct Model {
    update: Update,
    action: Action,
    wanted: Option<DesiredModel>,
    backoff: Backoff,
    /// What came of its trial, and how long the rest of that takes.
    judged: Option<(Duration, Result<(), Refusal>)>,
    /// How what is wanted behaves.
    load: Load,
    /// The version before the active one, and whether it answers again.
    before: u64,
    is_back: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            update: Update::new(None),
            action: Action::Rest,
            wanted: None,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(300)),
            judged: None,
            load: Load::Works,
            before: 0,
            is_back: false,
        }
    }
}

impl Model {
    fn active(&self) -> u64 {
        self.update.active().map_or(0, |active| active.version.get())
    }

    fn wanted(&self) -> u64 {
        self.wanted.as_ref().map_or(0, |wanted| wanted.version)
    }

    /// Whether it goes to and fro.
    fn flaps(&self) -> bool {
        self.load == Load::Flaps && self.before > 0 && self.active() == self.wanted()
    }

    /// The version that answers.
    fn answers(&self) -> u64 {
        if self.flaps() && self.is_back { self.before } else { self.active() }
    }

    /// The version of which the device says so.
    fn says(&self) -> u64 {
        if self.load == Load::Lies { self.wanted() } else { self.answers() }
    }
}

/// What installs models on a device.
pub(crate) struct Installer {
    pub(crate) signers: Vec<SignerKey>,
    pub(crate) connection: watch::Receiver<Option<Connection>>,
    pub(crate) desired: watch::Receiver<Option<DesiredState>>,
    pub(crate) reported: watch::Sender<ReportedState>,
    pub(crate) behaviours: Arc<Behaviours>,
    pub(crate) shadows: bool,
    pub(crate) traits: Traits,
    pub(crate) counting: Arc<Counting>,
    pub(crate) chance: Chance,
}

impl Installer {
    /// Carries out one action after the other, for ever. What is wanted anew interrupts it.
    pub(crate) async fn run(mut self) -> Result<(), IllegalTransition> {
        let mut models: BTreeMap<ModelName, Model> = BTreeMap::new();
        let mut desired = self.desired.clone();
        loop {
            if let Some(state) = desired.borrow_and_update().clone() {
                want(&mut models, &state, &self.behaviours)?;
                if models.values().any(|model| model.load == Load::Vanishes) {
                    return Ok(()); // and with it the device
                }
                self.report(&models); // who lies has nothing else to do
            }
            let next = models.iter_mut().find(|(_, model)| model.action != Action::Rest);
            let changed = match next {
                None => tokio::select! {
                    () = self.flap(&mut models) => Ok(()),
                    changed = desired.changed() => changed,
                },
                Some((name, model)) => tokio::select! {
                    done = self.perform(name, model) => {
                        done?;
                        Ok(())
                    }
                    changed = desired.changed() => changed,
                },
            };
            if changed.is_err() {
                return Ok(()); // the device is gone
            }
            self.report(&models);
        }
    }

    /// A device that flaps changes its mind; waits for ever where none does.
    async fn flap(&self, models: &mut BTreeMap<ModelName, Model>) {
        let Some((name, model)) = models.iter_mut().find(|(_, model)| model.flaps()) else {
            return std::future::pending().await;
        };
        tokio::time::sleep(FLAP).await;
        model.is_back = !model.is_back;
        self.counting.switch(name, model.answers());
    }

    async fn perform(
        &mut self,
        name: &ModelName,
        model: &mut Model,
    ) -> Result<(), IllegalTransition> {
        let done = match model.action {
            Action::Rest => return Ok(()),
            Action::Wait => {
                let delay = model.backoff.next_delay(self.chance.next());
                tokio::time::sleep(delay).await;
                Ok(Event::RetryDue)
            }
            Action::Fetch => self.fetch(name, model).await.map(|()| Event::Fetched),
            Action::Verify => {
                tokio::time::sleep(TRIAL.mul_f64(1.0 + self.chance.unit())).await;
                self.verify(name, model).map(|()| Event::Verified)
            }
            Action::Stage => Ok(Event::Staged),
            Action::WarmUp => {
                trial(model, |fault| matches!(fault, Fault::Provider { .. })).map(|()| Event::Warm)
            }
            Action::Shadow => {
                let time = model.judged.as_ref().map_or(Duration::ZERO, |(time, _)| *time);
                tokio::time::sleep(time).await;
                trial(model, |_| true).map(|()| Event::Agreed)
            }
            Action::Switch => {
                (model.before, model.is_back) = (model.answers(), false);
                self.counting.switch(name, model.wanted());
                Ok(Event::Switched)
            }
        };
        model.action = match done {
            Ok(event) => model.update.handle(event)?,
            Err(error) => model.update.fail(error.is_passing(), chain(&error))?,
        };
        Ok(())
    }

    async fn fetch(&self, name: &ModelName, model: &Model) -> Result<(), InstallError> {
        let manifest = self.manifest(name, model)?;
        let connection = self.connection.borrow().clone().ok_or(InstallError::Away)?;
        for file in manifest.files.values() {
            fetch(&connection, (*file).into()).await?;
        }
        Ok(())
    }

    /// The manifest, if it is signed and for what is wanted.
    fn manifest(&self, name: &ModelName, model: &Model) -> Result<Manifest, InstallError> {
        let wanted = model.wanted.as_ref().ok_or(InstallError::Another)?;
        let manifest = SignedManifest::from_json(&wanted.signed_manifest)?.verify(&self.signers)?;
        let named = (&manifest.model, manifest.version.get(), manifest.variant);
        let fits = named == (name, wanted.version, Variant::Edge);
        fits.then_some(manifest).ok_or(InstallError::Another)
    }

    /// What the trials will say is decided here.
    fn verify(&mut self, name: &ModelName, model: &mut Model) -> Result<(), InstallError> {
        let manifest = self.manifest(name, model)?;
        let new = self.behaviours.of(manifest.version.get());
        let active = model.update.active().map(|active| active.version.get());
        let judged = match active {
            // Nothing to compare with: it has to load.
            None => candidate::judge((&new, &new), &self.traits, false, &mut self.chance),
            Some(old) => {
                let old = self.behaviours.of(old);
                candidate::judge((&old, &new), &self.traits, self.shadows, &mut self.chance)
            }
        };
        if let (_, Err(Refusal::Crashed)) = judged {
            return Err(Refusal::Crashed.into());
        }
        model.judged = Some(judged);
        Ok(())
    }

    fn report(&self, models: &BTreeMap<ModelName, Model>) {
        let models: Vec<ReportedModel> =
            models.iter().map(|(name, model)| said(name, model)).collect();
        self.reported.send_if_modified(|now| {
            let changed = now.models != models;
            now.models = models;
            changed
        });
    }
}

/// What the trial says where faults of this kind show.
fn trial(model: &Model, shows: impl Fn(&Fault) -> bool) -> Result<(), InstallError> {
    match &model.judged {
        Some((_, Err(refusal @ Refusal::Fault(fault)))) if shows(fault) => {
            Err(refusal.clone().into())
        }
        _ => Ok(()),
    }
}

fn want(
    models: &mut BTreeMap<ModelName, Model>,
    state: &DesiredState,
    behaviours: &Behaviours,
) -> Result<(), IllegalTransition> {
    let mut wanted: BTreeMap<ModelName, &DesiredModel> = BTreeMap::new();
    for model in &state.models {
        if let Ok(name) = model.name.parse() {
            wanted.insert(name, model);
        }
    }
    models.retain(|name, _| wanted.contains_key(name));
    for (name, wanted) in wanted {
        let model = models.entry(name).or_default();
        model.load = behaviours.of(wanted.version).load;
        model.wanted = Some(wanted.clone());
        if matches!(model.load, Load::Stays | Load::Lies) {
            continue; // whatever it was told
        }
        if let Some(action) = model.update.want(target(wanted))? {
            model.action = action;
            model.backoff.reset();
            model.judged = None;
        }
    }
    Ok(())
}

fn target(wanted: &DesiredModel) -> Option<Target> {
    let signed = SignedManifest::from_json(&wanted.signed_manifest).ok()?;
    Some(Target { version: wanted.version.try_into().ok()?, bundle: signed.bundle() })
}

fn said(name: &ModelName, model: &Model) -> ReportedModel {
    let update = &model.update;
    ReportedModel {
        name: name.to_string(),
        active_version: model.says(),
        active_bundle: update.active().map(|active| active.bundle.to_string()).unwrap_or_default(),
        target_version: update.target().map_or(0, |target| target.version.get()),
        phase: update.phase().as_str().into(),
        reason: update.reason().into(),
        ..Default::default()
    }
}

/// Fetches a blob for its hash alone.
async fn fetch(connection: &Connection, blob: BlobRef) -> Result<(), InstallError> {
    let mut download = Download::new(blob, None);
    while let Some(range) = download.wanted() {
        let (mut send, mut receive) = connection.open_bi().await.map_err(LinkError::from)?;
        let ask = BlobRequest {
            sha256: blob.hash.to_string(),
            offset: range.start,
            length: range.end - range.start,
            ..Default::default()
        };
        frames::send_last(&mut send, &ask, []).await?;
        let header: BlobHeader = frames::receive(&mut receive).await?;
        download.check_header(header.size_bytes, header.offset)?;
        while download.offset() < range.end {
            let room = usize::try_from(download.room()).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let Some(piece) = receive.read_chunk(room).await? else {
                break;
            };
            download.take(&piece)?;
        }
        download.finish()?;
    }
    Ok(())
}
