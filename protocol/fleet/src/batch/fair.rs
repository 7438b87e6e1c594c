//! Who is next among the tenants of one priority: start-time fair queueing over flows, and
//! earliest deadline first inside a flow.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, "Start-time Fair Queuing", SIGCOMM 1996): each
//! flow carries a tag, the virtual time at which its next item starts; the flow with the lowest
//! tag is served, and its tag grows by items / weight. However long the backlog of another flow is,
//! it is passed by a flow that asks for less than its share.
//!
//! One thing is added, as in borrowed virtual time (Duda and Cheriton, SOSP 1999): a flow that used
//! less than its share starts up to [`CREDIT_ITEMS`] items before the present virtual time, so that
//! a few of its requests that come at once need not go in step with the others' backlog. In the
//! long run this changes no share.
//!
//! A run takes requests of one [`Group`] only, so the order is kept twice: over all requests, and
//! inside each group. The tags inside groups are brought up to date when they are looked at: a tag
//! only grows, so a stale one is too low, is found first, and is put where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::{FlowId, RequestId, ShapeKey};

/// Virtual time of one item at weight 1.
const ITEM: u64 = 1 << 20;
/// Items that a flow can be behind its share and still catch up on at once.
const CREDIT_ITEMS: u64 = 64;
/// Virtual time at the beginning of a busy period: later than any credit.
const BEGIN: u64 = 2 * CREDIT_ITEMS * ITEM;

/// What may run together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// All requests of one shape.
    Shape(ShapeKey),
    /// This request alone: its last run ended with the session.
    Alone(RequestId),
}

/// The place of a request in its flow: when it is due, and who was first.
pub(super) type Place = (Instant, RequestId);

/// What a level has to know of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ticket {
    pub(super) flow: FlowId,
    pub(super) weight: u32,
    pub(super) group: Group,
    pub(super) place: Place,
}

#[derive(Debug)]
struct Flow {
    tag: u64,
    all: BTreeSet<Place>,
    groups: BTreeMap<Group, InGroup>,
}

/// A flow's requests of one group, and the tag under which the group lists the flow.
#[derive(Debug)]
struct InGroup {
    places: BTreeSet<Place>,
    listed: u64,
}

/// The waiting requests of one priority.
#[derive(Debug)]
pub(super) struct Level {
    now: u64,
    flows: BTreeMap<FlowId, Flow>,
    ready: BTreeSet<(u64, FlowId)>,
    groups: BTreeMap<Group, BTreeSet<(u64, FlowId)>>,
    /// Flows without requests that have not all their credit: forgotten once they would have.
    resting: BTreeSet<(u64, FlowId)>,
}

impl Default for Level {
    fn default() -> Self {
        Self {
            now: BEGIN,
            flows: BTreeMap::new(),
            ready: BTreeSet::new(),
            groups: BTreeMap::new(),
            resting: BTreeSet::new(),
        }
    }
}

impl Level {
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    pub(super) fn insert(&mut self, ticket: &Ticket) {
        let credit = CREDIT_ITEMS * ITEM / u64::from(ticket.weight.max(1));
        let earliest = self.now.saturating_sub(credit);
        let id = ticket.flow;
        let new = || Flow { tag: earliest, all: BTreeSet::new(), groups: BTreeMap::new() };
        let flow = self.flows.entry(id).or_insert_with(new);
        if flow.all.is_empty() {
            self.resting.remove(&(flow.tag, id));
            flow.tag = flow.tag.max(earliest);
            self.ready.insert((flow.tag, id));
        }
        flow.all.insert(ticket.place);
        let tag = flow.tag;
        let of_group = flow.groups.entry(ticket.group).or_insert_with(|| {
            self.groups.entry(ticket.group).or_default().insert((tag, id));
            InGroup { places: BTreeSet::new(), listed: tag }
        });
        of_group.places.insert(ticket.place);
    }

