//! Every active bundle: who signed it, whether its bytes are what was signed, and whether it still
//! answers its probes on this machine, and how fast.

use super::{Check, Finding, Group, Subject, bounded};
use crate::install::library::Kept;
use crate::sandbox::{Proof, Prover};
use crate::state::{ActiveRow, Quarantined, State};
use ::models::bundle::{Bundle, MANIFEST_FILE};
use protocol::manifest::Manifest;
use protocol::problem::chain;
use std::path::Path;
use std::time::Duration;

/// Hashing and probing a large model takes its time, on a small device most of all.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: &str = "stop the agent, remove this folder and start it: the bundle is fetched anew";

pub(super) fn checks(subject: &Subject, prover: Option<&Prover>) -> Vec<Check> {
    let rows = match rows(&subject.state_dir) {
        Ok(rows) => rows,
        Err(finding) => return vec![Group::Models.check("active-models", finding)],
    };
    let mut checks = vec![
        Group::Models.check("active-models", active(&rows)),
        Group::Models.check("quarantine", quarantine(&subject.state_dir)),
    ];
    for row in &rows {
        checks.extend(check_one(subject, row, prover));
    }
    checks
}

fn rows(state_dir: &Path) -> Result<Vec<ActiveRow>, Finding> {
    if !state_dir.join("state.db").exists() {
        return Err(Finding::skipped("no models yet"));
    }
    let rows = State::inspect(state_dir).and_then(|state| state.active());
    rows.map_err(|_| Finding::skipped("state.db cannot be read; see state-database"))
}

fn active(rows: &[ActiveRow]) -> Finding {
    if rows.is_empty() {
        return Finding::warning("none")
            .hint("an operator assigns them with: outrigger model assign NAME --device DEVICE");
    }
    let names: Vec<_> = rows.iter().map(|r| format!("{}@{}", r.model, r.active.version)).collect();
    Finding::ok(names.join(", "))
}

fn quarantine(state_dir: &Path) -> Finding {
    match State::inspect(state_dir).and_then(|state| state.quarantine()) {
        Err(_) => Finding::skipped("state.db cannot be read; see state-database"),
        Ok(entries) if entries.is_empty() => Finding::ok("empty"),
        Ok(entries) => {
            let text = |e: &Quarantined| format!("{}@{}: {}", e.model, e.version, e.reason);
            let texts: Vec<_> = entries.iter().map(text).collect();
            Finding::warning(texts.join("; ")).hint(
                "the version before it answers; see: outrigger-agent quarantine list, and release",
            )
        }
    }
}

fn check_one(subject: &Subject, row: &ActiveRow, prover: Option<&Prover>) -> [Check; 3] {
    let folder = subject.state_dir.join("bundles").join(row.active.bundle.to_string());
    let (signature, manifest) = match signature(subject, &folder, row) {
        Ok((finding, manifest)) => (finding, Some(manifest)),
        Err(finding) => (finding, None),
    };
    let (files, answers) = match manifest {
        None => skipped_both("without a manifest there is nothing to compare with"),
        Some(manifest) => files_and_answers(&folder, manifest, prover),
    };
    [("signature", signature), ("files", files), ("answers", answers)]
        .map(|(what, finding)| Group::Models.check(format!("{}-{what}", row.model), finding))
}

fn skipped_both(why: &str) -> (Finding, Finding) {
    (Finding::skipped(why), Finding::skipped(why))
}

fn again(what: &str, folder: &Path) -> Finding {
    Finding::failed(what).hint(format!("{AGAIN}: {}", folder.display()))
}

fn signature(
    subject: &Subject,
    folder: &Path,
    row: &ActiveRow,
) -> Result<(Finding, Manifest), Finding> {
    let signers = subject.enrolment.as_ref().ok_or_else(super::needs_enrolment)?.signers();
    let bytes = std::fs::read(folder.join(MANIFEST_FILE));
    let bytes = bytes.map_err(|e| again(&format!("{MANIFEST_FILE}: {e}"), folder))?;
    let kept: Kept = serde_json::from_slice(&bytes)
        .map_err(|e| again(&format!("{MANIFEST_FILE}: {e}"), folder))?;
    if kept.signed.bundle() != row.active.bundle {
        return Err(again("the manifest is not the one that was made active", folder));
    }
    let manifest = kept.signed.verify(&signers).map_err(|e| {
        Finding::failed(chain(&e)).hint(
            "the model goes on being refused; an operator whom this device knows must sign it",
        )
    })?;
    Ok((Finding::ok("by a key that this device knows"), manifest))
}

fn files_and_answers(
    folder: &Path,
    manifest: Manifest,
    prover: Option<&Prover>,
) -> (Finding, Finding) {
    let (hashes, own) = (folder.to_owned(), manifest.clone());
    let shown = folder.to_owned();
    let files = bounded(PATIENCE, move || match Bundle::open(&hashes, own) {
        Ok(bundle) => {
            Finding::ok(format!("{} files are what was signed", bundle.manifest().files.len()))
        }
        Err(error) => again(&chain(&error), &shown),
    });
    if files.outcome != super::Outcome::Ok {
        return (files, Finding::skipped("the files are not what was signed"));
    }
    let Some(prover) = prover else {
        return (files, Finding::skipped("ONNX Runtime is not loaded"));
    };
    let answers = match prover.prove(folder, manifest) {
        Ok(proof) => answers(&proof),
        Err(error) => Finding::failed(chain(&error)).hint(
            "this machine computes the model differently, or has too little memory; is the same ONNX Runtime installed as before?",
        ),
    };
    (files, answers)
}

/// What came of the model in a confined child beside the agent's own.
fn answers(proof: &Proof) -> Finding {
    let text = format!("{} probes as expected; one run {:.2} ms", proof.probes, proof.run_ms);
    match &proof.batching {
        Some(batching) if !batching.invariant => Finding::warning(format!(
            "{text}; in batches answers differ by up to {:.2e}",
            batching.worst_difference
        ))
        .hint("send one item a request where that matters; the model should be built to answer each item alone"),
        _ => Finding::ok(text),
    }
}
