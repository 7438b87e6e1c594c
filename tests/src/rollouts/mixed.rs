//! Roll-outs through the real cloud, over two kinds of devices in one fleet: two hundred that are simulated
//! (`fleet_sim`), and three real agents that are asked all the while. Canaries are drawn from both kinds. A good version and
//! five bad ones come one after the other: simulated devices behave by them, real agents get files that are wrong in that
//! very way. Then devices that vanish, stay, flap and lie.
//!
//! What is judged is what the cloud's own lists say while it happens, beside what the devices know of themselves.

mod site;
mod watch;

use crate::bench::{BenchReport, Goal, Row, rounded};
use crate::fashion::versions::Flaw;
use fleet_sim::behaviour::{Behaviour, Load};
use serde_json::json;
use site::Site;
use watch::End;

/// How much of everything.
struct Amount {
    simulated: usize,
    /// More than a sixth of the fleet: by then the first of three real agents has had its turn.
    canaries: usize,
    /// How long canaries are watched.
    soak_s: u32,
    terms: &'static [Terms],
    /// All versions, or those that show that it holds.
    is_whole: bool,
}

const SHORT: Amount =
    Amount { simulated: 60, canaries: 12, soak_s: 10, terms: &[LENIENT], is_whole: false };
const WHOLE: Amount = Amount {
    simulated: 200,
    canaries: 40,
    soak_s: 60,
    terms: &[AS_THEY_COME, LENIENT],
    is_whole: true,
};

/// Whether devices judge versions themselves.
struct Terms {
    name: &'static str,
    /// A real agent's `agent.toml`.
    config: &'static str,
    shadows: bool,
}

const AS_THEY_COME: Terms = Terms {
    name: "as they come",
    config: "[update]\n[link]\nreconnect_max_s = 1\n", // `[update]` says that tests shorten nothing of it
    shadows: true,
};
const LENIENT: Terms = Terms { name: "without shadow", config: super::LENIENT, shadows: false };

/// What is to become of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It reaches all devices.
    Good,
    /// It stays with its canaries.
    Bad,
    /// It is good, and devices do not do as they are told: it stays with the first that are asked, too.
    Odd,
}

/// A version, and how it should go.
struct Case {
    name: &'static str,
    kind: Kind,
    /// How it behaves on simulated devices.
    new: Behaviour,
    /// What is wrong with the files that real agents get; they are left out where that cannot be made.
    flaw: Option<Flaw>,
    /// A device is waited for so long.
    deadline: &'static str,
}

fn cases(amount: &Amount, terms: &Terms) -> Vec<Case> {
    let good = Behaviour::quick();
    let case = |name, kind, new, flaw| Case { name, kind, new, flaw, deadline: "90s" };
    let bad = |name, new, flaw| case(name, Kind::Bad, new, Some(flaw));
    let odd = |name, load| {
        let new = Behaviour { load, ..Behaviour::quick() };
        Case { deadline: "20s", ..case(name, Kind::Odd, new, Some(Flaw::None)) }
    };
    let (trouser, dress) = (1, 3);
    let mut cases = vec![
        case("good", Kind::Good, good.clone(), Some(Flaw::None)),
        bad("crashes at load", Behaviour { load: Load::Crashes, ..good.clone() }, Flaw::Crashes),
        bad("NaN outputs", Behaviour { errors: 1.0, ..good.clone() }, Flaw::NotNumbers),
    ];
    if amount.is_whole {
        let wrong = Behaviour { disagreement: 0.14, differs: 0.13, ..good.clone() };
        // Real agents without an accelerator have none to lose.
        let elsewhere = Behaviour { load: Load::WrongProvider, ..good.clone() };
        cases.extend([
            bad("10 x slower", Behaviour { slower: 10.0, ..good }, Flaw::Slow(TIMES)),
            bad("wrong on one class", wrong, Flaw::Mistakes(trouser, dress)),
            case("wrong EP (simulated devices only)", Kind::Bad, elsewhere, None),
        ]);
    }
    if amount.is_whole && !terms.shadows {
        cases.extend([
            odd("devices stay on the old version", Load::Stays),
            odd("devices lie", Load::Lies),
            odd("devices flap", Load::Flaps),
            odd("devices vanish", Load::Vanishes), // the last: they do not come back
        ]);
    }
    cases
}

/// So many images at a time take the demo's model ten times as long as one, and longer.
const TIMES: i64 = 256;

/// Runs all cases.
///
/// # Errors
/// Programs that do not start, or devices that do not take what they are assigned.
pub fn run(short: bool) -> anyhow::Result<BenchReport> {
    let amount = if short { SHORT } else { WHOLE };
    let (mut rows, mut sums) = (Vec::new(), Sums::default());
    for terms in amount.terms {
        let cases = cases(&amount, terms);
        let mut site = Site::start(&amount, terms, &cases)?;
        for (version, case) in (2..).zip(&cases) {
            let end = site.roll_out(version, case)?;
            eprintln!("{}, {}: {} after {:.1} s", terms.name, case.name, end.phase, end.took_s);
            sums.add(case, &end);
            rows.push(row(terms, &site, case, &end));
        }
    }
    Ok(BenchReport { name: "rollout-fleet", rows, goals: sums.goals() })
}

fn row(terms: &Terms, site: &Site, case: &Case, end: &End) -> Row {
    let real = if case.flaw.is_some() { site.real() } else { 0 };
    Row(vec![
        ("devices", json!(terms.name)),
        ("version", json!(case.name)),
        ("phase", json!(end.phase)),
        ("simulated", json!(site.simulated())),
        ("real", json!(real)),
        ("canaries", json!(end.canaries)),
        ("real_told", json!(end.real_told)),
        ("had_it_most", json!(end.had_it)),
        ("stopped_s", json!(end.stopped_s.map(rounded))),
        ("took_s", json!(rounded(end.took_s))),
        ("why", json!(end.reason)),
        ("a_real_canary", json!(end.real_said)),
    ])
}

/// What the goals are about.
#[derive(Default)]
struct Sums {
    good: u32,
    done: u32,
    escaped: u32,
    beyond: u32,
    believed: u32,
    endless: u32,
    /// Of each bad version that real agents got.
    real_told: Vec<usize>,
}

impl Sums {
    fn add(&mut self, case: &Case, end: &End) {
        let is_past = end.stage > 1;
        match case.kind {
            Kind::Good => {
                self.good += 1;
                self.done += u32::from(end.phase == "done");
            }
            Kind::Bad => {
                self.escaped += u32::from(is_past || end.phase == "done");
                self.beyond += u32::from(end.had_it > end.canaries);
                self.real_told.extend(case.flaw.map(|_| end.real_told));
            }
            Kind::Odd => self.believed += u32::from(is_past || end.phase == "done"),
        }
        self.endless += u32::from(end.is_endless);
    }

    fn goals(&self) -> Vec<Goal> {
        let fewest = self.real_told.iter().min().copied().unwrap_or(0);
        vec![
            Goal::at_least(
                "good versions that reached every device, share",
                1.0,
                f64::from(self.done) / f64::from(self.good),
            ),
            Goal::at_most("bad versions past their canaries", 0.0, self.escaped.into()),
            Goal::at_most(
                "bad versions that more devices than canaries ever had",
                0.0,
                self.beyond.into(),
            ),
            Goal::at_least("real agents that were canaries of each of them", 1.0, fewest as f64),
            Goal::at_most(
                "roll-outs past canaries that vanish, stay, flap or lie",
                0.0,
                self.believed.into(),
            ),
            Goal::at_most("roll-outs without an end", 0.0, self.endless.into()),
        ]
    }
}
