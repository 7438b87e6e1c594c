//! `outrigger-cloud openapi`: the admin API's document, as `/openapi.json` has it.

use outrigger_cloud::api;
use std::process::ExitCode;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&api::openapi::document())?);
    Ok(ExitCode::SUCCESS)
}
