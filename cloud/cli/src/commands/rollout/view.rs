//! A roll-out as people read it: the same lines for `status` and `watch`.

use serde::Deserialize;
use std::collections::BTreeMap;

/// What the cloud says of a roll-out.
#[derive(Debug, Deserialize)]
pub(super) struct Rollout {
    pub(super) id: String,
    model: String,
    version: u64,
    target: String,
    pub(super) phase: String,
    stage: usize,
    stages: Vec<Stage>,
    reason: String,
    in_phase_s: u64,
    agreed: Vec<String>,
    approvals: usize,
    standings: BTreeMap<String, u64>,
    devices: Vec<Device>,
    pub(super) history: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Stage {
    devices: u64,
    soak_s: u64,
}

#[derive(Debug, Deserialize)]
struct Device {
    device: String,
    stage: usize,
    standing: String,
    why: String,
    requests: u64,
    errors: u64,
    run_p50_ms: Option<f64>,
}

/// One line of its history.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) at_s: i64,
    pub(super) stage: usize,
    pub(super) what: String,
}

/// Devices that are shown at most.
const DEVICES_SHOWN: usize = 8;
/// How wide a bar is.
const BAR: u64 = 24;

impl Rollout {
    /// Whether nothing more will happen.
    pub(super) fn is_over(&self) -> bool {
        ["done", "rolled-back", "aborted"].contains(&self.phase.as_str())
    }

    /// Whether the version has reached the whole target.
    pub(super) fn is_done(&self) -> bool {
        self.phase == "done"
    }

    /// All there is to say, in lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { id, model, version, target, .. } = self;
        let mut lines = vec![format!("{id}  {model}@{version} to `{target}`"), self.where_it_is()];
        if !self.reason.is_empty() {
            lines.push(format!("why: {}", self.reason));
        }
        if self.phase == "awaiting-approval" {
            let (agreed, of) = (self.agreed.join(", "), self.approvals);
            lines.push(format!("{} of {of} people agree: {agreed}", self.agreed.len()));
        }
        lines.extend(self.stages.iter().enumerate().map(|(at, stage)| self.stage_line(at, stage)));
        let counts: Vec<_> =
            self.standings.iter().map(|(standing, count)| format!("{count} {standing}")).collect();
        lines.push(format!("devices: {}", counts.join(", ")));
        lines.extend(self.devices.iter().filter_map(Device::line).take(DEVICES_SHOWN));
        lines
    }

    fn where_it_is(&self) -> String {
        let since = span(self.in_phase_s);
        match self.is_over() {
            true => self.phase.clone(),
            false => {
                let of = self.stages.len();
                format!("{}, stage {} of {of}, for {since}", self.phase, self.stage)
            }
        }
    }

    fn stage_line(&self, at: usize, stage: &Stage) -> String {
        let (devices, number) = (stage.devices, at + 1);
        let (done, words) = match number.cmp(&self.stage) {
            std::cmp::Ordering::Less => (devices, "passed".to_owned()),
            std::cmp::Ordering::Greater => (0, String::new()),
            std::cmp::Ordering::Equal if self.is_done() => (devices, "passed".to_owned()),
            std::cmp::Ordering::Equal => {
                let serve = self.count("succeeded").min(devices);
                let watched = match self.phase.as_str() {
                    "soaking" => {
                        format!(", watched for {} of {}", span(self.in_phase_s), span(stage.soak_s))
                    }
                    _ => String::new(),
                };
                (serve, format!("{serve} serve it{watched}"))
            }
        };
        let unit = if devices == 1 { "device" } else { "devices" };
        let line =
            format!("stage {number}  {}  {devices:>6} {unit:<7}  {words}", bar(done, devices));
        line.trim_end().to_owned()
    }

    fn count(&self, standing: &str) -> u64 {
        self.standings.get(standing).copied().unwrap_or(0)
    }
}

impl Device {
    /// What is worth a line of its own.
    fn line(&self) -> Option<String> {
        let Self { device, stage, standing, why, requests, errors, .. } = self;
        if standing == "waiting" {
            return None;
        }
        let why = if why.is_empty() || why.starts_with(standing.as_str()) {
            why.clone()
        } else {
            format!("{standing}: {why}")
        };
        let what = if why.is_empty() { standing.clone() } else { why };
        let time = self.run_p50_ms.map(|ms| format!(", {ms:.1} ms")).unwrap_or_default();
        let served = format!("{requests} requests, {errors} failed{time}");
        Some(format!("  {device} (stage {stage}): {what}; {served}"))
    }
}

/// A bar that is readable anywhere.
fn bar(done: u64, of: u64) -> String {
    let filled = (BAR * done).checked_div(of).unwrap_or(0).min(BAR);
    let part = |sign: &str, count: u64| sign.repeat(usize::try_from(count).unwrap_or(0));
    format!("[{}{}]", part("#", filled), part("-", BAR - filled))
}

/// A time in words.
pub(super) fn span(s: u64) -> String {
    match s {
        0..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        7200..172_800 => format!("{} h", s / 3600),
        _ => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rollout(phase: &str, stage: usize, reason: &str) -> Rollout {
        let device = |device: &str, standing: &str, why: &str| {
            json!({ "device": device, "stage": 1, "standing": standing, "why": why, "requests": 40,
                    "errors": 1, "run_p50_ms": 1.25 })
        };
        serde_json::from_value(json!({
            "id": "r-1", "model": "fashion", "version": 2, "target": "site=lyon", "phase": phase,
            "stage": stage, "reason": reason, "in_phase_s": 240, "agreed": ["ada"], "approvals": 2,
            "stages": [{ "devices": 2, "soak_s": 3600 }, { "devices": 20, "soak_s": 3600 },
                       { "devices": 200, "soak_s": 60 }],
            "standings": { "succeeded": 8, "failed": 1, "waiting": 191 },
            "devices": [device("d-1", "refused", "refused: its probes answer differently"),
                        device("d-2", "succeeded", ""), device("d-3", "waiting", "")],
            "history": [],
        }))
        .unwrap()
    }

    #[test]
    fn it_reads_like_this() {
        let mut text = String::new();
        for (phase, stage, reason) in [
            ("awaiting-approval", 1, ""),
            ("offering", 2, ""),
            ("soaking", 2, ""),
            ("rolled-back", 2, "latency-p50: x 9.81 on 5 devices"),
            ("done", 3, ""),
        ] {
            text += &rollout(phase, stage, reason).lines().join("\n");
            text += "\n\n";
        }
        insta::assert_snapshot!(text);
    }
}
