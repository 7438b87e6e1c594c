use super::*;
use proptest::prelude::*;

/// When the program was built, in these tests.
const BUILD_MS: i64 = 1_800_000_000_000;
const DAY: i64 = 86_400_000;
const HOUR: i64 = DAY / 24;
const YEAR: i64 = 365 * DAY;

fn reading(system_ms: i64, counter_ms: i64) -> Reading {
    Reading { system_ms, counter_ms: counter_ms.unsigned_abs() }
}

/// A device that starts with its system's clock `off_ms` from the truth, which is a year after the
/// build; the second number is the truth.
fn started(off_ms: i64, kept: Kept) -> (DeviceTime, i64) {
    let truth_ms = BUILD_MS + YEAR;
    (DeviceTime::new(BUILD_MS, kept, reading(truth_ms + off_ms, 0)), truth_ms)
}

/// Tells it the time, `after_ms` after its start, within 40 ms.
fn tell(time: &mut DeviceTime, signed_ms: i64, after_ms: i64) -> Result<Accepted, RefusedTime> {
    time.accept(signed_ms, reading(0, after_ms), reading(0, after_ms + 40))
}

#[test]
fn before_anything_is_signed_the_system_is_believed_where_it_can_be() {
    let last = Kept { floor_ms: BUILD_MS, last_ms: BUILD_MS + YEAR / 2 };
    for (off_ms, kept, basis) in [
        (0, Kept::default(), Basis::System),
        (-YEAR, Kept::default(), Basis::System), // at the build
        (-YEAR - DAY, Kept::default(), Basis::Known),
        (-YEAR / 2, last, Basis::System),
        (-YEAR / 2 - DAY, last, Basis::Known),
        (6 * YEAR, last, Basis::System), // it may have been off for so long
        (40 * YEAR, last, Basis::Known),
        (-(BUILD_MS + YEAR), last, Basis::Known), // 1970
        (i64::MAX - BUILD_MS - YEAR, last, Basis::Known),
    ] {
        let (time, truth_ms) = started(off_ms, kept);
        let now = time.now(reading((truth_ms + off_ms).saturating_add(5000), 5000));
        assert_eq!(now.basis, basis, "{off_ms}");
        if basis == Basis::Known {
            assert_eq!(now.unix_ms, kept.last_ms.max(BUILD_MS) + 5000, "{off_ms}");
        }
    }
}

#[test]
fn signed_time_outvotes_the_system_and_lets_it_back() {
    for off_ms in [-6 * YEAR, -2 * DAY, 2 * DAY, 6 * YEAR] {
        let (mut time, truth_ms) = started(off_ms, Kept::default());
        assert!(!time.is_verified());
        tell(&mut time, truth_ms, 0).unwrap();
        assert!(time.is_verified());
        let now = time.now(reading(truth_ms + off_ms + DAY, DAY));
        assert_eq!((now.unix_ms, now.basis), (truth_ms + DAY - 20, Basis::Signed));
        assert!((now.system_off_ms - off_ms).abs() < 100);
        // Somebody sets the clock right.
        let now = time.now(reading(truth_ms + DAY, DAY));
        assert_eq!((now.unix_ms, now.basis), (truth_ms + DAY, Basis::System));
        // And wrong again, while it runs.
        assert_eq!(time.now(reading(truth_ms - YEAR, DAY)).basis, Basis::Signed);
    }
}

#[test]
fn time_before_the_floor_is_refused_and_changes_nothing() {
    let (_, truth_ms) = started(0, Kept::default());
    let kept = Kept { floor_ms: truth_ms, last_ms: truth_ms };
    let (mut time, _) = started(0, kept);
    let signed_ms = truth_ms - DAY;
    let refused = tell(&mut time, signed_ms, 0).unwrap_err();
    assert_eq!(refused, RefusedTime::BeforeFloor { signed_ms, floor_ms: truth_ms });
    assert!(refused.to_string().contains("24.0 hours behind what"), "{refused}");
    assert!(!time.is_verified());
    // Clouds may differ by a little, and the floor does not go back with them.
    tell(&mut time, truth_ms - 30_000, 0).unwrap();
    assert_eq!(time.now.floor_ms, truth_ms);
    let (mut fresh, _) = started(0, Kept::default());
    assert!(matches!(
        tell(&mut fresh, BUILD_MS - DAY, 0),
        Err(RefusedTime::BeforeFloor { floor_ms: BUILD_MS, .. })
    ));
}

