//! What a pair of models defers, what that costs in accuracy, and whether the calibration's promise
//! holds; beside the rules of others on the same data.
//!
//! The models are run once. Then calibration sets are drawn again and again, with replacement: `draws`
//! calibrates on each, judges on the test set (which took part in nothing) what comes of it, and on all
//! items together, where the true risk of a rule is known, how often the bound was broken. `rules` has
//! the others, `plot` the curves.

use models::confidence::score;
use protocol::manifest::Score;
use serde_json::{Value, json};
use std::path::PathBuf;

use super::{BenchReport, Goal, Row};
use draws::{Bounded, CONFIDENCE};
use rules::{Outcome, curve, decide, outcome, within};
use task::Task;

mod draws;
mod linear;
mod lines;
mod plot;
mod rules;
mod task;

/// Where data and models are, and where plots go.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Sources {
    /// For `cascade`: the folder with Fashion-MNIST's four files.
    #[arg(long, value_name = "DIR")]
    fashion: Option<PathBuf>,
    /// For `cascade` and `compress`: the file of rated lines from film reviews.
    #[arg(long, value_name = "FILE")]
    pub lines: Option<PathBuf>,
    /// For `cascade` and `compress`: the folder with MiniLM and its tokenizer, and the other models.
    #[arg(long, value_name = "DIR")]
    pub models: Option<PathBuf>,
    /// For `cascade`: a pair of your own, an authoring folder with both variants.
    #[arg(long, value_name = "FOLDER", requires = "data")]
    pair: Option<PathBuf>,
    /// For `cascade`: labelled data for that pair.
    #[arg(long, value_name = "DATA", requires = "pair")]
    data: Option<PathBuf>,
    /// For `cascade`: where the plots go.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
struct Amount {
    /// Draws that are judged on the test set.
    test_draws: u64,
    /// Draws that are judged on all items.
    pool_draws: u64,
    /// Items of a draw, at most half of all.
    items: usize,
}

const WHOLE: Amount = Amount { test_draws: 100, pool_draws: 500, items: 5000 };
const SHORT: Amount = Amount { test_draws: 20, pool_draws: 60, items: 3000 };

/// Runs the bench; `None`, with the reason printed, where there are no data at all.
///
/// # Errors
/// Data or models that are there and cannot be used.
pub fn run(sources: &Sources, short: bool) -> anyhow::Result<Option<BenchReport>> {
    let amount = if short { SHORT } else { WHOLE };
    let mut tasks = Vec::new();
    if let (Some(pair), Some(data)) = (&sources.pair, &sources.data) {
        tasks.push(task::of_pair(pair, data)?);
    } else {
        match &sources.fashion {
            Some(folder) => tasks.push(task::fashion(folder, short)?),
            None => println!("SKIPPED: fashion: its data are not there"),
        }
        match (&sources.lines, &sources.models) {
            (Some(lines), Some(models)) => tasks.push(lines::task(lines, models, short)?),
            (None, _) => println!("SKIPPED: movie lines: the lines are not there"),
            (_, None) => println!("SKIPPED: movie lines: give the models with --models DIR"),
        }
    }
    if tasks.is_empty() {
        return Ok(None);
    }
    let mut report = BenchReport { name: "cascade", rows: Vec::new(), goals: Vec::new() };
    let mut bounds = Vec::new();
    for task in &tasks {
        rules_table(task, amount, short, &mut report);
        bounds.extend(bounds_table(task, amount, &mut report));
        if let Some(folder) = &sources.plots {
            plot::write(task, folder)?;
        }
    }
    report.rows.extend(bounds);
    Ok(Some(report))
}

fn percent(share: f64) -> Value {
    json!(format!("{:.2}", share * 100.0))
}

