//! The device's check, by a child process that is `outrigger-agent check --json` of this very program: it loads what the
//! agent itself may not have loaded, and what hangs or crashes there takes no request with it.

use crate::support::Gate;
use serde_json::{Value, json};
use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// All checks together are done by then.
const PATIENCE: Duration = Duration::from_secs(120);
/// A report has a few KiB.
const REPORT_MAX_BYTES: u64 = 1 << 20;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error("the check does not start")]
    Start(#[source] io::Error),
    #[error("the check was not done after {} s", PATIENCE.as_secs())]
    Late,
    #[error("the check ended without a report")]
    Report(#[source] serde_json::Error),
}

/// The report of a check. Blocks.
pub(super) fn ask(state_dir: &Path, config_file: &Path) -> Result<Value, CheckError> {
    let program = match cfg!(target_os = "linux") {
        true => Path::new("/proc/self/exe").to_owned(),
        false => std::env::current_exe().map_err(CheckError::Start)?,
    };
    let mut command = Command::new(program);
    command.args(["check", "--json", "--state-dir"]).arg(state_dir);
    command.arg("--config").arg(config_file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(CheckError::Start)?;
    let said = said_in_time(&mut child);
    if said.is_err() {
        let _ = child.kill(); // it may have ended just now
    }
    child.wait().map_err(CheckError::Start)?;
    serde_json::from_slice(&said?).map_err(CheckError::Report)
}

fn said_in_time(child: &mut Child) -> Result<Vec<u8>, CheckError> {
    let Some(stdout) = child.stdout.take() else { return Ok(Vec::new()) };
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.take(REPORT_MAX_BYTES).read_to_end(&mut text);
        let _ = sender.send(read.map(|_| text)); // nobody waits after the patience is over
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(said) => said.map_err(CheckError::Start),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(CheckError::Late),
    }
}

/// A report as text of at most so many bytes, and how many checks have no place in it: first those go that are well.
pub(super) fn fitted(mut report: Value, gate: &Gate, max_bytes: usize) -> (String, u64) {
    redact(&mut report, gate);
    let mut left_out = 0;
    loop {
        let text = report.to_string();
        if text.len() <= max_bytes {
            return (text, left_out);
        }
        let Some(checks) = report["checks"].as_array_mut() else { break };
        let well = checks.iter().rposition(|check| check["outcome"] == "ok");
        let Some(last) = well.or_else(|| checks.len().checked_sub(1)) else { break };
        checks.remove(last);
        left_out += 1;
    }
    (json!({ "ok": report["ok"] == true, "summary": "", "checks": [] }).to_string(), left_out)
}

fn redact(value: &mut Value, gate: &Gate) {
    match value {
        Value::String(text) => *text = gate.pass(text),
        Value::Array(all) => all.iter_mut().for_each(|own| redact(own, gate)),
        Value::Object(all) => all.values_mut().for_each(|own| redact(own, gate)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_has_a_place_first_and_secrets_have_none() {
        let secret = "0123456789abcdef".repeat(4);
        let check = |outcome: &str| json!({ "outcome": outcome, "detail": format!("x {secret}") });
        let report = json!({
            "ok": false, "summary": "3 checks",
            "checks": [check("failed"), check("ok"), check("warning"), check("ok")],
        });
        let gate = Gate::new(Path::new("/nonexistent"));
        let (whole, left_out) = fitted(report.clone(), &gate, usize::MAX);
        assert!(!whole.contains(&secret) && left_out == 0, "{whole}");
        let (text, left_out) = fitted(report.clone(), &gate, whole.len() - 1);
        let fits: Value = serde_json::from_str(&text).unwrap();
        let checks = fits["checks"].as_array().unwrap().iter();
        let outcomes: Vec<_> = checks.map(|check| check["outcome"].as_str().unwrap()).collect();
        assert_eq!((outcomes, left_out), (vec!["failed", "ok", "warning"], 1));
        let (text, left_out) = fitted(report, &gate, 60);
        assert!(text.len() <= 60 && left_out == 4, "{text}");
    }
}