#[test]
fn what_cannot_be_is_refused() {
    let (mut time, truth_ms) = started(0, Kept::default());
    assert!(matches!(tell(&mut time, truth_ms + 40 * YEAR, 0), Err(RefusedTime::TooFar { .. })));
    assert!(matches!(tell(&mut time, i64::MAX, 0), Err(RefusedTime::TooFar { .. })));
    assert!(matches!(tell(&mut time, i64::MIN, 0), Err(RefusedTime::BeforeFloor { .. })));
    let slow = time.accept(truth_ms, reading(0, 0), reading(0, 10_001));
    assert_eq!(slow, Err(RefusedTime::TooSlow { round_trip_ms: 10_001 }));
    assert!(!time.is_verified());
}

/// The cloud's clock stands ten years ahead for three days, in which the device is started twice.
/// After that the truth is refused for three more, not for ten years.
#[test]
fn a_cloud_that_was_far_ahead_does_not_lock_the_device_out_for_ever() {
    let (_, truth_ms) = started(0, Kept::default());
    let mut kept = Kept { floor_ms: truth_ms, last_ms: truth_ms };
    for _start in 0..2 {
        let (mut time, _) = started(0, kept);
        for hour in 0..36 {
            let signed_ms = truth_ms + 10 * YEAR + hour * DAY / 24;
            let accepted = tell(&mut time, signed_ms, hour * DAY / 24).unwrap();
            kept = accepted.keep.unwrap_or(kept);
            // It is believed, for the time being.
            assert_eq!(time.now(reading(truth_ms, hour * DAY / 24 + 40)).basis, Basis::Signed);
        }
    }
    let ahead_ms = kept.floor_ms - truth_ms;
    assert!(ahead_ms <= 2 * HOUR + 6 * DAY + 1000, "{}", Offset(ahead_ms));
    let (mut time, _) = started(0, kept);
    assert!(tell(&mut time, truth_ms + 3 * DAY, 0).is_err());
    tell(&mut time, truth_ms + 7 * DAY, 0).unwrap();
    assert_eq!(time.now(reading(truth_ms + 7 * DAY, 0)).basis, Basis::System);
}

#[test]
fn a_cloud_whose_clock_is_set_is_noticed() {
    let (mut time, truth_ms) = started(0, Kept::default());
    assert_eq!(tell(&mut time, truth_ms, 0).unwrap().cloud_jumped_ms, None);
    assert_eq!(tell(&mut time, truth_ms + DAY, DAY).unwrap().cloud_jumped_ms, None);
    let jumped_ms = tell(&mut time, truth_ms + YEAR, DAY).unwrap().cloud_jumped_ms.unwrap();
    assert!((jumped_ms - (YEAR - DAY)).abs() < 1000, "{jumped_ms}");
}

#[test]
fn what_is_kept_is_written_seldom() {
    let (mut time, truth_ms) = started(0, Kept::default());
    let first = tell(&mut time, truth_ms, 0).unwrap().keep.unwrap();
    assert_eq!(first, Kept { floor_ms: BUILD_MS + HOUR + 80, last_ms: truth_ms });
    let minute = 60_000;
    assert_eq!(tell(&mut time, truth_ms + minute, minute).unwrap().keep, None);
    assert!(tell(&mut time, truth_ms + 11 * minute, 11 * minute).unwrap().keep.is_some());
}

#[test]
fn validity_and_words() {
    let validity = Validity { not_before_s: 10, not_after_s: 20 };
    let judged = [9, 10, 20, 21].map(|now_s| validity.check(now_s));
    assert_eq!(judged, [Err(NotValid::NotYet(1)), Ok(()), Ok(()), Err(NotValid::Ended(1))]);
    let words = [-6 * YEAR, 3 * DAY, -2 * DAY / 24, 1500].map(|ms| Offset(ms).to_string());
    assert_eq!(words, ["6.0 years behind", "3.0 days ahead", "2.0 hours behind", "1.5 s ahead"]);
}

proptest! {
    /// Whatever is signed, in whatever order: the floor never goes back, what is kept is never
    /// before it, and never rises faster than twice the time that passed and an hour.
    #[test]
    fn the_floor_only_rises_and_not_fast(
        signed in prop::collection::vec((-YEAR..40 * YEAR, 0..30 * DAY), 1..20),
    ) {
        let (mut time, truth_ms) = started(0, Kept::default());
        let mut counter_ms = 0;
        for (off_ms, passed_ms) in signed {
            counter_ms += passed_ms;
            let before_ms = time.now.floor_ms;
            let _ = tell(&mut time, truth_ms + off_ms, counter_ms);
            prop_assert!(time.now.floor_ms >= before_ms);
            prop_assert!(time.now.floor_ms <= BUILD_MS + HOUR + 2 * (counter_ms + 40));
        }
    }
}
