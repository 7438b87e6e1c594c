//! Which request is taken now, and which is refused at once with the time to come back.
//!
//! [`Gate`] decides on the header, before a byte of the tensors is read: so a refusal costs the
//! server next to nothing. It asks, in this order:
//!
//! 1. May this caller (device or key), and its tenant, ask now? A rate each, by a token bucket in
//!    whole nanoseconds, and a number of requests in flight each.
//! 2. Is there memory for its tensors?
//! 3. Has the model a place? How many there are is found by measurement: the limit follows the
//!    *standing queue*, as CoDel sees it (module `limit` has the reasons and the sources).
//! 4. If they are taken: does the tenant hold its share of them? A tenant below its share gets a
//!    place in any case (module `line`); with start-time fair queueing in [`crate::batch`] behind
//!    it, a tenant that floods waits and is refused, and another one finds a place and a short
//!    line.
//! 5. Will the answer be in time, by the measured backlog and run time?
//!
//! What nobody waits for ([`Ask::background`]) is another matter: one at a time for each model, while
//! fewer requests are in flight than there are sessions, and half of the memory is free. It takes no
//! place, no rate and no share from anybody, and `batch` runs it after all others.
//!
//! Priority and deadline are clamped to what the identity may ask for. A refusal names its reason,
//! a hint, and `retry_after`: the time that the backlog takes, stretched by the share of requests
//! that is refused, and spread over twice that by the entropy given, so that those refused
//! together do not return together.
//!
//! The gate keeps state for a bounded number of identities and nothing for each refused request.
//!
//! # The loop that drives it
//!
//! ```
//! use fleet::admission::{Ask, Gate, GatePolicy, Identity, LimitPolicy, ModelSlot, Quota, Terms};
//! use fleet::batch::{Batcher, Policy};
//! # use outrigger_fleet as fleet;
//! use std::time::{Duration, Instant};
//!
//! let now = Instant::now();
//! let mut gate = Gate::new(GatePolicy::default());
//! let mut batcher = Batcher::new(Policy::default());
//! gate.add_model(ModelSlot(0), LimitPolicy::default());
//!
//! // A header has arrived, from an identity that its certificate or key proves.
//! let identity = Identity { tenant: "acme", caller: "d-53c65b3f", terms: Terms::default() };
//! let ask = Ask { model: ModelSlot(0), items: 1, bytes: 3136, priority: 9, remaining: None,
//!     background: false };
//! let permit = gate.admit(&identity, &ask, now, 0x5eed)?; // or a Problem::from(refused)
//! assert_eq!(permit.priority(), 0, "clamped to the terms");
//!
//! // Its tensors are read, a `batch::Request` is made of the permit's flow, weight, priority and
//! // deadline, and the batcher is driven. After its actions were taken:
//! gate.handle_load(ModelSlot(0), batcher.load(), now);
//!
//! // However the request ended: its permit goes back.
//! gate.release(permit, now);
//! # Ok::<(), fleet::admission::Refused>(())
//! ```

mod identities;
mod limit;
mod line;
mod rate;
mod refusal;
mod single;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol::limits::{DEADLINE_MAX_MS, IDENTITIES_MAX};

pub use identities::Quota;
pub use limit::LimitPolicy;
pub use rate::Rate;
pub use refusal::{Counts, RefusalKind, Refused};
pub use single::Admission;

use crate::batch::{FlowId, Load};
use identities::{Denied, Identities};
use line::{Claim, Line};

/// The rules of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatePolicy {
    /// Tensor bytes of all requests in flight.
    pub tensor_bytes: u64,
    /// Tenants, and callers, that are remembered at a time.
    pub identities: usize,
    /// The deadline of a request that names none, unless its terms are shorter.
    pub default_deadline: Duration,
}

impl Default for GatePolicy {
    fn default() -> Self {
        Self {
            tensor_bytes: 1 << 30,
            identities: IDENTITIES_MAX,
            default_deadline: Duration::from_secs(1),
        }
    }
}

/// What an identity may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The tenant's share beside others; 1 is usual.
    pub weight: u32,
    /// What the whole tenant may do.
    pub tenant: Quota,
    /// What this device or key may do.
    pub caller: Quota,
    /// The highest priority; a higher one counts as this.
    pub priority_max: u8,
    /// The longest deadline; a longer one counts as this.
    pub deadline_max: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            weight: 1,
            tenant: Quota::UNLIMITED,
            caller: Quota::UNLIMITED,
            priority_max: 0,
            deadline_max: Duration::from_millis(DEADLINE_MAX_MS as u64),
        }
    }
}

/// Who asks, as its certificate or key proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// Whom it belongs to.
    pub tenant: &'a str,
    /// The device or key, unique over all tenants.
    pub caller: &'a str,
    /// What it may ask for.
    pub terms: Terms,
}

