//! How a bundle becomes a model that answers: hashes, a provider, room in memory, probes.

use super::shelf::Membership;
use super::source::{self, LoadError, Loaded, Seen, Source};
use super::{ActiveModel, Engine};
use crate::config::Terms;
use crate::state::{Remembered, State};
use edge::update::Target;
use models::bundle::{Bundle, BundleError};
use models::model::ModelOptions;
use models::providers::{self, Choice, ChooseError, Provider, Reason, choose};
use protocol::id::ModelName;
use protocol::manifest::Manifest;
use protocol::oip::ModelDescription;
use protocol::problem::Problem;
use protocol::residency::TooLarge;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;

/// A bundle on this device that is to answer.
pub(crate) struct Bundled<'a> {
    pub(crate) folder: &'a Path,
    /// Its signature was verified.
    pub(crate) manifest: Manifest,
    pub(crate) target: Target,
    /// Whether the cloud holds the larger variant.
    pub(crate) cloud_variant: bool,
}

/// Why a bundle must not answer anybody, or not now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProveError {
    #[error("refused: the bundle is not what was signed")]
    Bundle(#[from] BundleError),
    #[error("refused: the model does not work on this machine")]
    Choose(#[from] ChooseError),
    #[error("refused: the model does not load, or does not answer its probes as it should")]
    Load(#[from] LoadError),
    #[error("refused: {0}; the budget is [runtime] memory_budget_mb")]
    TooLarge(#[from] TooLarge),
    #[error(
        "refused: the model takes {size_bytes} bytes of memory; its memory_limit_mb allows {limit_bytes}"
    )]
    OverLimit { size_bytes: u64, limit_bytes: u64 },
    #[error("{0}")]
    NoRoom(Problem),
}

impl ProveError {
    /// Whether it may be otherwise soon.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::NoRoom(_))
    }
}

/// How long an installation waits for models in use to make room.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);

/// What is known before anything was loaded.
struct Known {
    conditions: String,
    remembered: Option<Remembered>,
}

impl Known {
    fn choice(&self) -> Option<&Choice> {
        self.remembered.as_ref().map(|known| &known.choice)
    }

    /// What the model was measured to take. It is not measured again: what goes on beside a later
    /// load would change the figure, and with it what finds room.
    fn private_bytes(&self) -> Option<u64> {
        self.remembered.as_ref().map(|known| known.private_bytes)
    }
}

impl Engine {
    /// Checks every hash of a bundle, finds the execution provider that is right for it, loads the
    /// model and answers its probes. What was found out on the same machine with the same library
    /// before is not found out again. Blocks; must be called within the async runtime.
    ///
    /// # Errors
    /// Why this bundle must not answer anybody, or not now.
    pub(crate) fn prove(
        &self,
        bundled: &Bundled<'_>,
        state: &State,
    ) -> Result<ActiveModel, ProveError> {
        let _at_work = self.marks().enter(bundled.target.bundle);
        let bundle = Bundle::open(bundled.folder, bundled.manifest.clone())?;
        let terms = self.terms(&bundle);
        let known = self.known(bundled, &terms, state);
        let membership = self.shelf.add(expected_bytes(&bundle, &known))?;
        let attempt = |provider| begin_attempt(state, bundled, &known.conditions, provider);
        let proven = self.load_first(&membership, &bundle, &terms, known.choice(), &attempt);
        if let Err(error) = state.end_attempts(bundled.target.bundle) {
            tracing::warn!(%error, "the end of an attempt is not noted");
        }
        let (choice, mut loaded) = proven.inspect_err(|_| self.shelf.failed(membership.id))?;
        if let Some(before) = known.remembered.filter(|known| known.choice == choice) {
            loaded.private_bytes = before.private_bytes;
        }
        if let Some(limit_bytes) = terms.memory_limit_bytes
            && loaded.private_bytes > limit_bytes
        {
            return Err(ProveError::OverLimit { size_bytes: loaded.private_bytes, limit_bytes });
        }
        let seen = Seen { private_bytes: loaded.private_bytes, load: loaded.took };
        self.shelf.settle(membership.id, loaded)?;
        let remembered = Remembered {
            conditions: known.conditions,
            choice: choice.clone(),
            private_bytes: seen.private_bytes,
        };
        if let Err(error) = state.remember(bundled.target.bundle, &remembered) {
            tracing::warn!(%error, "what was found out about a model is not remembered");
        }
        let options = on(terms.options, choice.provider);
        Ok(self.answering(bundled, membership, bundle, options, choice, seen))
    }

    /// The same after a restart; but what is known to find no room beside those that are loaded
    /// already is left to be loaded on demand.
    ///
    /// # Errors
    /// As [`Engine::prove`].
    pub(crate) fn restore(
        &self,
        bundled: &Bundled<'_>,
        state: &State,
    ) -> Result<ActiveModel, ProveError> {
        let bundle = Bundle::open(bundled.folder, bundled.manifest.clone())?;
        let terms = self.terms(&bundle);
        let known = self.known(bundled, &terms, state);
        let bytes = expected_bytes(&bundle, &known);
        let Some(choice) = known.choice().filter(|_| !self.shelf.has_room(bytes)).cloned() else {
            return self.prove(bundled, state);
        };
        let membership = self.shelf.add(bytes)?;
        let options = on(terms.options, choice.provider);
        let seen = Seen { private_bytes: bytes, load: Duration::ZERO };
        Ok(self.answering(bundled, membership, bundle, options, choice, seen))
    }