    pub(super) fn remove(&mut self, ticket: &Ticket) {
        let Some(flow) = self.flows.get_mut(&ticket.flow) else { return };
        flow.all.remove(&ticket.place);
        if let Some(of_group) = flow.groups.get_mut(&ticket.group) {
            of_group.places.remove(&ticket.place);
            if of_group.places.is_empty() {
                let listed = (of_group.listed, ticket.flow);
                flow.groups.remove(&ticket.group);
                unlist(&mut self.groups, ticket.group, listed);
            }
        }
        if flow.all.is_empty() {
            self.ready.remove(&(flow.tag, ticket.flow));
            self.resting.insert((flow.tag, ticket.flow));
            self.forget_passed();
        }
    }

    /// The request whose turn it is.
    pub(super) fn first(&self) -> Option<RequestId> {
        let (_, flow) = self.ready.first()?;
        self.flows.get(flow)?.all.first().map(|(_, id)| *id)
    }

    /// The request of this group whose turn it is.
    pub(super) fn first_in(&mut self, group: Group) -> Option<RequestId> {
        loop {
            let listed = self.groups.get_mut(&group)?;
            let (tag, id) = *listed.first()?;
            let flow = self.flows.get_mut(&id)?;
            let of_group = flow.groups.get_mut(&group)?;
            if tag == flow.tag {
                return of_group.places.first().map(|(_, id)| *id);
            }
            listed.remove(&(tag, id));
            listed.insert((flow.tag, id));
            of_group.listed = flow.tag;
        }
    }

    /// The request whose turn it is where this flow is passed over.
    pub(super) fn first_besides(&self, flow: FlowId) -> Option<RequestId> {
        let (_, other) = self.ready.iter().find(|(_, other)| *other != flow)?;
        self.flows.get(other)?.all.first().map(|(_, id)| *id)
    }

    /// Whether the flow of a request is behind virtual time, and still is with so many items more.
    pub(super) fn is_behind(&self, ticket: &Ticket, items: u32) -> bool {
        let flow = self.flows.get(&ticket.flow);
        flow.is_some_and(|flow| flow.tag.saturating_add(cost(ticket, items)) <= self.now)
    }

    /// A request is served now, before it is removed: its flow pays, and virtual time goes on.
    pub(super) fn serve(&mut self, ticket: &Ticket, items: u32) {
        let Some(flow) = self.flows.get_mut(&ticket.flow) else { return };
        self.now = self.now.max(flow.tag);
        self.ready.remove(&(flow.tag, ticket.flow));
        flow.tag = flow.tag.saturating_add(cost(ticket, items));
        self.ready.insert((flow.tag, ticket.flow));
    }

    fn forget_passed(&mut self) {
        while let Some((tag, id)) = self.resting.first().copied() {
            if tag > self.now.saturating_sub(CREDIT_ITEMS * ITEM) {
                break;
            }
            self.resting.pop_first();
            self.flows.remove(&id);
        }
    }

    /// Nobody has waited for a while: with the busy period all that anybody owes is over.
    pub(super) fn end_busy_period(&mut self) {
        while let Some((_, id)) = self.resting.pop_first() {
            self.flows.remove(&id);
        }
        self.now = BEGIN;
    }

    /// Flows that are remembered.
    pub(super) fn flows(&self) -> usize {
        self.flows.len()
    }
}

/// Virtual time of so many items of a flow.
fn cost(ticket: &Ticket, items: u32) -> u64 {
    (u64::from(items) * ITEM / u64::from(ticket.weight.max(1))).max(1)
}

fn unlist(
    groups: &mut BTreeMap<Group, BTreeSet<(u64, FlowId)>>,
    group: Group,
    listed: (u64, FlowId),
) {
    if let Some(flows) = groups.get_mut(&group) {
        flows.remove(&listed);
        if flows.is_empty() {
            groups.remove(&group);
        }
    }
}
