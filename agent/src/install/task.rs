//! The task that brings one model to its target.

use super::library::{Kept, LibraryError};
use super::{Installer, LoadError, Wanted};
use crate::engine::{ActiveModel, Engine};
use crate::sandbox::NotProven;
use ::link::durable::aside;
use edge::IllegalTransition;
use edge::backoff::Backoff;
use edge::update::{Action, Event, Target, Update};
use protocol::id::{ModelName, Variant};
use protocol::manifest::Manifest;
use protocol::problem::chain;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A failure and whether it may pass.
struct Failure {
    passing: bool,
    why: String,
}

impl Failure {
    fn passing(error: &dyn std::error::Error) -> Self {
        Self { passing: true, why: chain(error) }
    }

    fn lasting(error: &dyn std::error::Error) -> Self {
        Self { passing: false, why: chain(error) }
    }
}

pub(super) struct Task {
    installer: Arc<Installer>,
    name: ModelName,
    update: Update,
    backoff: Backoff,
    wanted: Option<Wanted>,
    proven: Option<Arc<ActiveModel>>,
    /// Whether the target is refused because it is in quarantine.
    quarantined: bool,
}

impl Task {
    pub(super) fn new(installer: Arc<Installer>, name: ModelName, active: Option<Target>) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        let update = Update::new(active);
        Self { installer, name, update, backoff, wanted: None, proven: None, quarantined: false }
    }

    /// Carries out one action after the other, for ever. A change of what is wanted interrupts
    /// fetching and waiting; checking and activating are short and run to their end.
    pub(super) async fn run(mut self, mut receiver: watch::Receiver<Option<Wanted>>) {
        let mut action = Action::Rest;
        let mut released = self.installer.released.subscribe();
        loop {
            self.installer.report(&self.name, &self.update);
            let step = tokio::select! {
                step = self.perform(action) => step,
                changed = receiver.changed() => {
                    if changed.is_err() {
                        return; // the agent is shutting down
                    }
                    let wanted = receiver.borrow_and_update().clone();
                    self.want(wanted, action)
                }
                Ok(()) = released.changed(), if action == Action::Rest => self.try_again(action),
            };
            match step {
                Ok(next) => action = next,
                Err(error) => {
                    tracing::error!(model = %self.name, %error, "a fault in the installer");
                    return;
                }
            }
        }
    }

    /// Something else is wanted: the action that follows, or the present one again.
    fn want(&mut self, wanted: Option<Wanted>, now: Action) -> Result<Action, IllegalTransition> {
        if let Some(wanted) = &wanted
            && let Ok(active) = self.installer.engine.get(&self.name, None)
            && active.target() == wanted.target
        {
            active.set_cloud_variant(wanted.cloud_variant);
            active.set_transports(wanted.transports.clone());
        }
        let next = self.update.want(wanted.as_ref().map(|w| w.target))?;
        self.wanted = wanted;
        if next.is_some() {
            self.backoff.reset();
        }
        Ok(next.unwrap_or(now))
    }

    /// Something was released from quarantine: this target, perhaps.
    fn try_again(&mut self, now: Action) -> Result<Action, IllegalTransition> {
        let target = self.update.target().filter(|_| self.quarantined);
        let Some(target) = target else { return Ok(now) };
        if self.installer.sandbox.check_quarantine(target.bundle).is_err() {
            return Ok(now);
        }
        self.backoff.reset();
        self.update.want(None)?;
        Ok(self.update.want(Some(target))?.unwrap_or(now))
    }

    async fn perform(&mut self, action: Action) -> Result<Action, IllegalTransition> {
        let result = match action {
            Action::Rest => std::future::pending().await,
            Action::Wait => {
                let delay = self.backoff.next_delay(u64::from_le_bytes(::link::entropy()));
                tokio::time::sleep(delay).await;
                Ok(Event::RetryDue)
            }
            Action::Fetch => self.fetch().await.map(|()| Event::Fetched),
            Action::Check => self.check().await.map(|()| Event::Checked),
            Action::Activate => self.activate().map(|()| Event::Activated),
        };
        match result {
            Ok(event) => self.update.handle(event),
            Err(Failure { passing, why }) => {
                self.installer.counters.install_failed(&self.name, passing, &why);
                self.update.fail(passing, why)
            }
        }
    }

    /// The manifest, if it may be installed here, and is for this model, version and variant.
    fn manifest(&self) -> Result<(Manifest, Wanted), Failure> {
        let wanted = self
            .wanted
            .clone()
            .ok_or_else(|| Failure { passing: true, why: "nothing is wanted".into() })?;
        let manifest = self.installer.repository.recall(&wanted.signed);
        let manifest = manifest.map_err(|e| Failure::lasting(&e))?;
        let named = (&manifest.model, manifest.version, manifest.variant);
        if named != (&self.name, wanted.target.version, Variant::Edge) {
            let (model, version, variant) = named;
            let why = format!("refused: the signed manifest is for {model}@{version} ({variant})");
            return Err(Failure { passing: false, why });
        }
        Ok((manifest, wanted))
    }

    /// Asks the repository for what is wanted. Whatever it refuses, it may be mended there.
    async fn admit(&self) -> Result<(), Failure> {
        let Some(Wanted { target, signed, .. }) = &self.wanted else { return Ok(()) };
        let admitted = self.installer.repository.admit((&self.name, target.version), signed).await;
        admitted.map_err(|error| Failure::passing(&error))
    }

    async fn fetch(&mut self) -> Result<(), Failure> {
        self.admit().await?;
        let (manifest, wanted) = self.manifest()?;
        let sandbox = &self.installer.sandbox;
        sandbox.check_quarantine(wanted.target.bundle).map_err(|e| self.not_proven(&e))?;
        let connection = self.installer.uplink.bulk().await.map_err(|e| Failure::passing(&e))?;
        let kept = Kept { signed: wanted.signed, cloud_variant: wanted.cloud_variant };
        let fetched = self.installer.library.fetch(&connection, &manifest, &kept).await;
        fetched.map_err(|error| {
            let mut failure = Failure::passing(&error);
            if let LibraryError::Fetch(fetch) = &error
                && !fetch.hint().is_empty()
            {
                failure.why = format!("{} ({})", failure.why, fetch.hint());
            }
            failure
        })
    }

    async fn check(&mut self) -> Result<(), Failure> {
        let (manifest, wanted) = self.manifest()?;
        let Wanted { target, cloud_variant, transports, .. } = wanted;
        let (installer, name) = (self.installer.clone(), self.name.clone());
        let prove = move || installer.prove(&name, target, manifest, cloud_variant, Engine::prove);
        let failure = match tokio::task::spawn_blocking(prove).await {
            Ok(Ok(model)) => {
                model.set_transports(transports);
                self.proven = Some(Arc::new(model));
                return Ok(());
            }
            Ok(Err(LoadError::NotProven(error))) => self.not_proven(&error),
            Ok(Err(error)) if error.is_passing() => Failure::passing(&error),
            Ok(Err(error)) => Failure::lasting(&error),
            Err(panic) => return Err(Failure::lasting(&panic)),
        };
        if !failure.passing {
            self.installer.library.remove(target.bundle);
        }
        Err(failure)
    }

    fn not_proven(&mut self, error: &NotProven) -> Failure {
        self.quarantined = matches!(error, NotProven::Quarantined(_));
        Failure { passing: error.is_passing(), why: chain(error) }
    }

    /// Durable first, then visible: after a power cut the new version answers again.
    fn activate(&mut self) -> Result<(), Failure> {
        let none = || Failure { passing: true, why: "nothing was checked".into() };
        let model = self.proven.take().ok_or_else(none)?;
        let target = model.target();
        let obsolete = self.installer.state.previous(&self.name);
        let obsolete = obsolete.map_err(|e| Failure::passing(&e))?;
        let durable = aside(|| self.installer.state.activate(&self.name, target));
        durable.map_err(|e| Failure::passing(&e))?;
        self.installer.engine.activate(&self.name, model);
        self.installer.counters.installed(&self.name, target.version.get());
        if let Some(obsolete) = obsolete.filter(|o| *o != target) {
            self.installer.library.remove(obsolete.bundle);
        }
        Ok(())
    }
}
