//! What models run on: the configuration, ONNX Runtime, and the execution providers.

use super::{Check, Finding, Group, PATIENCE, Subject, bounded_value};
use ::models::backend::Backend;
use ::models::ort_backend::{OrtBackend, find_library};
use ::models::providers::Reason;
use protocol::problem::chain;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LIBRARY_HINT: &str = "install ONNX Runtime (cargo xtask setup, or the package), or name its library in [runtime] library of agent.toml";

/// The checks, and the backend for those of the models.
pub(super) fn checks(subject: &Subject) -> (Vec<Check>, Option<Arc<OrtBackend>>) {
    let (library, path) = library(subject.config.runtime.library.as_deref());
    let (loads, backend) = match path {
        Some(path) => open(path),
        None => (Finding::skipped("there is no library"), None),
    };
    let checks = [
        ("configuration", configuration(subject)),
        ("onnxruntime-library", library),
        ("onnxruntime-loads", loads),
        ("execution-provider-cpu", cpu(backend.is_some())),
        ("execution-providers", providers(subject, backend.as_deref())),
    ]
    .map(|(name, finding)| Group::Runtime.check(name, finding));
    (checks.into(), backend)
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
fn open(path: PathBuf) -> (Finding, Option<Arc<OrtBackend>>) {
    let name = path.canonicalize().unwrap_or_else(|_| path.clone());
    match bounded_value(PATIENCE, move || OrtBackend::open(&path)) {
        Some(Ok(backend)) => {
            (Finding::ok(version(&name, backend.build_info())), Some(Arc::new(backend)))
        }
        Some(Err(error)) => (Finding::failed(chain(&error)).hint(LIBRARY_HINT), None),
        None => (Finding::failed("the library does not start in time").hint(LIBRARY_HINT), None),
    }
}

/// Its file's name carries the version; it says itself how it was built.
fn version(path: &Path, build: &str) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let field = |key: &str| {
        let value = build.split(", ").find_map(|part| part.trim().strip_prefix(key));
        value.unwrap_or("unknown").to_owned()
    };
    format!("{name} (commit {}, {})", field("git-commit-id="), field("build type="))
}

fn cpu(opened: bool) -> Finding {
    if opened { Finding::ok("available") } else { Finding::skipped("ONNX Runtime is not loaded") }
}

/// Those that are wanted and whose sessions may be tried. Whether one is right for a model is said with
/// the model. None at all is no fault: the CPU remains.
fn providers(subject: &Subject, backend: Option<&OrtBackend>) -> Finding {
    let Some(backend) = backend else { return Finding::skipped("ONNX Runtime is not loaded") };
    let wanted = subject.config.runtime.providers.providers();
    let mut offered = Vec::new();
    let mut others = Vec::new();
    for provider in wanted {
        match backend.offers(*provider) {
            Ok(()) => offered.push(provider.as_str()),
            Err(Reason::NotBuiltIn) => {}
            Err(reason) => others.push(format!("; {provider}: {reason}")),
        }
    }
    match (wanted, offered.as_slice()) {
        ([], _) => Finding::ok("none is wanted"),
        (_, []) => Finding::ok(format!("none beside the CPU{}", others.concat())),
        _ => Finding::ok(format!("{} can be tried{}", offered.join(", "), others.concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_there_is() {
        let build = "ORT Build Info: git-branch=main, git-commit-id=abc123, build type=Release, cmake cxx flags: -O2";
        let text = version(Path::new("/lib/libonnxruntime.so.1.31.1"), build);
        assert_eq!(text, "libonnxruntime.so.1.31.1 (commit abc123, Release)");
        assert!(version(Path::new("x.so"), "").contains("unknown"));
    }

    #[test]
    fn a_library_that_is_not_there_is_a_failure_with_a_hint() {
        let (finding, path) = library(Some(Path::new("/absent/libonnxruntime.so")));
        assert!(path.is_none() && !finding.hint.is_empty());
    }
}
