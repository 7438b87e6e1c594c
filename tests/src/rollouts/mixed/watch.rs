//! One roll-out, looked at from outside until it is over.

use super::site::{Site, reported};
use serde_json::Value;
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);
/// A roll-out that lasts longer has no end.
const PATIENCE: Duration = Duration::from_secs(300);

/// How a roll-out went.
pub(super) struct End {
    /// Where it stands: paused, where nobody but a person goes on.
    pub(super) phase: String,
    /// The furthest stage, from 1.
    pub(super) stage: u64,
    pub(super) canaries: usize,
    /// Real agents among them that were told.
    pub(super) real_told: usize,
    /// Devices that ever had the version to answer with.
    pub(super) had_it: usize,
    /// From the first device that was told until no more were.
    pub(super) stopped_s: Option<f64>,
    pub(super) took_s: f64,
    pub(super) reason: String,
    /// What became of a real agent among the canaries, in the roll-out's words.
    pub(super) real_said: String,
    pub(super) is_endless: bool,
}

/// What was seen so far.
struct Seen {
    began: Instant,
    told: Option<Instant>,
    stopped: Option<Instant>,
    stage: u64,
    canaries: BTreeSet<String>,
    real_told: BTreeSet<String>,
    had_it: BTreeSet<String>,
    real_said: String,
    /// How it stood when it was paused.
    pause: Option<(String, String)>,
}

/// Looks at a roll-out until it is over. One that pauses is ended: that it waits for a person is its end here.
pub(super) fn watch(site: &Site, id: &str, version: u64) -> anyhow::Result<End> {
    let mut seen = Seen::new();
    let path = format!("/v1/rollouts/{id}");
    let (status, is_endless) = loop {
        let status = site.get(&path)?;
        seen.status(site, &status);
        seen.devices(site, &site.devices()?, version);
        let phase = status["phase"].as_str().unwrap_or_default();
        if ["done", "rolled-back", "aborted"].contains(&phase) {
            break (status, false);
        }
        let is_late = seen.began.elapsed() > PATIENCE;
        if phase == "paused" && seen.pause.is_none() || is_late {
            let reason = status["reason"].as_str().unwrap_or_default();
            seen.pause.get_or_insert((phase.to_owned(), reason.to_owned()));
            site.world.operator.run(&["rollout", "abort", id])?;
        }
        if is_late {
            break (status, true);
        }
        sleep(EVERY);
    };
    seen.status(site, &status);
    Ok(seen.end(site, &status, version, is_endless))
}

impl Seen {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            told: None,
            stopped: None,
            stage: 1,
            canaries: BTreeSet::new(),
            real_told: BTreeSet::new(),
            had_it: BTreeSet::new(),
            real_said: String::new(),
            pause: None,
        }
    }

    fn status(&mut self, site: &Site, status: &Value) {
        let stage = |entry: &Value| entry["stage"].as_u64().map(|stage| stage + 1);
        let history = status["history"].as_array().into_iter().flatten();
        let furthest = history.filter_map(stage).chain(status["stage"].as_u64()).max();
        self.stage = self.stage.max(furthest.unwrap_or(1));
        if status["progress"]["told"].as_u64() > Some(0) {
            self.told.get_or_insert_with(Instant::now);
        }
        let phase = status["phase"].as_str().unwrap_or_default();
        if ["paused", "rolling-back", "rolled-back"].contains(&phase) {
            self.stopped.get_or_insert_with(Instant::now);
        }
        for device in status["devices"].as_array().into_iter().flatten() {
            self.device(site, device);
        }
    }

    fn device(&mut self, site: &Site, device: &Value) {
        let (Some(id), Some(1)) = (device["device"].as_str(), device["stage"].as_u64()) else {
            return;
        };
        self.canaries.insert(id.to_owned());
        let standing = device["standing"].as_str().unwrap_or_default();
        if site.real.contains(id) && standing != "waiting" {
            self.real_told.insert(id.to_owned());
        }
        let is_past = ["waiting", "told", "returning", "returned", "stranded"].contains(&standing);
        if site.real.contains(id) && !is_past {
            let why = device["why"].as_str().filter(|why| !why.is_empty()).unwrap_or(standing);
            let (requests, errors) = (&device["requests"], &device["errors"]);
            let time = device["run_p50_ms"].as_f64().map(|ms| format!(", {ms:.2} ms"));
            let time = time.unwrap_or_default();
            self.real_said = format!("{why}; {requests} requests, {errors} failed{time}");
        }
    }

    fn devices(&mut self, site: &Site, devices: &[Value], version: u64) {
        for device in devices {
            let id = device["id"].as_str().unwrap_or_default();
            let own = reported(device);
            if own["active_version"] == version {
                self.had_it.insert(id.to_owned());
            }
            if own["target_version"] == version
                && own["phase"] == "refused"
                && site.real.contains(id)
            {
                self.real_said = format!("refused: {}", own["reason"].as_str().unwrap_or_default());
            }
        }
    }

    fn end(self, site: &Site, status: &Value, version: u64, is_endless: bool) -> End {
        let word = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        let (phase, reason) = self.pause.unwrap_or_else(|| (word("phase"), word("reason")));
        let from = self.told.unwrap_or(self.began);
        End {
            phase,
            stage: self.stage,
            real_told: self.real_told.len(),
            canaries: self.canaries.len(),
            had_it: self.had_it.len().max(site.ever_answered(version)),
            stopped_s: self.stopped.map(|at| (at - from).as_secs_f64()),
            took_s: self.began.elapsed().as_secs_f64(),
            reason,
            real_said: self.real_said,
            is_endless,
        }
    }
}