/// A model's number at the gate, given by its owner. The number of a model that was removed is not
/// to be used again while permits for it are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelSlot(pub u32);

/// What is asked for, as the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Which model.
    pub model: ModelSlot,
    /// Items in the request: the first dimension of its inputs.
    pub items: u32,
    /// Size of its tensors.
    pub bytes: u64,
    /// 0 (default) and up.
    pub priority: u8,
    /// Time until its answer is of no use; the policy's default when absent.
    pub remaining: Option<Duration>,
    /// Nobody waits for the answer.
    pub background: bool,
}

/// A place that was given. It must go back by [`Gate::release`], however the request ends.
#[derive(Debug)]
#[must_use = "a permit that is not released holds its place for ever"]
pub struct Permit {
    /// Tenant and caller, where it counts for them.
    who: Option<(Arc<str>, Arc<str>)>,
    model: ModelSlot,
    bytes: u64,
    claim: Claim,
    terms: Terms,
}

impl Permit {
    /// The tenant as a flow of the batcher.
    pub fn flow(&self) -> FlowId {
        self.claim.flow
    }

    /// The tenant's weight.
    pub fn weight(&self) -> u32 {
        self.claim.weight
    }

    /// The priority, clamped.
    pub fn priority(&self) -> u8 {
        self.claim.priority
    }

    /// Time to the deadline, from the moment of admission, clamped.
    pub fn remaining(&self) -> Duration {
        self.claim.remaining
    }

    /// Whether nobody waits for the answer.
    pub fn is_background(&self) -> bool {
        self.claim.background
    }
}

/// What admission knows of a model, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Items in flight.
    pub in_flight: u64,
    /// The limit that was found.
    pub limit: u32,
}

/// Admission to one server.
#[derive(Debug)]
pub struct Gate {
    policy: GatePolicy,
    tenants: Identities,
    callers: Identities,
    lines: BTreeMap<ModelSlot, Line>,
    bytes: u64,
    counts: Counts,
}

impl Gate {
    /// A gate without models.
    pub fn new(policy: GatePolicy) -> Self {
        Self {
            policy,
            tenants: Identities::new(policy.identities),
            callers: Identities::new(policy.identities),
            lines: BTreeMap::new(),
            bytes: 0,
            counts: Counts::default(),
        }
    }

    /// From now on requests for this model are taken. A model that is there already stays as it is.
    pub fn add_model(&mut self, model: ModelSlot, policy: LimitPolicy) {
        self.lines.entry(model).or_insert_with(|| Line::new(policy));
    }

    /// From now on requests for this model are refused; permits that were given are released as
    /// ever.
    pub fn remove_model(&mut self, model: ModelSlot) {
        self.lines.remove(&model);
    }

    /// The state of a model's batcher, after its actions were taken.
    pub fn handle_load(&mut self, model: ModelSlot, load: Load, now: Instant) {
        if let Some(line) = self.lines.get_mut(&model) {
            line.observe(load, now);
        }
    }

    /// Takes a request, or refuses it. `entropy` spreads the time to come back.
    ///
    /// # Errors
    /// [`Refused`]; it is counted, and nothing is held.
    pub fn admit(
        &mut self,
        identity: &Identity<'_>,
        ask: &Ask,
        now: Instant,
        entropy: u64,
    ) -> Result<Permit, Refused> {
        let identified = match ask.background {
            true => Ok(()),
            false => self.check_identity(identity, now),
        };
        identified
            .and_then(|()| self.check_bytes(ask))
            .and_then(|()| self.check_model(identity, ask))
            .map(|claim| self.enter(identity, ask, claim, now))
            .map_err(|(kind, wait)| {
                self.counts.refuse(kind);
                Refused { kind, retry_after: spread(wait, entropy) }
            })
    }

    /// What the body of a taken request says where its header did not: how many items, how large, how
    /// urgent. Clamped to the same terms; the deadline counts from now. The model, its place and its
    /// rate stay as they are.
    ///
    /// # Errors
    /// [`Refused`], counted: there is no memory for it, or no time. The permit is still to be
    /// released.
    pub fn specify(&mut self, permit: &mut Permit, ask: &Ask, entropy: u64) -> Result<(), Refused> {
        let others = self.bytes.saturating_sub(permit.bytes);
        let refuse = |counts: &mut Counts, (kind, wait)| {
            counts.refuse(kind);
            Refused { kind, retry_after: spread(wait, entropy) }
        };
        if others.saturating_add(ask.bytes) > self.policy.tensor_bytes {
            let wait = self.lines.get(&permit.model).map_or(RETRY_MIN, Line::retry_after);
            return Err(refuse(&mut self.counts, (RefusalKind::TensorMemory, wait)));
        }
        (self.bytes, permit.bytes) = (others + ask.bytes, ask.bytes);
        let wanted = self.claim(&permit.terms, permit.claim.flow, ask);
        let was = std::mem::replace(&mut permit.claim, wanted);
        let Some(line) = self.lines.get_mut(&permit.model) else { return Ok(()) };
        line.change(&was, &permit.claim).map_err(|why| refuse(&mut self.counts, why))
    }