/// Every rule on the test set.
fn rules_table(task: &Task, amount: Amount, short: bool, report: &mut BenchReport) {
    let test = task.test();
    let (alone, cloud) = (decide(test, |_, _| false), decide(test, |_, _| true));
    let row = |name: &str, at: Outcome| {
        Row(vec![
            ("task", json!(task.name)),
            ("rule", json!(name)),
            ("accuracy %", percent(at.accuracy)),
            ("below the cloud", percent(cloud.accuracy - at.accuracy)),
            ("deferral %", percent(at.deferral)),
            ("bytes/request", json!(format!("{:.0}", at.deferral * task.item_bytes))),
        ])
    };
    let items = amount.items.min(task.for_calibration);
    let means = draws::on_test(task, task.risk, amount.test_draws, items);
    report.rows.extend([row("device alone", alone), row("cloud alone", cloud)]);
    report.rows.extend(means.iter().map(|mean| row(mean.name, mean.at)));
    let ours = means.first().map(|mean| mean.at).unwrap_or_default();
    let accuracy = alone.accuracy + ours.deferral * (cloud.accuracy - alone.accuracy);
    report.rows.push(row("random, as many deferred", Outcome { accuracy, ..ours }));
    for (name, kind) in [
        ("oracle: max-softmax, tuned on the test set", Score::MaxSoftmax),
        ("oracle: margin, tuned on the test set", Score::Margin),
    ] {
        let read = |e: &models::calibrate::Example| {
            score(kind, &e.logits, 1.0).unwrap_or(f64::NEG_INFINITY)
        };
        report.rows.push(row(name, within(&curve(test, read), cloud.accuracy, 0.005)));
    }
    report.rows.push(row("oracle: defers what only the cloud gets right", perfect(task)));
    if task.name == "fashion" && !short {
        let below = (cloud.accuracy - ours.accuracy) * 100.0;
        report.goals.push(Goal::at_most("fashion: points below the cloud", 0.5, below));
        report.goals.push(Goal::at_most("fashion: deferral %", 16.0, ours.deferral * 100.0));
        report.goals.push(Goal::at_most(
            "fashion: deferral %, stretch",
            14.7,
            ours.deferral * 100.0,
        ));
    }
}

fn perfect(task: &Task) -> Outcome {
    let test = task.test();
    let errors = test.iter().filter(|e| e.is_error()).count();
    let right = test.iter().filter(|e| e.is_right()).count() + errors;
    outcome(test.len(), right, errors)
}

/// Every way to a bound, on all items.
fn bounds_table(task: &Task, amount: Amount, report: &mut BenchReport) -> Vec<Row> {
    let items = amount.items.min(task.examples.len() / 2);
    let found = draws::on_pool(task, &task.risks, amount.pool_draws, items);
    let allowed = allowed(amount.pool_draws);
    let row = |bounded: &Bounded| {
        let times = bounded.deferral / bounded.smallest;
        Row(vec![
            ("task", json!(task.name)),
            ("risk %", json!(format!("{}", bounded.risk * 100.0))),
            ("bound", json!(bounded.method)),
            ("draws", json!(amount.pool_draws)),
            ("broken", json!(bounded.violations)),
            ("allowed", json!(allowed)),
            ("no rule", json!(bounded.without)),
            ("deferral %", percent(bounded.deferral)),
            ("smallest %", percent(bounded.smallest)),
            ("times", json!(if times < 1e3 { format!("{times:.2}") } else { "-".to_owned() })),
        ])
    };
    report.goals.extend(goals(task, &found, allowed));
    found.iter().map(row).collect()
}

/// So many of `draws` bounds may be broken: 5 %, and what chance adds in one of twenty benches.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
fn allowed(draws: u64) -> u64 {
    let (n, share) = (draws as f64, 1.0 - CONFIDENCE);
    (n * share + 1.645 * (n * share * (1.0 - share)).sqrt()) as u64
}

fn goals(task: &Task, found: &[Bounded], allowed: u64) -> Vec<Goal> {
    let ours: Vec<&Bounded> = found.iter().filter(|b| b.method == "Outrigger").collect();
    let exact: Vec<&Bounded> = found.iter().filter(|b| b.method == "Clopper-Pearson").collect();
    let most = ours.iter().map(|b| b.violations).max().unwrap_or(0) as f64;
    let broken = Goal::at_most("most broken bounds at a risk", allowed as f64, most);
    if task.name != "fashion" {
        return vec![Goal { name: "another task: most broken bounds at a risk", ..broken }];
    }
    let room = |b: &&Bounded| b.deferral / (1.3 * b.smallest).max(b.smallest + 0.01);
    let beside = ours.iter().zip(&exact).map(|(a, b)| (a.deferral - b.deferral) * 100.0);
    vec![
        Goal { name: "fashion: most broken bounds at a risk", ..broken },
        Goal::at_most(
            "fashion: deferral / (1.3 x the smallest, or 1 point more)",
            1.0,
            ours.iter().map(room).fold(0.0, f64::max),
        ),
        Goal::at_most(
            "fashion: points of deferral beyond Clopper-Pearson's",
            0.0,
            beside.fold(f64::NEG_INFINITY, f64::max),
        ),
    ]
}
