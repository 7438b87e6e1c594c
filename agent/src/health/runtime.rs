//! What models run on: the configuration, ONNX Runtime, and the execution providers.

use super::{Check, Finding, Group, PATIENCE, Subject, bounded_value};
use crate::config::Config;
use crate::sandbox::{Confinement, Prover, runtime_version};
use ::models::ort_backend::{OrtBackend, find_library};
use protocol::problem::chain;
use std::path::{Path, PathBuf};

const LIBRARY_HINT: &str = "install ONNX Runtime (cargo xtask setup, or the package), or name its library in [runtime] library of agent.toml";

/// The checks, and what tries models out for those of the models.
pub(super) fn checks(subject: &Subject) -> (Vec<Check>, Option<Prover>) {
    let (library, path) = library(subject.config.runtime.library.as_deref());
    let (loads, opened) = match &path {
        Some(path) => open(path.clone()),
        None => (Finding::skipped("there is no library"), false),
    };
    let prover = path.filter(|_| opened).map(|path| prover(&path, &subject.config));
    let checks = [
        ("configuration", configuration(subject)),
        ("onnxruntime-library", library),
        ("onnxruntime-loads", loads),
        ("execution-provider-cpu", cpu(opened)),
        ("sandbox", sandbox(prover.as_ref(), subject.config.sandbox.require_full)),
    ]
    .map(|(name, finding)| Group::Runtime.check(name, finding));
    (checks.into(), prover)
}

/// As the agent has it, but no check waits as long as an installation may.
fn prover(library: &Path, config: &Config) -> Prover {
    let mut config = config.clone();
    let patience = u32::try_from(super::models::PATIENCE.as_secs()).unwrap_or(u32::MAX);
    config.sandbox.time_limit_s = config.sandbox.time_limit_s.min(patience);
    Prover::new(library, &config)
}

/// How far a child process is confined here, as the child itself says.
fn sandbox(prover: Option<&Prover>, required: bool) -> Finding {
    let Some(prover) = prover else { return Finding::skipped("ONNX Runtime is not loaded") };
    match prover.confinement() {
        Ok(confinement) => confined(&confinement, required),
        Err(error) => Finding::failed(chain(&error))
            .hint("no model is installed until this works; may this user start processes?"),
    }
}

fn confined(confinement: &Confinement, required: bool) -> Finding {
    let text = confinement.to_string();
    if confinement.is_full() {
        return Finding::ok(text);
    }
    if required {
        return Finding::failed(text).hint(
            "no model is installed: [sandbox] require_full asks for a kernel with all of it",
        );
    }
    Finding::warning(text)
        .hint("models are tried in a process that can do more than it should; a newer kernel (Linux 6.12, with Landlock enabled) closes this")
}

fn configuration(subject: &Subject) -> Finding {
    match &subject.config_error {
        None => Finding::ok("valid"),
        Some(error) => Finding::failed(error.clone())
            .hint("the agent does not start with it; every field is in the README"),
    }
}

fn library(explicit: Option<&Path>) -> (Finding, Option<PathBuf>) {
    match find_library(explicit) {
        Ok(path) => (Finding::ok(path.display().to_string()), Some(path)),
        Err(error) => (Finding::failed(chain(&error)).hint(LIBRARY_HINT), None),
    }
}

/// Loading runs the library's own code, which may hang where it is broken.
fn open(path: PathBuf) -> (Finding, bool) {
    let name = path.canonicalize().unwrap_or_else(|_| path.clone());
    match bounded_value(PATIENCE, move || OrtBackend::open(&path)) {
        Some(Ok(backend)) => (Finding::ok(runtime_version(&name, backend.build_info())), true),
        Some(Err(error)) => (Finding::failed(chain(&error)).hint(LIBRARY_HINT), false),
        None => (Finding::failed("the library does not start in time").hint(LIBRARY_HINT), false),
    }
}

fn cpu(opened: bool) -> Finding {
    if opened {
        Finding::ok("available; no other is wanted")
    } else {
        Finding::skipped("ONNX Runtime is not loaded")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_a_failure_with_a_hint() {
        let (finding, path) = library(Some(Path::new("/absent/libonnxruntime.so")));
        assert!(path.is_none() && !finding.hint.is_empty());
    }
}
