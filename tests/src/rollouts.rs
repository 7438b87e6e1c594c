//! Whether roll-outs stop bad versions among their canaries and let good ones through: `fleet::rollout` with what it would
//! hear of two hundred devices, in a time of its own, many times over with other devices and other luck each time.
//!
//! Devices behave as `fleet_sim` has them, with the agent's own judgement of a new version (`edge::shadow`) or, to see what
//! the gates are worth by themselves, without it. Nothing here knows more than what devices report.

pub mod mixed;
mod site;

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::http::HttpResponse;
use fleet::rollout::Phase;
use fleet_sim::behaviour::{Behaviour, Load};
use serde_json::json;
use site::{Conduct, End, Site, Terms};

/// An `agent.toml` of a device that holds nothing against a version, so that the gates of the cloud have to.
pub const LENIENT: &str = "[update]\nshadow_s = 0\ntrial_requests = 1000000\ntrial_s = 36000\n\
                           failures = 1.0\ndisagreement = 1.0\nlatency_factor = 100000.0\n\
                           [link]\nreconnect_max_s = 1\n";

/// The version that answered; nothing where none did.
pub fn answered_by(response: &HttpResponse) -> Option<u64> {
    if response.status != 200 {
        return None;
    }
    response.split().ok()?.0["model_version"].as_str()?.parse().ok()
}

/// Runs of each case.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Of the good version.
    pub good: u64,
    /// Of each bad one, and of each kind of device.
    pub bad: u64,
}

impl Amount {
    /// To see that it holds.
    pub const SHORT: Self = Self { good: 20, bad: 4 };
    /// The proof.
    pub const WHOLE: Self = Self { good: 1000, bad: 100 };
}

/// A version, and how it should go.
struct Case {
    name: &'static str,
    new: Behaviour,
    conduct: Conduct,
    /// Whether it should reach every device.
    is_good: bool,
}

fn cases() -> Vec<Case> {
    let good = Behaviour::default();
    let bad = |name, new| Case { name, new, conduct: Conduct::Honest, is_good: false };
    let odd = |name, conduct, share| Case {
        name,
        new: Behaviour::default(),
        conduct: Conduct::Some(conduct, share),
        is_good: false,
    };
    vec![
        Case { name: "good", new: good.clone(), conduct: Conduct::Honest, is_good: true },
        bad("crashes at load", Behaviour { load: Load::Crashes, ..good.clone() }),
        bad("wrong EP", Behaviour { load: Load::WrongProvider, ..good.clone() }),
        bad("10 x slower", Behaviour { slower: 10.0, ..good.clone() }),
        bad("NaN outputs", Behaviour { errors: 1.0, ..good.clone() }),
        bad("wrong on one class", Behaviour { disagreement: 0.14, differs: 0.13, ..good }),
        odd("devices vanish", site::Oddity::Vanishes, 0.8),
        odd("devices stay on the old version", site::Oddity::Stays, 0.8),
        odd("devices flap", site::Oddity::Flaps, 0.8),
        odd("devices lie", site::Oddity::Lies, 0.8),
    ]
}

/// Runs all cases.
///
/// # Errors
/// A plan that is none.
pub fn run(amount: Amount) -> anyhow::Result<BenchReport> {
    let mut rows = Vec::new();
    let (mut rolled_back, mut good, mut escaped, mut beyond, mut endless) = (0, 0, 0, 0, 0);
    let mut believed = 0;
    for terms in Terms::ALL {
        for case in cases() {
            let runs = if case.is_good { amount.good } else { amount.bad };
            let ends: Vec<End> = (0..runs)
                .map(|seed| Site::new(&terms, &case.new, case.conduct, seed)?.run())
                .collect::<Result<_, _>>()?;
            let count = |holds: &dyn Fn(&End) -> bool| ends.iter().filter(|end| holds(end)).count();
            let passed = count(&|end| end.stage > 0);
            if case.is_good {
                good += ends.len();
                rolled_back += count(&|end| end.phase != Phase::Done);
            } else if case.conduct == Conduct::Honest {
                escaped += passed;
                beyond += count(&|end| end.answered > end.canaries);
            } else {
                believed += passed;
            }
            endless += count(&|end| !end.phase.is_end() && end.phase != Phase::Paused);
            rows.push(row(&terms, &case, &ends, passed));
        }
    }
    let goals = vec![
        Goal::at_most("good versions rolled back, share", 0.01, rolled_back as f64 / good as f64),
        Goal::at_most("bad versions past their canaries", 0.0, escaped as f64),
        Goal::at_most("runs with more devices on a bad version than canaries", 0.0, beyond as f64),
        Goal::at_most(
            "roll-outs past canaries that vanish, stay, flap or lie",
            0.0,
            believed as f64,
        ),
        Goal::at_most("roll-outs without an end", 0.0, endless as f64),
    ];
    Ok(BenchReport { name: "rollout", rows, goals })
}

fn row(terms: &Terms, case: &Case, ends: &[End], passed: usize) -> Row {
    let mut seen: Vec<f64> =
        ends.iter().filter_map(|end| end.stopped_s).map(|s| s / 60.0).collect();
    seen.sort_by(f64::total_cmp);
    let at = |index: usize| seen.get(index).map(|minutes| rounded(*minutes));
    let why = ends.iter().find(|end| !end.reason.is_empty()).map_or("", |end| &end.reason);
    Row(vec![
        ("devices", json!(terms.name)),
        ("version", json!(case.name)),
        ("runs", json!(ends.len())),
        ("done", json!(ends.iter().filter(|end| end.phase == Phase::Done).count())),
        ("past_canaries", json!(passed)),
        ("canaries", json!(ends.iter().map(|end| end.canaries).max())),
        ("answered_max", json!(ends.iter().map(|end| end.answered).max())),
        ("stopped_min_p50", json!(at(seen.len() / 2))),
        ("stopped_min_max", json!(at(seen.len().saturating_sub(1)))),
        ("why", json!(why)),
    ])
}
