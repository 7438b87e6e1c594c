use super::*;
use proptest::prelude::*;

/// Models by their sizes, all resident, used in their order.
fn resident(budget: u64, sizes: &[u64]) -> Residency<usize> {
    let mut residency = Residency::new(budget);
    for (key, size) in sizes.iter().enumerate() {
        residency.add(key, *size).unwrap();
        assert_eq!(residency.begin(key), Ok(vec![]));
        assert_eq!(residency.loaded(key, *size), Ok(vec![]));
    }
    residency
}

#[test]
fn the_least_recently_used_idle_model_makes_room() {
    let mut residency = resident(10, &[4, 3, 3]);
    residency.enter(0); // used now: neither oldest nor idle
    residency.add(3, 3).unwrap();
    assert_eq!(residency.begin(3), Ok(vec![1]));
    assert_eq!(residency.standing(1), Some(Standing::OnDemand));
    assert_eq!(residency.loaded(3, 3), Ok(vec![]));
    assert!(residency.leave(0).is_empty());
    assert_eq!(residency.begin(1), Ok(vec![2]), "2 is older than 0 and 3");
}

#[test]
fn no_more_go_than_must() {
    let mut residency = resident(10, &[1, 8]);
    residency.add(2, 2).unwrap();
    assert_eq!(residency.begin(2), Ok(vec![0]), "8 + 2 fit");
    assert_eq!(residency.resident_bytes(), 10);
}

#[test]
fn what_is_in_use_stays_and_the_newcomer_waits() {
    let mut residency = resident(10, &[6, 4]);
    residency.enter(0);
    residency.add(2, 5).unwrap();
    let no_room = CannotBegin::NoRoom { size_bytes: 5, free_bytes: 4 };
    assert_eq!(residency.begin(2), Err(no_room));
    assert_eq!(residency.standing(1), Some(Standing::Resident), "nobody went in vain");
    assert!(residency.leave(0).is_empty());
    assert_eq!(residency.begin(2), Ok(vec![1, 0]), "1 is idle for longer than 0");
}

#[test]
fn one_that_grew_takes_the_room_of_the_oldest_idle_one() {
    let mut residency = resident(10, &[3, 3, 3]);
    residency.enter(2);
    assert!(residency.measured(2, 4).is_empty());
    assert_eq!(residency.measured(2, 7), vec![0]);
    assert_eq!(residency.measured(2, 1000), vec![1], "in use itself, and held to the budget");
    assert_eq!(residency.size_bytes(2), Some(10));
    assert!(residency.leave(2).is_empty());
}

#[test]
fn what_its_owner_unloads_leaves_its_room_but_not_while_it_is_loaded() {
    let mut residency = resident(10, &[6]);
    residency.unloaded(0);
    assert_eq!(residency.resident_bytes(), 0);
    residency.begin(0).unwrap();
    residency.unloaded(0);
    assert_eq!(residency.standing(0), Some(Standing::Loading));
}

#[test]
fn a_model_larger_than_the_budget_is_refused() {
    let mut residency = Residency::new(10);
    let too_large = TooLarge { size_bytes: 11, budget_bytes: 10 };
    assert_eq!(residency.add(0, 11), Err(too_large));
    residency.add(0, 5).unwrap();
    residency.begin(0).unwrap();
    assert_eq!(residency.loaded(0, 11), Err(too_large));
    assert_eq!(residency.standing(0), None);
    assert_eq!(residency.resident_bytes(), 0);
}

#[test]
fn a_load_larger_than_expected_frees_what_is_idle_now_and_the_rest_later() {
    let mut residency = resident(10, &[4, 4]);
    residency.enter(0);
    residency.add(2, 1).unwrap();
    assert_eq!(residency.begin(2), Ok(vec![]));
    residency.enter(2);
    assert_eq!(residency.loaded(2, 8), Ok(vec![1]), "4 + 8 are still more than 10");
    assert_eq!(residency.resident_bytes(), 12);
    assert_eq!(residency.leave(0), vec![0]);
    assert_eq!(residency.resident_bytes(), 8);
}

#[test]
fn a_load_begins_once_and_may_fail() {
    let mut residency = Residency::new(0);
    residency.add(7, 1 << 40).unwrap();
    assert_eq!(residency.budget_bytes(), None);
    assert_eq!(residency.begin(7), Ok(vec![]));
    assert_eq!(residency.begin(7), Err(CannotBegin::NotOnDemand));
    residency.failed(7);
    assert_eq!(residency.standing(7), Some(Standing::OnDemand));
    assert_eq!(residency.begin(8), Err(CannotBegin::NotOnDemand), "unknown");
}

