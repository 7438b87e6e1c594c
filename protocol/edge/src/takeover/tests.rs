//! The table, each way back, and every sequence of what can happen to a device.

use super::*;
use proptest::prelude::*;

const STAGES: [Stage; 4] = [Stage::Settled, Stage::Staged, Stage::Trial, Stage::Soak];
const EVENTS: [Event; 7] = [
    Event::Staged,
    Event::Withdrawn,
    Event::Started,
    Event::Well,
    Event::Held,
    Event::Failed,
    Event::Superseded,
];

#[test]
fn table() {
    let mut lines = Vec::new();
    for stage in STAGES {
        for event in EVENTS {
            let to = transition(stage, event).map_or("-".into(), |next| format!("{next:?}"));
            let (stage, event) = (format!("{stage:?}"), format!("{event:?}"));
            lines.push(format!("{stage:8} {event:11} -> {to}"));
        }
    }
    insta::assert_snapshot!(lines.join("\n"));
}

fn program(minor: u32) -> Program {
    let version = ReleaseVersion::new(0, minor, 0);
    Program { version, sha256: ContentHash::of(version.to_string().as_bytes()) }
}

fn candidate(minor: u32) -> Candidate {
    Candidate {
        program: program(minor),
        terms: Terms::default(),
        oldest: None,
        models: vec!["fashion".into()],
        lives: Lives::begin(""),
        begun_s: 0,
    }
}

fn staged(minor: u32) -> Takeover {
    let mut takeover = Takeover::default();
    takeover.stage(candidate(minor)).unwrap();
    takeover
}

fn start(takeover: &mut Takeover, uptime_s: u64) -> Launch {
    takeover.launch(Start { installed: program(1).version, boot: "boot", uptime_s })
}

fn launches(takeover: &mut Takeover, uptime_s: u64, minor: Option<u32>) {
    assert_eq!(start(takeover, uptime_s).program, minor.map(program));
}

#[test]
fn a_candidate_that_is_well_takes_over() {
    let mut takeover = staged(2);
    let alarm_s = Some(Terms::default().patience_s + GRACE_S);
    assert_eq!(start(&mut takeover, 5), Launch { program: Some(program(2)), alarm_s });
    takeover.well().unwrap();
    takeover.ends_in_order();
    assert_eq!(start(&mut takeover, 9), Launch { program: Some(program(2)), alarm_s: None });
    takeover.candidate.as_mut().unwrap().oldest = Some(program(2).version);
    takeover.held().unwrap();
    launches(&mut takeover, 10, Some(2));
    takeover.stage(candidate(3)).unwrap();
    launches(&mut takeover, 11, Some(3));
    takeover.well().unwrap();
    takeover.held().unwrap();
    assert_eq!(
        (takeover.current.clone(), takeover.spare.clone()),
        (Some(program(3)), Some(program(2)))
    );
    // Damage of what runs leads to what ran before, and then to what is installed.
    takeover.damaged(&program(3), "is damaged");
    launches(&mut takeover, 12, Some(2));
    takeover.damaged(&program(2), "is damaged");
    launches(&mut takeover, 13, None);
    assert_eq!(takeover.note, "the program of version 0.2.0 is damaged");
}

#[test]
fn three_ends_without_a_word_are_enough() {
    let mut takeover = staged(2);
    for uptime_s in [10, 20, 30] {
        launches(&mut takeover, uptime_s, Some(2));
    }
    launches(&mut takeover, 40, None);
    let refused = takeover.refused.clone().unwrap();
    assert_eq!(refused.reason, "it ended 3 times in a row before it was well");
    assert!(refused.is_proven && takeover.candidate.is_none());
    assert_eq!(wish(&takeover, 2), Wish::Refuse(refused.reason));
    assert_eq!(wish(&takeover, 3), Wish::Get);
    takeover.forgive();
    assert_eq!(wish(&takeover, 2), Wish::Get);
}

