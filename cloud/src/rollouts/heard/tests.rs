//! What is heard of whom, and what is left aside.

use super::*;
use fleet::rollout::cohort::Candidate;
use fleet::rollout::plan::Plan;
use protocol::wire::ModelEvidence;

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

fn rollout() -> Rollout {
    let candidate = |name: &str| Candidate {
        device: device(name),
        labels: [("site".to_owned(), "lyon".to_owned())].into(),
        agent_version: "0.1.0".to_owned(),
        active: Version::new(1),
        is_online: true,
    };
    let plan = Plan {
        model: Some("m".parse().unwrap()),
        version: Version::new(2),
        target: Some("site=lyon".parse().unwrap()),
        ..Plan::default()
    };
    Rollout::plan(plan, &[candidate("d-1"), candidate("d-2")], &"ada".into(), &[1; 16], 0)
        .unwrap()
        .0
}

fn evidence(name: &str, version: u64, requests: u64) -> Evidence {
    let row = ModelEvidence { name: name.into(), version, life: 1, requests, ..Default::default() };
    Evidence { models: vec![row] }
}

fn runs(active_version: u64, target_version: u64, phase: &str) -> ReportedState {
    let own = ReportedModel {
        name: "m".into(),
        active_version,
        target_version,
        phase: phase.into(),
        reason: "it is slow".into(),
        ..Default::default()
    };
    ReportedState { models: vec![own], ..Default::default() }
}

#[test]
fn only_what_was_asked_for_is_kept() {
    let heard = Heard::new(5);
    heard.hear_evidence(&device("d-1"), &evidence("m", 1, 10));
    assert!(heard.take_changed().is_empty() && heard.watch_of(&device("d-1")).is_none());
    let rollout = rollout();
    assert_eq!(heard.watch([&rollout].into_iter()).len(), 2, "both have to hear of it");
    assert!(heard.watch([&rollout].into_iter()).is_empty(), "they have heard of it");
    let watch = heard.watch_of(&device("d-1")).unwrap();
    assert_eq!((watch.models, watch.every_s), (vec!["m".to_owned()], 5));
    assert_eq!(watch.calls_per_check, 20);
    for name in ["m", "other"] {
        heard.hear_evidence(&device("d-1"), &evidence(name, 1, 10));
    }
    heard.hear_evidence(&device("d-9"), &evidence("m", 1, 10));
    let changed = heard.take_changed();
    assert_eq!(changed.len(), 1);
    assert!(heard.take_changed().is_empty());
    heard.changed_again(changed);
    assert_eq!(heard.take_changed().len(), 1);
    assert_eq!(heard.watch(std::iter::empty()).len(), 2);
    assert!(heard.lock().ledgers.is_empty());
}

#[test]
fn a_device_reports_once_it_has_said_what_its_version_counts() {
    let heard = Heard::new(5);
    let (rollout, one) = (rollout(), device("d-1"));
    let _ = heard.watch([&rollout].into_iter());
    let reports = || heard.reports(&rollout);
    assert!(reports().is_empty(), "nobody is connected");
    let news = heard.enter(&one);
    assert_eq!(reports()[0].1, Report::default(), "it has no version of it");
    heard.hear_state(&one, &runs(1, 0, "idle"));
    assert!(reports().is_empty(), "it has not said what it counts");
    heard.hear_evidence(&one, &evidence("m", 1, 10));
    assert_eq!(reports()[0].1.tally.as_ref().unwrap().requests, 10);
    heard.hear_state(&one, &runs(1, 2, "refused"));
    assert_eq!(reports()[0].1.refused.as_deref(), Some("it is slow"));
    heard.hear_state(&one, &runs(1, 3, "refused"));
    assert_eq!(reports()[0].1.refused, None, "of another version");
    heard.tell([&one, &device("d-2")].into_iter());
    assert_eq!(news.times(), 1);
    heard.leave(&one);
    assert!(reports().is_empty());
}

#[test]
fn what_keeps_a_device_that_was_told_is_said() {
    let heard = Heard::new(5);
    let mut rollout = rollout();
    let is_told = |rollout: &Rollout| {
        let mut members = rollout.members().iter();
        members.find(|(_, member)| member.standing == Standing::Told).map(|(own, _)| own.clone())
    };
    for now_s in (0..600).step_by(10) {
        for own in ["d-1", "d-2"] {
            rollout.handle_report(&device(own), &Report::default(), now_s);
        }
        rollout.poll(now_s);
    }
    let told = is_told(&rollout).unwrap();
    let words = || heard.words(&rollout).into_values().collect::<Vec<_>>();
    assert_eq!(words(), ["not connected"]);
    let _here = heard.enter(&told);
    assert_eq!(words(), ["has not taken it up yet"]);
    heard.hear_state(&told, &runs(1, 2, "shadow"));
    assert_eq!(words(), ["shadow: it is slow"]);
    heard.hear_state(&told, &runs(1, 3, "shadow"));
    assert_eq!(words(), ["has not taken it up yet"]);
    heard.hear_state(&told, &runs(2, 0, "trial"));
    assert_eq!(words(), ["answers"]);
}
