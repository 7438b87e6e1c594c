//! `outrigger-cloud alerts`: rules for Prometheus, for the figures that this version has.

use std::process::ExitCode;

/// Says them.
pub(crate) fn run() -> ExitCode {
    print!("{}", include_str!("../../packaging/alerts.yml"));
    ExitCode::SUCCESS
}