#[test]
fn crashes_count_in_the_soak_too() {
    let mut takeover = staged(2);
    launches(&mut takeover, 1, Some(2));
    takeover.well().unwrap();
    launches(&mut takeover, 1_000, Some(2));
    takeover.word();
    launches(&mut takeover, 2_000, Some(2));
    takeover.word();
    launches(&mut takeover, 3_000, None);
    assert_eq!(takeover.refused.unwrap().reason, "it crashed 3 times");
}

#[test]
fn one_that_hangs_has_one_chance() {
    let mut takeover = staged(2);
    launches(&mut takeover, 100, Some(2));
    launches(&mut takeover, 100 + 310, None); // the alarm has ended it
    let reason = takeover.refused.unwrap().reason;
    assert_eq!(reason, "it was not well within 300 s, and did not end by itself");
}

#[test]
fn an_orderly_end_and_another_run_of_the_device_are_no_hanging() {
    let mut takeover = staged(2);
    launches(&mut takeover, 100, Some(2));
    takeover.ends_in_order();
    launches(&mut takeover, 1_000, Some(2));
    let again = Start { installed: program(1).version, boot: "another", uptime_s: 5_000 };
    assert_eq!(takeover.launch(again).program, Some(program(2)));
}

fn wish(takeover: &Takeover, minor: u32) -> Wish {
    takeover.wish(Some(Wanted { program: &program(minor), installed: &program(1) }))
}

#[test]
fn what_is_wanted_decides() {
    let settled = Takeover::default();
    assert_eq!(settled.wish(None), Wish::Rest);
    assert_eq!(wish(&settled, 1), Wish::Rest);
    assert_eq!(wish(&settled, 2), Wish::Get);
    assert!(matches!(wish(&settled, 0), Wish::Refuse(why) if why.contains("0.1.0 is installed")));
    let other = Program { sha256: ContentHash::of(b"other"), ..program(1) };
    let (program, installed) = (&other, &program(1));
    let found = settled.wish(Some(Wanted { program, installed }));
    assert!(matches!(found, Wish::Refuse(why) if why.contains("another build")));

    let mut takeover = staged(2);
    assert_eq!((wish(&takeover, 2), wish(&takeover, 3)), (Wish::Rest, Wish::Withdraw));
    assert_eq!(takeover.wish(None), Wish::Withdraw);
    start(&mut takeover, 1);
    assert_eq!((wish(&takeover, 2), wish(&takeover, 3)), (Wish::Rest, Wish::Await));
    takeover.well().unwrap();
    assert_eq!([1, 2, 3].map(|n| wish(&takeover, n)), [Wish::Withdraw, Wish::Rest, Wish::Settle]);
    takeover.candidate.as_mut().unwrap().oldest = Some(ReleaseVersion::new(0, 2, 0));
    takeover.held().unwrap();
    assert_eq!(wish(&takeover, 2), Wish::Rest);
    assert!(matches!(wish(&takeover, 1), Wish::Refuse(why) if why.contains("older than 0.2.0")));
    takeover.oldest = None;
    assert_eq!(wish(&takeover, 1), Wish::UseInstalled);
    takeover.use_installed();
    launches(&mut takeover, 9, None);
}

#[test]
fn a_cloud_that_nobody_reaches_is_nobodys_fault() {
    for (after_s, expected) in [(299, Some(true)), (301, None)] {
        let mut takeover = staged(2);
        start(&mut takeover, 1);
        assert!(takeover.fail("it has not reached the cloud within 300 s".into(), false));
        assert_eq!(wish(&takeover, 2), Wish::Get, "but a cloud must be heard for that");
        takeover.reached(after_s);
        assert_eq!(takeover.refused.map(|refused| refused.is_proven), expected);
    }
}

