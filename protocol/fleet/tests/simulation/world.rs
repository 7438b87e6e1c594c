//! One server with one model: a gate, a batcher, sessions that take time, and the sources' traffic.
//! What must hold at every moment is asserted at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use outrigger_fleet::admission::{
    Ask, Gate, GatePolicy, Identity, LimitPolicy, ModelSlot, Permit, RefusalKind, Terms,
};
use outrigger_fleet::batch::{
    Action, Batcher, DropReason, ExpressChange, Policy, Request, RequestId, SessionId, ShapeKey,
};
use outrigger_fleet::scaling::{Run, Scaler, ScalingPolicy};

use super::traffic::{Random, Source};

const MODEL: ModelSlot = ModelSlot(0);
const EXPRESS: SessionId = SessionId(64);
/// What opening it takes.
const OPENING: Duration = Duration::from_millis(100);
/// Of a core that both want, the express session has 10 of 11 parts.
const PREFERRED: f64 = 1.1;

/// How long runs really take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    pub(crate) fixed: Duration,
    pub(crate) per_item: Duration,
    /// Standard deviation, relative.
    pub(crate) noise: f64,
    /// Sessions beyond this many slow all of them down.
    pub(crate) cores: u32,
}

impl Model {
    pub(crate) fn time(&self, items: u32) -> Duration {
        self.fixed + self.per_item * items
    }

    /// Items a second, in batches of this size.
    pub(crate) fn capacity(&self, sessions: u32, batch: u32) -> f64 {
        f64::from(sessions.min(self.cores) * batch) / self.time(batch).as_secs_f64()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Answered,
    Late,
    Refused(RefusalKind),
    Dropped(DropReason),
    /// Answered, and nobody wanted it any more.
    Unwanted,
}

/// How one request ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) source: usize,
    pub(crate) items: u32,
    pub(crate) at: Duration,
    pub(crate) latency: Duration,
    pub(crate) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    Finishes(SessionId, Duration),
    Cancels(RequestId),
    Scales,
    Express,
    Wakes,
}

struct Open {
    source: usize,
    permit: Permit,
    request: Request,
    started: Option<Instant>,
    cancelled: bool,
}

pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) model: Model,
    pub(crate) sessions: u32,
    pub(crate) batch: Policy,
    pub(crate) limit: LimitPolicy,
    pub(crate) scaling: Option<ScalingPolicy>,
    pub(crate) sources: Vec<Source>,
}

pub(crate) struct World {
    setup: Setup,
    start: Instant,
    now: Instant,
    random: Random,
    gate: Gate,
    batcher: Batcher,
    scaler: Option<Scaler>,
    alive: BTreeSet<SessionId>,
    events: BTreeSet<(Instant, u64, Event)>,
    order: u64,
    open: BTreeMap<RequestId, Open>,
    batches: BTreeMap<SessionId, Vec<RequestId>>,
    pub(crate) ended: Vec<Ended>,
    pub(crate) runs: Vec<u32>,
    pub(crate) session_counts: Vec<(Duration, u32)>,
    pub(crate) waiting_max: u32,
    pub(crate) express_runs: u32,
}

impl World {
    #[allow(clippy::disallowed_methods)] // the origin of the simulation's own time line
    pub(crate) fn new(setup: Setup) -> Self {
        println!("seed {}", setup.seed);
        let now = Instant::now();
        let mut gate = Gate::new(GatePolicy::default());
        gate.add_model(MODEL, setup.limit);
        let mut batcher = Batcher::new(setup.batch);
        for items in [1, 2, 4, 8, 16].into_iter().filter(|n| *n <= setup.batch.max_batch_size) {
            batcher.learn(items, setup.model.time(items));
        }
        let scaler = setup.scaling.map(|policy| Scaler::new(policy, now));
        let sessions = scaler.as_ref().map_or(setup.sessions, Scaler::sessions);
        let mut world = Self {
            random: Random(setup.seed),
            start: now,
            now,
            gate,
            batcher,
            scaler,
            alive: BTreeSet::new(),
            events: BTreeSet::new(),
            order: 0,
            open: BTreeMap::new(),
            batches: BTreeMap::new(),
            ended: Vec::new(),
            runs: Vec::new(),
            session_counts: Vec::new(),
            waiting_max: 0,
            express_runs: 0,
            setup,
        };
        world.set_sessions(sessions);
        for source in 0..world.setup.sources.len() {
            world.plan_arrival(source);
        }
        if let Some(at) = world.scaler.as_ref().map(Scaler::poll_timeout) {
            world.plan(at, Event::Scales);
        }
        world
    }