    fn terms(&self, bundle: &Bundle) -> Terms {
        self.runtime.terms(self.models.get(&bundle.manifest().model))
    }

    /// Whether a provider stands behind another in the order in which they are tried for this model. The
    /// CPU is the last.
    pub(crate) fn is_behind(&self, name: &ModelName, one: Provider, other: Provider) -> bool {
        let order = self.runtime.terms(self.models.get(name)).order;
        let place = |provider| order.providers().iter().position(|known| *known == provider);
        let place = |provider| place(provider).unwrap_or(usize::MAX);
        place(one) > place(other)
    }

    /// What was found out under the same conditions.
    fn known(&self, bundled: &Bundled<'_>, terms: &Terms, state: &State) -> Known {
        let conditions = format!(
            "library {}; machine {}; {terms:?}",
            self.backend.identity(),
            providers::identity(),
        );
        let remembered = state.remembered(bundled.target.bundle).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was found out about a model cannot be read");
            None
        });
        let remembered = remembered.filter(|known| known.conditions == conditions);
        Known { conditions, remembered }
    }

    /// Makes room, finds the provider unless it is known, and loads.
    fn load_first(
        &self,
        membership: &Membership,
        bundle: &Bundle,
        terms: &Terms,
        known: Option<&Choice>,
        may_try: &dyn Fn(Provider) -> Result<(), Reason>,
    ) -> Result<(Choice, Loaded), ProveError> {
        let runtime = Handle::current();
        let _use = self.shelf.enter(membership.id);
        let room = self.shelf.make_room(membership.id, ROOM_PATIENCE);
        runtime.block_on(room).map_err(ProveError::NoRoom)?;
        let tried =
            |choice: &&Choice| choice.provider == Provider::Cpu || may_try(choice.provider).is_ok();
        if let Some(choice) = known.filter(tried) {
            match self.load_on(&runtime, bundle, terms, choice.provider) {
                // What worked yesterday may be gone today: a driver, a device.
                Err(error) if choice.provider != Provider::Cpu => {
                    let (provider, why) = (choice.provider, protocol::problem::chain(&error));
                    tracing::warn!(%provider, why, "a provider does not work any more");
                }
                result => return Ok((choice.clone(), result?)),
            }
        }
        let backend = self.backend.as_ref();
        let order = terms.order.providers();
        let choice = choose(backend, bundle, &terms.options.session, order, may_try)?;
        let loaded = self.load_on(&runtime, bundle, terms, choice.provider)?;
        Ok((choice, loaded))
    }

    fn load_on(
        &self,
        runtime: &Handle,
        bundle: &Bundle,
        terms: &Terms,
        provider: Provider,
    ) -> Result<Loaded, LoadError> {
        let _turn = runtime.block_on(self.shelf.turn());
        let options = on(terms.options.clone(), provider);
        source::load(self.backend.as_ref(), bundle.clone(), &options, |model| {
            model.check_probes()?;
            Ok(())
        })
    }

    fn answering(
        &self,
        bundled: &Bundled<'_>,
        membership: Membership,
        bundle: Bundle,
        options: ModelOptions,
        choice: Choice,
        seen: Seen,
    ) -> ActiveModel {
        let kind = choice.provider.processor().instance_kind();
        let place = (bundled.folder.to_owned(), bundle);
        let source = Source::new(
            (membership.id, bundled.target.bundle),
            place,
            options,
            self.backend.clone(),
            seen,
        );
        let bundle = source.bundle();
        let description =
            ModelDescription::new(bundle.manifest(), bundle.labels(), source.instances()).on(kind);
        ActiveModel {
            target: bundled.target,
            membership,
            description: Arc::new(description),
            source: Arc::new(source),
            choice,
            statistics: Arc::default(),
            served: Arc::default(),
            cloud_variant: AtomicBool::new(bundled.cloud_variant),
            transports: Mutex::default(), // the cloud says so anew on each connection
            outlook: <_>::default(),
            left: <_>::default(),
            observers: <_>::default(),
        }
    }
}

/// Notes that a provider is about to be tried. One that cannot be noted is not tried.
fn begin_attempt(
    state: &State,
    bundled: &Bundled<'_>,
    conditions: &str,
    provider: Provider,
) -> Result<(), Reason> {
    let noted = state.begin_attempt(bundled.target.bundle, conditions, provider);
    noted.unwrap_or_else(|error| Err(Reason::DoesNotOpen { message: error.to_string() }))
}

fn on(mut options: ModelOptions, provider: Provider) -> ModelOptions {
    options.session.provider = provider;
    options
}

fn expected_bytes(bundle: &Bundle, known: &Known) -> u64 {
    known.private_bytes().unwrap_or_else(|| source::file_bytes(bundle))
}