#[test]
fn a_newer_package_is_what_runs() {
    let mut takeover = staged(2);
    start(&mut takeover, 1);
    takeover.well().unwrap();
    takeover.held().unwrap();
    takeover.stage(candidate(3)).unwrap();
    let launch = |takeover: &mut Takeover, minor| {
        let installed = ReleaseVersion::new(0, minor, 0);
        takeover.launch(Start { installed, boot: "boot", uptime_s: 2 }).program
    };
    assert_eq!(launch(&mut takeover.clone(), 2), Some(program(3)));
    assert_eq!(launch(&mut takeover, 3), None);
    assert_eq!(takeover, Takeover { oldest: takeover.oldest, ..Takeover::default() });
}

#[test]
fn a_record_of_another_age_is_read() {
    let text = r#"{"stage":"trial","candidate":{"program":{"version":"0.2.0","sha256":"HASH"},
        "lives":{"open":true,"well":false,"starts":1,"crashes":0,"boot":"b"},"later":1},"later":[2]}"#;
    let hash = ContentHash::of(b"0.2.0").to_string();
    let record: Takeover = serde_json::from_str(&text.replace("HASH", &hash)).unwrap();
    assert_eq!(record.running(), Some(&program(2)));
    assert_eq!(record.candidate.unwrap().terms, Terms::default());
    assert_eq!(serde_json::from_str::<Takeover>("{}").unwrap(), Takeover::default());
}

/// What can happen between two starts.
#[derive(Debug, Clone, Copy)]
enum Chance {
    Crash,
    Stop,
    Well,
    Held,
    Fail,
    Stage(u32),
    Withdraw,
    Damage(u32),
    Install(u32),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        4 => Just(Chance::Crash),
        2 => Just(Chance::Stop),
        3 => Just(Chance::Well),
        2 => Just(Chance::Held),
        1 => Just(Chance::Fail),
        4 => (2..9u32).prop_map(Chance::Stage),
        1 => Just(Chance::Withdraw),
        1 => (1..9u32).prop_map(Chance::Damage),
        1 => (1..9u32).prop_map(Chance::Install),
    ]
}

proptest! {
    /// A program that is never well begins three times at most, and no start is without a program that is
    /// kept or installed, nor with one that is older than what is installed.
    #[test]
    fn every_start_begins_with_something_good(chances in prop::collection::vec(chance(), 1..60)) {
        let (mut takeover, mut installed, mut uptime_s) = (Takeover::default(), 1, 0);
        let mut begun: Option<(Program, u32)> = None;
        for chance in chances {
            match chance {
                Chance::Crash => {}
                Chance::Stop => takeover.ends_in_order(),
                Chance::Well => drop(takeover.well()),
                Chance::Held => drop(takeover.held()),
                Chance::Fail => drop(takeover.fail("a fault".into(), true)),
                Chance::Stage(minor) => {
                    if matches!(wish(&takeover, minor), Wish::Get) {
                        takeover.stage(candidate(minor)).unwrap();
                        begun = None;
                    }
                }
                Chance::Withdraw => drop(takeover.withdraw()),
                Chance::Damage(minor) => takeover.damaged(&program(minor), "is damaged"),
                Chance::Install(minor) => installed = installed.max(minor),
            }
            if !matches!(chance, Chance::Crash) {
                begun = None;
            }
            uptime_s += 1;
            let at = Start { installed: ReleaseVersion::new(0, installed, 0), boot: "b", uptime_s };
            let launch = takeover.launch(at);
            prop_assert_eq!(launch.program.as_ref(), takeover.running());
            let Some(program) = launch.program else { continue };
            prop_assert!(program.version > ReleaseVersion::new(0, installed, 0));
            prop_assert!(takeover.kept().any(|kept| *kept == program));
            prop_assert!(takeover.kept().count() <= 2, "there are two slots");
            if launch.alarm_s.is_some() {
                let times = begun.as_ref().filter(|(p, _)| *p == program).map_or(1, |(_, n)| n + 1);
                prop_assert!(times <= 3, "it has had its chances");
                begun = Some((program, times));
            }
        }
    }
}