#[derive(Debug, Clone)]
enum Step {
    Add(u8, u64),
    Remove(u8),
    Enter(u8),
    Leave(u8),
    Begin(u8),
    Loaded(u8, u64),
    Failed(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6_u8;
    prop_oneof![
        (key.clone(), 1..140_u64).prop_map(|(k, size)| Step::Add(k, size)),
        key.clone().prop_map(Step::Remove),
        key.clone().prop_map(Step::Enter),
        key.clone().prop_map(Step::Enter),
        key.clone().prop_map(Step::Leave),
        key.clone().prop_map(Step::Leave),
        key.clone().prop_map(Step::Begin),
        key.clone().prop_map(Step::Begin),
        (key.clone(), 1..140_u64).prop_map(|(k, size)| Step::Loaded(k, size)),
        key.prop_map(Step::Failed),
    ]
}

/// Who uses what, kept apart from the policy under test.
#[derive(Default)]
struct Users(BTreeMap<u8, u32>);

impl Users {
    fn of(&self, key: u8) -> u32 {
        self.0.get(&key).copied().unwrap_or(0)
    }
}

const BUDGET: u64 = 100;

/// Carries one step out as an agent would, and answers which models it has to unload.
fn carry_out(residency: &mut Residency<u8>, users: &mut Users, step: &Step) -> Vec<u8> {
    match *step {
        Step::Add(key, size) if residency.standing(key).is_none() => {
            assert_eq!(residency.add(key, size).is_ok(), size <= BUDGET);
            users.0.remove(&key);
            vec![]
        }
        Step::Remove(key) => {
            residency.remove(key);
            users.0.remove(&key);
            vec![]
        }
        Step::Enter(key) if residency.standing(key).is_some() => {
            residency.enter(key);
            *users.0.entry(key).or_default() += 1;
            vec![]
        }
        Step::Leave(key) if users.of(key) > 0 => {
            *users.0.entry(key).or_default() -= 1;
            residency.leave(key)
        }
        Step::Begin(key) => residency.begin(key).unwrap_or_default(),
        Step::Loaded(key, size) if residency.standing(key) == Some(Standing::Loading) => {
            let before = residency.size_bytes(key).unwrap();
            let gone = residency.loaded(key, size).unwrap_or_default();
            assert!(size > before || gone.is_empty() || residency.resident_bytes() <= BUDGET);
            gone
        }
        Step::Failed(key) if residency.standing(key) == Some(Standing::Loading) => {
            residency.failed(key);
            vec![]
        }
        _ => vec![],
    }
}

proptest! {
    #[test]
    fn the_budget_holds_and_nobody_loses_a_model_in_use(
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut residency = Residency::new(BUDGET);
        let mut users = Users::default();
        for step in &steps {
            let standing: Vec<_> = (0..6).map(|key| residency.standing(key)).collect();
            let used_before: Vec<_> = (0..6).map(|key| users.of(key)).collect();
            let before = residency.resident_bytes();
            let gone = carry_out(&mut residency, &mut users, step);
            for key in &gone {
                prop_assert_eq!(users.of(*key), 0, "{} is in use", key);
                let was = standing[usize::from(*key)];
                prop_assert_eq!(was, Some(Standing::Resident));
                prop_assert_eq!(residency.standing(*key), Some(Standing::OnDemand));
            }
            for key in (0..6).filter(|key| users.of(*key) > 0) {
                if standing[usize::from(key)] == Some(Standing::Resident) {
                    let removed = matches!(step, Step::Remove(gone) if *gone == key);
                    let stays = residency.standing(key) == Some(Standing::Resident);
                    prop_assert!(removed || stays, "{} was taken from its users", key);
                }
            }
            let after = residency.resident_bytes();
            let grown = matches!(step, Step::Loaded(..));
            prop_assert!(after <= BUDGET || after <= before || grown, "{} -> {}", before, after);
            // Whoever leaves, or is loaded, leaves nobody idle above the budget but itself.
            let left = matches!(step, Step::Leave(key) if used_before[usize::from(*key)] > 0);
            let idle = |key: &u8| {
                let just = matches!(step, Step::Loaded(own, _) if own == key);
                users.of(*key) == 0 && !just
                    && residency.standing(*key) == Some(Standing::Resident)
            };
            if after > BUDGET && (left || (grown && after > before)) {
                prop_assert_eq!((0..6).find(idle), None, "one is idle above the budget");
            }
        }
    }

    /// Whatever order requests come in, one at a time each gets its model.
    #[test]
    fn every_model_that_fits_alone_is_reached(
        sizes in proptest::collection::vec(1..=BUDGET, 1..6),
        order in proptest::collection::vec(0..6_usize, 1..60),
    ) {
        let mut residency = Residency::new(BUDGET);
        for (key, size) in sizes.iter().enumerate() {
            residency.add(key, *size).unwrap();
        }
        for key in order.into_iter().map(|key| key % sizes.len()) {
            residency.enter(key);
            if residency.standing(key) == Some(Standing::OnDemand) {
                let gone = residency.begin(key).unwrap();
                prop_assert!(!gone.contains(&key));
                prop_assert_eq!(residency.loaded(key, sizes[key]), Ok(vec![]));
            }
            prop_assert_eq!(residency.standing(key), Some(Standing::Resident));
            prop_assert!(residency.resident_bytes() <= BUDGET);
            prop_assert!(residency.leave(key).is_empty());
        }
    }
}