    fn claim(&self, terms: &Terms, flow: FlowId, ask: &Ask) -> Claim {
        Claim {
            flow,
            weight: terms.weight,
            items: ask.items.max(1),
            priority: ask.priority.min(terms.priority_max),
            remaining: ask
                .remaining
                .unwrap_or(self.policy.default_deadline)
                .min(terms.deadline_max),
            background: ask.background,
        }
    }

    /// The end of a request.
    // By value: a permit that was given back can be given back no second time.
    #[allow(clippy::needless_pass_by_value)]
    pub fn release(&mut self, permit: Permit, now: Instant) {
        self.bytes = self.bytes.saturating_sub(permit.bytes);
        if let Some((tenant, caller)) = &permit.who {
            self.tenants.leave(tenant, now);
            self.callers.leave(caller, now);
        }
        if let Some(line) = self.lines.get_mut(&permit.model) {
            line.leave(&permit.claim);
        }
    }

    /// What was taken and refused so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A model's places; `None` for an unknown one.
    pub fn places(&self, model: ModelSlot) -> Option<Places> {
        let line = self.lines.get(&model)?;
        Some(Places { in_flight: line.in_flight(), limit: line.limit() })
    }

    /// Identities that are remembered: tenants and callers.
    pub fn identities(&self) -> usize {
        self.tenants.len() + self.callers.len()
    }

    /// Requests of this tenant in flight.
    pub fn tenant_in_flight(&self, tenant: &str) -> u32 {
        self.tenants.in_flight(tenant)
    }

    fn check_identity(&self, identity: &Identity<'_>, now: Instant) -> Result<(), Refusing> {
        use RefusalKind::{CallerConcurrency, CallerRate, TenantConcurrency, TenantRate};
        let Terms { tenant, caller, .. } = identity.terms;
        self.callers
            .check(identity.caller, caller, now)
            .map_err(|denied| refusing(denied, CallerRate, CallerConcurrency))?;
        self.tenants
            .check(identity.tenant, tenant, now)
            .map_err(|denied| refusing(denied, TenantRate, TenantConcurrency))
    }

    fn check_bytes(&self, ask: &Ask) -> Result<(), Refusing> {
        let part = if ask.background { 2 } else { 1 };
        if self.bytes.saturating_add(ask.bytes) <= self.policy.tensor_bytes / part {
            return Ok(());
        }
        let wait = self.lines.get(&ask.model).map_or(RETRY_MIN, Line::retry_after);
        Err((RefusalKind::TensorMemory, wait))
    }

    fn check_model(&mut self, identity: &Identity<'_>, ask: &Ask) -> Result<Claim, Refusing> {
        let claim = self.claim(&identity.terms, self.tenants.number_of(identity.tenant), ask);
        let line = self.lines.get_mut(&ask.model);
        let line = line.ok_or((RefusalKind::UnknownModel, Duration::ZERO))?;
        line.check(&claim).map(|()| claim)
    }

    fn enter(
        &mut self,
        identity: &Identity<'_>,
        ask: &Ask,
        mut claim: Claim,
        now: Instant,
    ) -> Permit {
        let Identity { tenant, caller, terms } = *identity;
        let who = (!ask.background).then(|| {
            let caller = self.callers.enter(caller, terms.caller, now);
            (self.tenants.enter(tenant, terms.tenant, now), caller)
        });
        claim.flow = self.tenants.number_of(tenant);
        if let Some(line) = self.lines.get_mut(&ask.model) {
            line.enter(&claim);
        }
        self.bytes += ask.bytes;
        self.counts.admitted += 1;
        let (model, bytes) = (ask.model, ask.bytes);
        Permit { who, model, bytes, claim, terms }
    }
}

/// The least time after which to try again.
const RETRY_MIN: Duration = Duration::from_millis(1);

/// A reason, and the time after which it may be gone; zero for never.
type Refusing = (RefusalKind, Duration);

fn refusing(denied: Denied, rate: RefusalKind, concurrency: RefusalKind) -> Refusing {
    match denied {
        Denied::Rate { wait } => (rate, wait),
        Denied::Concurrency => (concurrency, RETRY_MIN),
        Denied::Full => (RefusalKind::TooManyIdentities, Duration::from_secs(1)),
    }
}

/// Evenly between `wait` and twice `wait`.
fn spread(wait: Duration, entropy: u64) -> Duration {
    if wait.is_zero() {
        return wait;
    }
    let wait = wait.max(RETRY_MIN);
    let extra = (wait.as_nanos() * u128::from(entropy)) >> 64;
    wait + Duration::from_nanos(u64::try_from(extra).unwrap_or(u64::MAX))
}
