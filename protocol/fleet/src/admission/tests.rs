#![allow(clippy::disallowed_methods)] // the origin of the tests' own time line

use super::*;
use proptest::prelude::*;
use protocol::problem::{Problem, ProblemCode};

const MS: fn(u64) -> Duration = Duration::from_millis;
const MODEL: ModelSlot = ModelSlot(1);

fn gate() -> Gate {
    let mut gate = Gate::new(GatePolicy { tensor_bytes: 1000, ..GatePolicy::default() });
    gate.add_model(MODEL, LimitPolicy { min: 8, start: 10, ..LimitPolicy::default() });
    gate
}

fn ask() -> Ask {
    Ask { model: MODEL, items: 1, bytes: 1, priority: 0, remaining: None, background: false }
}

fn who<'a>(tenant: &'a str, caller: &'a str, terms: Terms) -> Identity<'a> {
    Identity { tenant, caller, terms }
}

/// Two sessions that need 10 ms for each item.
fn load(waiting_items: u32) -> Load {
    Load {
        sessions: 2,
        busy: 2,
        running_items: 2,
        waiting_requests: waiting_items,
        waiting_items,
        item_time: MS(10),
        run_time: MS(10),
        batch_items: 1,
        batch_time: MS(10),
    }
}

/// Takes until the first refusal.
fn fill(gate: &mut Gate, identity: &Identity<'_>, now: Instant) -> (Vec<Permit>, Refused) {
    let mut permits = Vec::new();
    loop {
        match gate.admit(identity, &ask(), now, 0) {
            Ok(permit) => permits.push(permit),
            Err(refused) => return (permits, refused),
        }
    }
}

#[test]
fn rates_and_concurrency_of_callers_and_tenants() {
    let limited = |rate, concurrency| Quota { rate, concurrency };
    let rate = Some(Rate { per_s: 10, burst: 3 });
    for (terms, taken, kind, retry_ms) in [
        (Terms { caller: limited(rate, 9), ..Terms::default() }, 3, RefusalKind::CallerRate, 100),
        (Terms { tenant: limited(rate, 9), ..Terms::default() }, 3, RefusalKind::TenantRate, 100),
        (
            Terms { caller: limited(None, 2), ..Terms::default() },
            2,
            RefusalKind::CallerConcurrency,
            1,
        ),
        (
            Terms { tenant: limited(None, 2), ..Terms::default() },
            2,
            RefusalKind::TenantConcurrency,
            1,
        ),
    ] {
        let (mut gate, now) = (gate(), Instant::now());
        let (permits, refused) = fill(&mut gate, &who("t", "c", terms), now);
        assert_eq!((permits.len(), refused.kind), (taken, kind));
        assert_eq!(refused.retry_after, MS(retry_ms));
        let problem = Problem::from(refused);
        assert_eq!(problem.code, ProblemCode::Overloaded);
        assert!(!problem.hint.is_empty() && u64::from(problem.retry_after_ms) == retry_ms);
        assert_eq!(gate.counts().refused(kind), 1);
        for permit in permits {
            gate.release(permit, now);
        }
        assert!(gate.admit(&who("t", "c", terms), &ask(), now + MS(100), 0).is_ok());
    }
}

