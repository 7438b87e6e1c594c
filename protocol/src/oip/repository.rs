//! The bodies of the model repository's requests. What is installed comes from the cloud, signed; so a
//! caller may say which installed model answers, and never what it is.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::options::{check_count, invalid, unknown};
use crate::problem::{Problem, ProblemCode};

#[derive(Deserialize)]
struct IndexBody {
    #[serde(default)]
    ready: bool,
}

#[derive(Deserialize)]
struct ChangeBody {
    #[serde(default)]
    parameters: Map<String, Value>,
}

fn body<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, Problem> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes)
        .map_err(|e| invalid(format!("the body is not a repository request: {e}")))
}

/// Reads the body of `POST /v2/repository/index`: whether only models that answer are listed.
///
/// # Errors
/// [`ProblemCode::InvalidRequest`].
pub fn index_wants_ready_only(bytes: &[u8]) -> Result<bool, Problem> {
    Ok(body::<IndexBody>(bytes)?.ready)
}

/// Reads the body of `POST /v2/repository/models/{model}/load` or `unload`.
///
/// # Errors
/// [`ProblemCode::InvalidRequest`], and [`ProblemCode::Unauthorised`] for files and configurations.
pub fn check_parameters(bytes: &[u8]) -> Result<(), Problem> {
    let parameters = body::<ChangeBody>(bytes)?.parameters;
    check_count(parameters.len())?;
    parameters.keys().try_for_each(|key| check_parameter(key))
}

/// Refuses a parameter of a load or unload request that would change what a model is.
///
/// # Errors
/// As [`check_parameters`].
pub fn check_parameter(key: &str) -> Result<(), Problem> {
    if key == "config" || key.starts_with("file:") {
        let text = "a model's files and configuration are those that were signed";
        let hint = "push a new version with outrigger model push";
        return Err(Problem::new(ProblemCode::Unauthorised, text).hint(hint));
    }
    match key {
        "unload_dependents" => Ok(()), // no model here depends on another
        _ => Err(unknown("repository parameter", key, "unload_dependents")),
    }
}
