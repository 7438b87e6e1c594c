//! `cargo xtask test`: what has to hold before anything is merged. This one command is CI.
//!
//! The steps run in order and stop at the first that fails. Each has a headline, all have their time at the end, and the last
//! line says how many tests passed and failed.

use std::time::{Duration, Instant};

use clap::ValueEnum;

use steps::{Context, StepError};
use tally::Tally;

mod steps;
mod tally;

/// Format, lints, tests, documentation and dependency rules: everything that CI checks.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only the tests whose name contains one of these, and no other step.
    #[arg(value_name = "FILTER", conflicts_with = "only")]
    filters: Vec<String>,
    /// Run only this step.
    #[arg(long, value_name = "STEP")]
    only: Option<Step>,
}

/// One thing that has to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Bring ONNX Runtime.
    #[value(skip)]
    Setup,
    /// Build the programs that the tests start, and the tests.
    #[value(skip)]
    Programs,
    /// `cargo fmt --check`
    Fmt,
    /// `cargo clippy` without warnings
    Clippy,
    /// The agent without any pipelines
    Bare,
    /// `cargo test`
    Tests,
    /// `cargo doc` without warnings
    Docs,
    /// `cargo deny check`, where it is installed
    Deny,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Programs => "programs",
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Bare => "bare",
            Self::Tests => "tests",
            Self::Docs => "docs",
            Self::Deny => "deny",
        }
    }
}

/// How a step that did not fail ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped(String),
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("step {} failed", step.name())]
struct Failed {
    step: Step,
    source: StepError,
}

/// What has been done so far.
#[derive(Default)]
struct Progress {
    times: Vec<(Step, &'static str, Duration)>,
    tally: Option<Tally>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut progress = Progress::default();
    let result = run_steps(&plan(args), &args.filters, &mut progress);
    summary(&progress);
    Ok(result?)
}

/// The steps that `args` ask for, in their order.
fn plan(args: &Args) -> Vec<Step> {
    match args.only {
        Some(Step::Tests) => vec![Step::Setup, Step::Programs, Step::Tests],
        Some(step) => vec![step],
        None if args.filters.is_empty() => {
            vec![
                Step::Setup,
                Step::Programs,
                Step::Fmt,
                Step::Clippy,
                Step::Bare,
                Step::Tests,
                Step::Docs,
                Step::Deny,
            ]
        }
        None => vec![Step::Setup, Step::Programs, Step::Tests],
    }
}

fn run_steps(plan: &[Step], filters: &[String], progress: &mut Progress) -> Result<(), Failed> {
    let mut context = Context::new(filters);
    for &step in plan {
        eprintln!("\n=== {} ===", step.name());
        let start = Instant::now();
        let outcome = context.run(step);
        progress.tally = context.tally;
        progress.times.push((step, verdict(&outcome), start.elapsed()));
        if let Outcome::Skipped(reason) = outcome.map_err(|source| Failed { step, source })? {
            eprintln!("skipped: {reason}");
        }
    }
    Ok(())
}

fn verdict(outcome: &Result<Outcome, StepError>) -> &'static str {
    match outcome {
        Ok(Outcome::Passed) => "passed",
        Ok(Outcome::Skipped(_)) => "skipped",
        Err(_) => "failed",
    }
}

fn summary(progress: &Progress) {
    eprintln!("\n=== summary ===");
    for (step, verdict, time) in &progress.times {
        eprintln!("{:<9} {verdict:<8} {:>7.1} s", step.name(), time.as_secs_f64());
    }
    if let Some(tally) = progress.tally {
        println!("{tally}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filters: &[&str], only: Option<Step>) -> Vec<&'static str> {
        let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
        plan(&Args { filters, only }).into_iter().map(Step::name).collect()
    }

    #[test]
    fn without_arguments_every_step_runs() {
        assert_eq!(
            check(&[], None),
            ["setup", "programs", "fmt", "clippy", "bare", "tests", "docs", "deny"]
        );
    }

    #[test]
    fn one_step_brings_only_what_it_needs() {
        assert_eq!(check(&[], Some(Step::Fmt)), ["fmt"]);
        assert_eq!(check(&[], Some(Step::Tests)), ["setup", "programs", "tests"]);
        assert_eq!(check(&["trust"], None), ["setup", "programs", "tests"]);
    }
}