#[test]
fn what_nobody_waits_for_takes_nothing_from_anybody() {
    let one = Quota { rate: Some(Rate { per_s: 1, burst: 1 }), concurrency: 1 };
    let terms = Terms { caller: one, tenant: one, ..Terms::default() };
    let (mut gate, now, identity) = (gate(), Instant::now(), who("t", "c", terms));
    let background = Ask { background: true, ..ask() };
    let refused = |gate: &mut Gate, ask: &Ask| gate.admit(&identity, ask, now, 0).unwrap_err().kind;
    let check = gate.admit(&identity, &background, now, 0).unwrap();
    assert!(check.is_background() && gate.places(MODEL).unwrap().in_flight == 0);
    assert_eq!(refused(&mut gate, &background), RefusalKind::ModelBusy, "one at a time");
    let live = gate.admit(&identity, &ask(), now, 0).unwrap();
    assert_eq!(refused(&mut gate, &ask()), RefusalKind::CallerConcurrency);
    gate.release(check, now);
    assert_eq!(refused(&mut gate, &background), RefusalKind::ModelBusy, "the session is needed");
    gate.handle_load(MODEL, Load { busy: 1, ..load(0) }, now);
    assert_eq!(refused(&mut gate, &Ask { bytes: 501, ..background }), RefusalKind::TensorMemory);
    let check = gate.admit(&identity, &background, now, 0).unwrap();
    gate.release(check, now);
    gate.release(live, now);
    assert_eq!(refused(&mut gate, &ask()), RefusalKind::CallerRate, "the live one was counted");
    assert!(gate.admit(&identity, &background, now, 0).is_ok(), "which no check needs");
}

#[test]
fn a_tenant_below_its_share_finds_a_place_in_a_full_line() {
    let (mut gate, now) = (gate(), Instant::now());
    gate.handle_load(MODEL, load(0), now);
    let (flood, refused) = fill(&mut gate, &who("flood", "f", Terms::default()), now);
    assert_eq!((flood.len(), refused.kind), (10, RefusalKind::TenantShare));
    let (quiet, refused) = fill(&mut gate, &who("quiet", "q", Terms::default()), now);
    assert!((5..=10).contains(&quiet.len()), "{}", quiet.len());
    assert_eq!(refused.kind, RefusalKind::TenantShare);
    assert_ne!(flood[0].flow(), quiet[0].flow());
    assert!(gate.places(MODEL).unwrap().in_flight <= 20);
}

#[test]
fn a_lone_tenant_whose_requests_have_many_items_is_not_refused_for_that() {
    let (mut gate, now) = (Gate::new(GatePolicy::default()), Instant::now());
    gate.add_model(MODEL, LimitPolicy::default());
    let tenant = who("t", "c", Terms::default());
    // Over HTTP the header does not say how many items there are.
    let header = Ask { remaining: Some(MS(60_000)), ..ask() };
    let large = Ask { items: 32, ..header };
    let mut permits = Vec::new();
    for round in 0_u64..200 {
        let now = now + MS(round * 10);
        gate.handle_load(MODEL, load(31 * 32), now);
        let mut permit = gate.admit(&tenant, &header, now, 0).unwrap();
        gate.specify(&mut permit, &large, 0).unwrap();
        permits.push(permit);
        if permits.len() == 32 {
            gate.release(permits.remove(0), now);
        }
    }
    assert_eq!(gate.counts().refused_all(), 0);
}

#[test]
fn priority_and_deadline_are_clamped() {
    let (mut gate, now) = (gate(), Instant::now());
    let terms = Terms { priority_max: 2, deadline_max: MS(500), ..Terms::default() };
    let greedy = Ask { priority: 255, remaining: Some(MS(100_000)), ..ask() };
    let permit = gate.admit(&who("t", "c", terms), &greedy, now, 0).unwrap();
    assert_eq!((permit.priority(), permit.remaining()), (2, MS(500)));
    let permit = gate.admit(&who("t", "c", Terms::default()), &ask(), now, 0).unwrap();
    assert_eq!((permit.priority(), permit.remaining()), (0, MS(1000)), "the default");
}

#[test]
fn what_cannot_be_answered_in_time_is_refused_on_its_header() {
    let (mut gate, now) = (gate(), Instant::now());
    gate.handle_load(MODEL, load(0), now);
    let quick = |ms| Ask { remaining: Some(MS(ms)), ..ask() };
    let t = who("t", "c", Terms::default());
    let never = gate.admit(&t, &quick(9), now, 0).unwrap_err();
    assert_eq!((never.kind, never.retry_after), (RefusalKind::CannotMakeIt, MS(0)));
    // 10 ms, after a session is free in about 3 ms.
    let _first = gate.admit(&t, &quick(14), now, 0).unwrap();
    let _more: Vec<_> = (0..5).map(|_| gate.admit(&t, &quick(900), now, 0).unwrap()).collect();
    let later = gate.admit(&t, &quick(14), now, 0).unwrap_err();
    assert_eq!(later.kind, RefusalKind::CannotMakeIt);
    assert!(later.retry_after > MS(0), "later it can");
    assert_eq!(Problem::from(later).code, ProblemCode::DeadlineExceeded);
    // Another tenant's line is short: fair queueing lets it pass.
    assert!(gate.admit(&who("u", "d", Terms::default()), &quick(30), now, 0).is_ok());
}

