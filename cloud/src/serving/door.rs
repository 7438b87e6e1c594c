//! The gate before all models, shared by everybody who knocks: agents over QUIC, clients over HTTPS.
//! What it decides is `fleet::admission`'s; here it has its lock, its entropy, and its counters.

use fleet::admission::{
    Ask, Counts, Gate, Identity, LimitPolicy, ModelSlot, Permit, Places, Refused,
};
use fleet::batch::{DropReason, Load};
use link::metrics::{Histogram, Scale};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::settings::AdmissionSettings;
use crate::access;

/// The gate.
#[derive(Debug)]
pub struct Door {
    gate: Mutex<Gate>,
    settings: AdmissionSettings,
    entropy: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
    runs: AtomicU64,
    runs_shared: AtomicU64,
    requests_per_run: Histogram,
}

/// A place that was given; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    door: Arc<Door>,
    permit: Option<Permit>,
}

impl Door {
    /// A gate without models.
    pub fn new(settings: AdmissionSettings) -> Self {
        let seed = u64::from_le_bytes(link::entropy());
        Self {
            gate: Mutex::new(Gate::new(settings.gate)),
            settings,
            entropy: AtomicU64::new(seed),
            dropped: Default::default(),
            runs: AtomicU64::new(0),
            runs_shared: AtomicU64::new(0),
            requests_per_run: Histogram::new(Scale::Things),
        }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on requests for this model are taken.
    pub fn add_model(&self, model: ModelSlot, policy: LimitPolicy) {
        self.gate().add_model(model, policy);
    }

    /// It never came to be.
    pub(super) fn remove_model(&self, model: ModelSlot) {
        self.gate().remove_model(model);
    }

    /// Takes a request on its header, or refuses it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn admit(self: &Arc<Self>, who: &access::Identity, ask: &Ask) -> Result<Place, Refused> {
        let terms = self.settings.terms_of(&who.tenant);
        let identity = Identity { tenant: who.tenant.as_str(), caller: &who.caller, terms };
        let entropy = self.entropy();
        let permit = self.gate().admit(&identity, ask, Instant::now(), entropy)?;
        Ok(Place { door: self.clone(), permit: Some(permit) })
    }

    /// Spreads those refused together; nobody has to be unable to guess it. A SplitMix64 step.
    fn entropy(&self) -> u64 {
        let mut mixed = self.entropy.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// How much a model has to do.
    pub(super) fn report(&self, model: ModelSlot, load: Load) {
        self.gate().handle_load(model, load, Instant::now());
    }

    pub(super) fn dropped(&self, reason: DropReason) {
        let index = DropReason::ALL.iter().position(|r| *r == reason).unwrap_or(0);
        self.dropped[index].fetch_add(1, Relaxed);
    }

    pub(super) fn ran(&self, requests: usize) {
        self.runs.fetch_add(1, Relaxed);
        self.runs_shared.fetch_add(u64::from(requests > 1), Relaxed);
        self.requests_per_run.record(requests as u64);
    }

    /// Requests taken and refused so far.
    pub fn counts(&self) -> Counts {
        self.gate().counts()
    }

    /// Requests that were taken and ended without a run.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().zip(self.dropped.iter().map(|count| count.load(Relaxed)))
    }

    /// Runs so far, and how many of them were of several requests.
    pub fn runs(&self) -> (u64, u64) {
        (self.runs.load(Relaxed), self.runs_shared.load(Relaxed))
    }

    /// How many requests shared a run.
    pub fn requests_per_run(&self) -> &Histogram {
        &self.requests_per_run
    }

    /// Items in flight and their limit, of a model.
    pub fn places(&self, model: ModelSlot) -> Option<Places> {
        self.gate().places(model)
    }
}

impl Place {
    /// What the header did not say; clamped to the same terms.
    ///
    /// # Errors
    /// [`Refused`]: there is no time, or no memory, for what it really is.
    pub fn specify(&mut self, ask: &Ask) -> Result<(), Refused> {
        let entropy = self.door.entropy();
        let Some(permit) = &mut self.permit else { return Ok(()) };
        self.door.gate().specify(permit, ask, entropy)
    }

    /// The permit: whose share it is, how urgent, and how long it may take.
    pub fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// Time to the deadline, from the moment of admission, clamped.
    pub fn remaining(&self) -> Duration {
        self.permit.as_ref().map_or(Duration::ZERO, Permit::remaining)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.door.gate().release(permit, Instant::now());
        }
    }
}
