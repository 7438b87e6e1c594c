//! What a version on probation may do, and what it may not.
#![allow(clippy::disallowed_methods)] // the origin of the tests' own time line

use super::*;

const MS: Duration = Duration::from_millis(1);

fn terms() -> Terms {
    Terms {
        trial_requests: 20,
        trial: Duration::from_secs(600),
        soak: Duration::from_secs(86_400),
        limits: Limits::default(),
    }
}

fn on_trial(reference: Option<Duration>, has_previous: bool, now: Instant) -> Probation {
    Probation::new(terms(), (Standing::Trial, Duration::ZERO), reference, has_previous, now)
}

#[test]
fn table() {
    let mut lines = Vec::new();
    for standing in [Standing::Trial, Standing::Soak, Standing::Trusted] {
        for event in [Event::Passed, Event::Settled, Event::Tripped, Event::Stayed] {
            let to = transition(standing, event).map_or("-".into(), |to| format!("{to:?}"));
            lines.push(format!("{:8} {:8} -> {to}", format!("{standing:?}"), format!("{event:?}")));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn good_answers_pass_and_time_settles() {
    let now = Instant::now();
    let mut watch = on_trial(Some(10 * MS), true, now);
    for _ in 0..19 {
        assert_eq!(watch.handle_run(Run::Answered(12 * MS), now), None);
    }
    assert_eq!(watch.handle_run(Run::Answered(12 * MS), now), Some(Verdict::Passed));
    assert_eq!(watch.standing(), Standing::Soak);
    let later = now + Duration::from_secs(60);
    assert_eq!(watch.poll_timeout(), Some(later));
    assert_eq!(watch.handle_timeout(later), Some(Verdict::Word { lived: Duration::from_secs(60) }));
    assert_eq!(watch.handle_timeout(later), None);
    let end = now + Duration::from_secs(86_400);
    assert_eq!(watch.handle_timeout(end), Some(Verdict::Settled));
    assert_eq!(watch.poll_timeout(), None);
    assert_eq!(watch.handle_run(Run::Failed("x"), end), None, "nobody looks any more");
}

#[test]
fn a_device_that_nobody_asks_passes_by_time() {
    let now = Instant::now();
    let mut watch = on_trial(None, true, now);
    let word = watch.poll_timeout().unwrap();
    assert!(matches!(watch.handle_timeout(word), Some(Verdict::Word { .. })));
    let end = watch.poll_timeout().unwrap();
    assert_eq!(end, now + Duration::from_secs(600));
    assert_eq!(watch.handle_timeout(end), Some(Verdict::Passed));
}

#[test]
fn the_soak_goes_on_where_it_was_before_a_restart() {
    let now = Instant::now() + Duration::from_secs(100_000);
    let lived = Duration::from_secs(86_000);
    let watch = Probation::new(terms(), (Standing::Soak, lived), None, true, now);
    assert_eq!(watch.end(), Some(now + Duration::from_secs(400)));
}

/// Runs until something is said.
fn said(watch: &mut Probation, runs: &[Run<'_>]) -> Option<Verdict> {
    let now = Instant::now();
    runs.iter().cycle().take(60).find_map(|run| watch.handle_run(*run, now))
}

#[test]
fn what_fails_or_is_slow_goes_back() {
    let now = Instant::now();
    let failed = Some(Verdict::RollBack(Fault::Fails { failed: 3, of: 3, why: "NaN".into() }));
    assert_eq!(said(&mut on_trial(None, true, now), &[Run::Failed("NaN")]), failed);

    let limit = 25 * MS;
    for slow in [Run::Answered(30 * MS), Run::Late(30 * MS)] {
        let fault = Fault::Slow { median: 30 * MS, limit };
        let mut watch = on_trial(Some(10 * MS), true, now);
        assert_eq!(said(&mut watch, &[slow]), Some(Verdict::RollBack(fault)));
        assert_eq!(watch.standing(), Standing::Trusted);
        watch.stays(now);
        assert!(matches!(said(&mut watch, &[slow]), Some(Verdict::RollBack(_))), "once more");
    }
    let mostly_quick = [Run::Answered(10 * MS), Run::Answered(10 * MS), Run::Answered(99 * MS)];
    let mut watch = on_trial(Some(10 * MS), true, now);
    assert_eq!(said(&mut watch, &mostly_quick), Some(Verdict::Passed));

    let mut soaking =
        Probation::new(terms(), (Standing::Soak, Duration::ZERO), Some(10 * MS), true, now);
    assert!(matches!(said(&mut soaking, &[Run::Failed("x")]), Some(Verdict::RollBack(_))));
}

#[test]
fn without_a_version_before_it_a_failing_one_still_answers() {
    let now = Instant::now();
    let mut watch = on_trial(None, false, now);
    assert_eq!(said(&mut watch, &[Run::Failed("x"), Run::Late(MS)]), None);
    assert_eq!(said(&mut watch, &[Run::Answered(MS)]), Some(Verdict::Passed));
}

#[test]
fn starts_without_a_word_and_crashes_are_counted_apart() {
    let power_cut = |lives: Lives, n: u32| lives.start(&format!("boot {n}"), false);
    let mut lives = Lives::begin("boot");
    for n in 1..3 {
        lives = power_cut(lives, n);
        assert_eq!((lives.starts, lives.crashes, lives.fault(3)), (n, 0, None));
    }
    assert_eq!(power_cut(lives.clone(), 3).fault(3), Some(Fault::Starts { starts: 3 }));
    let well = Lives { well: true, ..lives.clone() };
    assert_eq!(power_cut(well, 3).starts, 0, "it was well before that");
    assert_eq!(lives.ended_well().start("boot", false).starts, 0);

    // It crashes every hour.
    let mut lives = Lives::begin("boot");
    for n in 1..=3 {
        lives = Lives { well: true, ..lives }.start("boot", false);
        assert_eq!((lives.starts, lives.crashes), (0, n));
    }
    assert_eq!(lives.fault(3), Some(Fault::Crashes { crashes: 3 }));
}

#[test]
fn what_another_model_did_is_not_held_against_it() {
    let mut lives = Lives::begin("boot").start("boot", false);
    for _ in 0..10 {
        lives = lives.start("boot", true);
        assert_eq!((lives.starts, lives.crashes, lives.fault(2)), (1, 1, None));
    }
    assert!(lives.start("boot", false).fault(2).is_some(), "nor forgotten what it did itself");
}
