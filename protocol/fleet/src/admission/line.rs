//! The places of one model, and who holds them.
//!
//! Every tenant that is there is guaranteed its share of the limit, by weight, whoever else holds
//! places; beyond that, free places are for whoever comes. So one tenant alone uses all of them,
//! and another one that asks for less than its share is not refused because of the first. Requests
//! come in clusters, so a tenant beside others may hold twice its share, or [`CLUSTER_REQUESTS`] of the
//! usual size, while what is in flight, without what the largest holder has, is beyond the limit by less
//! than the limit, or than such a cluster. Not so whoever floods: a tenant that was refused lately, and took
//! more than its share, has its share and no cluster, and cannot fill with its own what is there for others.
//! Nothing is kept free in vain, as a threshold on the free places would (Choudhury and Hahne, "Dynamic
//! Queue Length Thresholds for Shared-Memory Packet Switches", 1998), and nobody who was taken is pushed
//! out again. The order in which those in line run is `batch`'s (start-time fair queueing).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use protocol::limits::PRIORITY_MAX;

use super::limit::{Limit, LimitPolicy};
use super::refusal::RefusalKind;
use crate::batch::{FlowId, Load};

/// Requests that a tenant may hold although its share of a small limit is less, while there is room.
const CLUSTER_REQUESTS: u64 = 8;
/// How far a lasting overload stretches the time after which to try again.
const PRESSURE_MAX: u64 = 64;

/// What a request asks of a model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) flow: FlowId,
    pub(super) weight: u32,
    pub(super) items: u32,
    pub(super) priority: u8,
    pub(super) remaining: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    items: u64,
    requests: u32,
    weight: u32,
}

/// Requests taken and refused in an interval.
#[derive(Debug, Default)]
struct Pressure {
    taken: u64,
    refused: u64,
    items: u64,
    flows: BTreeMap<FlowId, Lately>,
}

/// What one tenant took of that.
#[derive(Debug, Clone, Copy, Default)]
struct Lately {
    items: u64,
    was_refused: bool,
}

/// One model's line.
#[derive(Debug)]
pub(super) struct Line {
    limit: Limit,
    load: Load,
    in_flight: u64,
    requests: u64,
    by_priority: [u64; PRIORITY_MAX as usize + 1],
    held: BTreeMap<FlowId, Held>,
    /// Of all tenants in `held`.
    weights: u64,
    present: Pressure,
    last: Pressure,
}

impl Line {
    pub(super) fn new(policy: LimitPolicy) -> Self {
        Self {
            limit: Limit::new(policy),
            load: Load::default(),
            in_flight: 0,
            requests: 0,
            by_priority: Default::default(),
            held: BTreeMap::new(),
            weights: 0,
            present: Pressure::default(),
            last: Pressure::default(),
        }
    }

    /// Whether there is a place, and time for an answer; changes no place.
    pub(super) fn check(&mut self, claim: &Claim) -> Result<(), (RefusalKind, Duration)> {
        let checked = self.check_places(claim).and_then(|()| self.check_time(claim));
        if let Err((kind, _)) = checked {
            self.present.refused += 1;
            self.present.flows.entry(claim.flow).or_default().was_refused = true;
            if kind != RefusalKind::CannotMakeIt {
                self.limit.hit();
            }
        }
        checked
    }

    fn check_places(&self, claim: &Claim) -> Result<(), (RefusalKind, Duration)> {
        let limit = u64::from(self.limit.get());
        let (held, weight, weights) = self.stake(claim);
        let below_share = limit * weight >= weights && held * weights < limit * weight;
        let small = CLUSTER_REQUESTS * self.request_items();
        let near_share = held < small || held * weights < 2 * limit * weight;
        if below_share || self.in_flight < limit {
            return Ok(());
        }
        if weights > weight && near_share && !self.floods(claim.flow, weight, weights) {
            let others = self.held.iter().filter(|(flow, _)| **flow != claim.flow);
            let largest = others.map(|(_, other)| other.items).max().unwrap_or(0);
            if self.in_flight.saturating_sub(largest) < limit + limit.max(small) {
                return Ok(());
            }
        }
        let kind = if held > 0 { RefusalKind::TenantShare } else { RefusalKind::ModelBusy };
        Err((kind, self.retry_after()))
    }

    /// Whether a tenant was refused lately, and took more than its share of what was taken.
    fn floods(&self, flow: FlowId, weight: u64, weights: u64) -> bool {
        let of = |pressure: &Pressure| pressure.flows.get(&flow).copied().unwrap_or_default();
        let (last, present) = (of(&self.last), of(&self.present));
        let took = last.items + present.items;
        let all = self.last.items + self.present.items;
        (last.was_refused || present.was_refused) && took * weights > all * weight
    }

    /// Items that the tenant holds, its weight, and the weight of all tenants with it.
    fn stake(&self, claim: &Claim) -> (u64, u64, u64) {
        let weight = u64::from(claim.weight.max(1));
        match self.held.get(&claim.flow) {
            Some(held) => (held.items, u64::from(held.weight), self.weights),
            None => (0, weight, self.weights + weight),
        }
    }