    pub(crate) fn run(&mut self, duration: Duration) -> &mut Self {
        let until = self.now + duration;
        while let Some((at, _, event)) = self.events.pop_first() {
            if at > until {
                self.plan(at, event);
                break;
            }
            self.now = at;
            self.happen(event);
            self.drive();
        }
        self.now = until;
        self
    }

    pub(crate) fn set_rate(&mut self, source: usize, per_s: f64) {
        self.setup.sources[source].per_s = per_s;
    }

    /// No more arrivals; runs until all have ended.
    pub(crate) fn finish(&mut self) {
        self.events.retain(|(_, _, event)| !matches!(event, Event::Arrives(_) | Event::Scales));
        self.run(Duration::from_secs(1000));
        assert_eq!((self.open.len(), self.batcher.flows()), (0, 0), "all have ended");
        assert_eq!(self.gate.places(MODEL).unwrap().in_flight, 0);
    }

    pub(crate) fn limit(&self) -> u32 {
        self.gate.places(MODEL).unwrap().limit
    }

    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn plan(&mut self, at: Instant, event: Event) {
        self.order += 1;
        self.events.insert((at, self.order, event));
    }

    fn plan_arrival(&mut self, source: usize) {
        let gap = self.setup.sources[source].gap(&mut self.random);
        self.plan(self.now + gap, Event::Arrives(source));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(source) => {
                self.plan_arrival(source);
                for _ in 0..self.setup.sources[source].burst {
                    self.arrive(source);
                }
            }
            Event::Finishes(session, ran) => self.finish_batch(session, ran),
            Event::Cancels(id) => self.cancel(id),
            Event::Scales => self.scale(),
            Event::Express => {
                self.alive.insert(EXPRESS);
                self.batcher.handle_express(EXPRESS, self.now);
            }
            Event::Wakes => {}
        }
    }

    fn arrive(&mut self, index: usize) {
        let source = self.setup.sources[index].clone();
        let pick = self.random.below(source.items.len() as u64);
        let items = source.items[usize::try_from(pick).unwrap()];
        let terms = Terms { weight: source.weight, priority_max: 3, ..Terms::default() };
        let identity = Identity { tenant: source.tenant, caller: source.tenant, terms };
        let ask = Ask {
            model: MODEL,
            items,
            bytes: 1000,
            priority: source.priority,
            remaining: Some(source.deadline),
        };
        let entropy = self.random.next();
        match self.gate.admit(&identity, &ask, self.now, entropy) {
            Err(refused) => {
                let (latency, at) = (Duration::ZERO, self.elapsed());
                let end = End::Refused(refused.kind);
                self.ended.push(Ended { source: index, items, at, latency, end });
            }
            Ok(permit) => self.take(index, &source, items, permit),
        }
    }

    fn take(&mut self, index: usize, source: &Source, items: u32, permit: Permit) {
        self.order += 1;
        let request = Request {
            id: RequestId(self.order),
            flow: permit.flow(),
            weight: permit.weight(),
            items,
            shape: ShapeKey(self.random.below(source.shapes)),
            priority: permit.priority(),
            deadline: self.now + permit.remaining(),
            arrived: self.now,
        };
        self.batcher.handle_request(request, self.now).unwrap();
        let open = Open { source: index, permit, request, started: None, cancelled: false };
        self.open.insert(request.id, open);
        if source.cancels_one_in > 0 && self.random.below(source.cancels_one_in) == 0 {
            let after = source.deadline.mul_f64(self.random.unit());
            self.plan(self.now + after, Event::Cancels(request.id));
        }
    }

    fn cancel(&mut self, id: RequestId) {
        self.batcher.handle_cancel(id);
        if let Some(open) = self.open.get_mut(&id) {
            open.cancelled = true;
        }
    }

    fn drive(&mut self) {
        while let Some(action) = self.batcher.poll_action(self.now) {
            match action {
                Action::Run { session, batch, items } => self.start_batch(session, batch, items),
                Action::Drop { id, reason } => self.end(id, End::Dropped(reason)),
            }
        }
        match self.batcher.poll_express(self.now) {
            Some(ExpressChange::Open) => self.plan(self.now + OPENING, Event::Express),
            Some(ExpressChange::Close(_)) => drop(self.alive.remove(&EXPRESS)),
            None => {}
        }

        let load = self.batcher.load();
        let idle = load.sessions > load.busy;
        assert!(!idle || load.waiting_requests == 0, "a session idles while work waits");
        self.waiting_max = self.waiting_max.max(load.waiting_requests);
        assert!(self.batcher.flows() <= self.setup.sources.len() * 4);
        self.gate.handle_load(MODEL, load, self.now);
        if let Some(at) = self.batcher.poll_timeout() {
            assert!(at > self.now, "what is due was done");
            if self.events.first().is_none_or(|(next, ..)| at < *next) {
                self.plan(at, Event::Wakes);
            }
        }
    }

    fn start_batch(&mut self, session: SessionId, batch: Vec<RequestId>, items: u32) {
        assert!(self.alive.contains(&session) && !self.batches.contains_key(&session));
        self.check_batch(&batch, items);
        let preferred = self.finish_of(|session| session == EXPRESS);
        let ordinary = self.batches.len() - usize::from(preferred.is_some());
        let busy = u32::try_from(ordinary).unwrap() + 1;
        let contention = f64::from(busy.max(self.setup.model.cores));
        let slowdown = contention / f64::from(self.setup.model.cores);
        let noise = self.random.noise(self.setup.model.noise);
        let slowdown = if session == EXPRESS { PREFERRED } else { slowdown };
        let ran = self.setup.model.time(items).mul_f64(noise * slowdown);
        let waits = preferred.filter(|_| busy >= self.setup.model.cores).map(|((at, ..), _)| at);
        let ran = ran + waits.map_or(Duration::ZERO, |at| at - self.now);
        if session == EXPRESS {
            self.hold_up(ran.div_f64(PREFERRED)); // no work is lost by it
        }
        for id in &batch {
            self.open.get_mut(id).unwrap().started = Some(self.now);
        }
        self.runs.push(items);
        self.batches.insert(session, batch);
        self.plan(self.now + ran, Event::Finishes(session, ran));
    }

    /// One of the others stands still for so long: that which would be done last.
    fn hold_up(&mut self, time: Duration) {
        let Some((event, session)) = self.finish_of(|session| session != EXPRESS) else { return };
        self.events.remove(&event);
        if let (at, _, Event::Finishes(_, ran)) = event {
            self.plan(at + time, Event::Finishes(session, ran + time));
        }
    }

    /// The last end of a run on such sessions.
    fn finish_of(
        &self,
        which: impl Fn(SessionId) -> bool,
    ) -> Option<((Instant, u64, Event), SessionId)> {
        self.events.iter().rev().find_map(|event| match event.2 {
            Event::Finishes(session, _) if which(session) => Some((*event, session)),
            _ => None,
        })
    }

    fn check_batch(&self, batch: &[RequestId], items: u32) {
        let members: Vec<&Open> = batch.iter().map(|id| &self.open[id]).collect();
        assert_eq!(members.iter().map(|m| m.request.items).sum::<u32>(), items);
        assert!(members.iter().all(|m| m.request.shape == members[0].request.shape));
        assert!(members.iter().all(|m| m.started.is_none() && !m.cancelled));
        assert!(members.iter().all(|m| m.request.deadline > self.now));
        let policy = &self.setup.batch;
        let max = if policy.batch_invariant { policy.max_batch_size } else { 1 };
        assert!(members.len() == 1 || items <= max);
    }

    fn finish_batch(&mut self, session: SessionId, ran: Duration) {
        self.batcher.handle_finished(session, Some(ran));
        let batch = self.batches.remove(&session).unwrap();
        let waited =
            |id: &RequestId| self.open[id].started.unwrap() - self.open[id].request.arrived;
        let run = Run {
            requests: u32::try_from(batch.len()).unwrap(),
            items: batch.iter().map(|id| self.open[id].request.items).sum(),
            waited: batch.iter().map(waited).sum(),
            ran,
        };
        self.express_runs += u32::from(session == EXPRESS);
        if let Some(scaler) = self.scaler.as_mut().filter(|_| session != EXPRESS) {
            scaler.handle_run(run);
        }
        for id in batch {
            let open = &self.open[&id];
            let end = match (open.cancelled, self.now > open.request.deadline) {
                (true, _) => End::Unwanted,
                (_, true) => End::Late,
                _ => End::Answered,
            };
            self.end(id, end);
        }
    }

    fn end(&mut self, id: RequestId, end: End) {
        let open = self.open.remove(&id).expect("each request ends exactly once");
        if let End::Dropped(_) = end {
            assert!(open.started.is_none(), "what ran is not dropped");
        }
        self.ended.push(Ended {
            source: open.source,
            items: open.request.items,
            at: self.elapsed(),
            latency: self.now - open.request.arrived,
            end,
        });
        self.gate.release(open.permit, self.now);
    }

    fn scale(&mut self) {
        let Some(scaler) = &mut self.scaler else { return };
        let sessions = scaler.poll_sessions(self.now);
        let next = scaler.poll_timeout();
        if let Some(sessions) = sessions {
            self.set_sessions(sessions);
        }
        self.plan(next, Event::Scales);
    }

    fn set_sessions(&mut self, sessions: u32) {
        for id in (0..64).map(SessionId) {
            if id.0 < sessions && self.alive.insert(id) {
                self.batcher.handle_session(id);
            } else if id.0 >= sessions && self.alive.remove(&id) {
                self.batcher.handle_retire(id);
            }
        }
        self.session_counts.push((self.elapsed(), sessions));
    }
}