#[test]
fn memory_and_unknown_models() {
    let (mut gate, now) = (gate(), Instant::now());
    let t = who("t", "c", Terms::default());
    let kind = |gate: &mut Gate, ask| gate.admit(&t, &ask, now, 0).unwrap_err().kind;
    assert_eq!(kind(&mut gate, Ask { bytes: 1001, ..ask() }), RefusalKind::TensorMemory);
    assert_eq!(kind(&mut gate, Ask { bytes: u64::MAX, ..ask() }), RefusalKind::TensorMemory);
    let elsewhere = Ask { model: ModelSlot(9), ..ask() };
    assert_eq!(kind(&mut gate, elsewhere), RefusalKind::UnknownModel);
    assert_eq!(gate.identities(), 0, "nothing is kept for a refusal");
    let permit = gate.admit(&t, &Ask { bytes: 1000, ..ask() }, now, 0).unwrap();
    gate.remove_model(MODEL);
    gate.release(permit, now);
    assert_eq!((gate.tenant_in_flight("t"), gate.bytes), (0, 0));
}

#[test]
fn those_refused_together_do_not_return_together() {
    let (mut gate, now) = (gate(), Instant::now());
    gate.handle_load(MODEL, load(8), now);
    let t = who("t", "c", Terms::default());
    let (_permits, first) = fill(&mut gate, &t, now);
    let at =
        |gate: &mut Gate, entropy| gate.admit(&t, &ask(), now, entropy).unwrap_err().retry_after;
    assert_eq!(first.retry_after, MS(50), "8 places of 5 ms, and the batch that runs");
    assert_eq!(at(&mut gate, 1 << 63), MS(75));
    assert!(at(&mut gate, u64::MAX) < MS(100));
}

#[test]
fn every_kind_has_its_word_and_place() {
    let words: std::collections::BTreeSet<_> = RefusalKind::ALL.map(RefusalKind::as_str).into();
    assert_eq!(words.len(), RefusalKind::ALL.len());
    assert!(RefusalKind::ALL.iter().enumerate().all(|(i, kind)| kind.index() == i));
}

proptest! {
    /// Whatever comes and goes: what is in flight is bounded, and all of it is given back.
    #[test]
    fn places_are_bounded_and_given_back(
        steps in prop::collection::vec((0_usize..6, 1_u32..5, any::<bool>(), 0_u64..5), 1..500),
    ) {
        let (mut gate, mut now) = (gate(), Instant::now());
        let mut permits = Vec::new();
        for (tenant, items, leaves, wait_ms) in steps {
            now += MS(wait_ms);
            gate.handle_load(MODEL, load(items), now);
            if leaves && !permits.is_empty() {
                gate.release(permits.swap_remove(tenant % permits.len()), now);
                continue;
            }
            let name = ["a", "b", "c", "d", "e", "f"][tenant];
            let ask = Ask { items, ..ask() };
            permits.extend(gate.admit(&who(name, name, Terms::default()), &ask, now, 7));
            let places = gate.places(MODEL).unwrap();
            // Each of six tenants may go beyond its share by the last request's items.
            prop_assert!(places.in_flight <= 3 * 64 + 6 * 5);
        }
        for permit in permits {
            gate.release(permit, now);
        }
        prop_assert_eq!(gate.places(MODEL).unwrap().in_flight, 0);
        prop_assert_eq!(gate.bytes, 0);
    }
}