    fn check_time(&self, claim: &Claim) -> Result<(), (RefusalKind, Duration)> {
        let own = self.load.run_time.max(self.load.item_time * claim.items);
        if self.expected(claim, own) <= claim.remaining {
            return Ok(());
        }
        // Where it could not be done on an idle server either, waiting does not help.
        let in_vain = own > claim.remaining;
        Err((RefusalKind::CannotMakeIt, if in_vain { Duration::ZERO } else { self.retry_after() }))
    }

    /// How long until the answer: until a session is free, until what is ahead has run, and the run
    /// with what waits beside it. Ahead are at most: what waits, what is of no lower priority, and
    /// what start-time fair queueing lets other tenants run meanwhile.
    fn expected(&self, claim: &Claim, own: Duration) -> Duration {
        let Load { sessions, busy, running_items, .. } = self.load;
        if busy < sessions {
            return own;
        }
        let waiting = self.in_flight.saturating_sub(running_items.into());
        let level = usize::from(claim.priority.min(PRIORITY_MAX));
        let no_lower: u64 = self.by_priority[level..].iter().sum();
        let ahead = waiting.min(no_lower).min(self.fair_ahead(claim));
        let session_free = self.load.run_of((running_items / busy.max(1)).into()) / (sessions + 1);
        let with_mates = self.load.run_of(waiting + u64::from(claim.items));
        session_free + self.load.time_for(ahead) + own.max(with_mates)
    }

    fn fair_ahead(&self, claim: &Claim) -> u64 {
        let (held, weight, weights) = self.stake(claim);
        let until_mine = (held + u64::from(claim.items)) * weights / weight;
        until_mine.saturating_sub(claim.items.into())
    }

    /// Until a place is free, times how many there are for each one that is taken: those who were
    /// refused come back as well.
    pub(super) fn retry_after(&self) -> Duration {
        let places = u64::from(self.limit.get()).saturating_sub(self.load.running_items.into());
        let drained = self.load.time_for(places.max(1)) + self.load.batch_time;
        let Pressure { taken, refused, .. } = self.last;
        let pressure = ((refused + taken) / taken.max(1)).clamp(1, PRESSURE_MAX);
        drained * u32::try_from(pressure).unwrap_or(1)
    }

    pub(super) fn enter(&mut self, claim: &Claim) {
        let items = u64::from(claim.items);
        self.present.taken += 1;
        self.present.items += items;
        self.present.flows.entry(claim.flow).or_default().items += items;
        self.in_flight += items;
        self.requests += 1;
        self.by_priority[usize::from(claim.priority.min(PRIORITY_MAX))] += items;
        let new = Held { items: 0, requests: 0, weight: claim.weight.max(1) };
        let held = self.held.entry(claim.flow).or_insert_with(|| {
            self.weights += u64::from(new.weight);
            new
        });
        held.items += items;
        held.requests += 1;
        self.suit_limit();
    }

    /// How large requests usually are, as what is in flight says.
    fn request_items(&self) -> u64 {
        (self.in_flight / self.requests.max(1)).max(1)
    }

    fn suit_limit(&mut self) {
        self.limit.suit(self.request_items());
    }

    /// A request that is in line turns out to be another than its header said; whether there is time
    /// for it.
    pub(super) fn change(
        &mut self,
        was: &Claim,
        is: &Claim,
    ) -> Result<(), (RefusalKind, Duration)> {
        let place = |priority: u8| usize::from(priority.min(PRIORITY_MAX));
        let (left, came) = (u64::from(was.items), u64::from(is.items));
        self.in_flight = self.in_flight.saturating_sub(left);
        let level = &mut self.by_priority[place(was.priority)];
        *level = level.saturating_sub(left);
        if let Some(held) = self.held.get_mut(&was.flow) {
            held.items = held.items.saturating_sub(left) + came;
        }
        let checked = self.check_time(is);
        self.in_flight += came;
        self.by_priority[place(is.priority)] += came;
        self.present.refused += u64::from(checked.is_err());
        self.suit_limit();
        checked
    }

    pub(super) fn leave(&mut self, flow: FlowId, items: u32, priority: u8) {
        let items = u64::from(items);
        self.in_flight = self.in_flight.saturating_sub(items);
        self.requests = self.requests.saturating_sub(1);
        let level = &mut self.by_priority[usize::from(priority.min(PRIORITY_MAX))];
        *level = level.saturating_sub(items);
        let Some(held) = self.held.get_mut(&flow) else { return };
        held.items = held.items.saturating_sub(items);
        held.requests = held.requests.saturating_sub(1);
        if held.requests == 0 {
            self.weights -= u64::from(held.weight);
            self.held.remove(&flow);
        }
    }

    pub(super) fn observe(&mut self, load: Load, now: Instant) {
        self.load = load;
        if self.limit.observe(&load, now) {
            self.last = std::mem::take(&mut self.present);
        }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.get()
    }
}