/// What was measured of one source, or of all, after `from`.
pub(crate) struct Measured {
    pub(crate) answered: usize,
    pub(crate) late: usize,
    pub(crate) refused: usize,
    pub(crate) dropped: usize,
    /// Items answered in time, a second.
    pub(crate) goodput: f64,
    pub p99: Duration,
}

impl World {
    pub(crate) fn measure(&self, source: Option<usize>, from: Duration) -> Measured {
        let of = |e: &&Ended| e.at >= from && source.is_none_or(|source| e.source == source);
        let ended: Vec<&Ended> = self.ended.iter().filter(of).collect();
        let count = |kind: fn(&End) -> bool| ended.iter().filter(|e| kind(&e.end)).count();
        let good = || ended.iter().filter(|e| e.end == End::Answered);
        let mut latencies: Vec<Duration> = good().map(|e| e.latency).collect();
        latencies.sort_unstable();
        let items: u32 = good().map(|e| e.items).sum();
        Measured {
            answered: latencies.len(),
            late: count(|end| *end == End::Late),
            refused: count(|end| matches!(end, End::Refused(_))),
            dropped: count(|end| matches!(end, End::Dropped(_))),
            goodput: f64::from(items) / (self.elapsed() - from).as_secs_f64(),
            p99: latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default(),
        }
    }
}
