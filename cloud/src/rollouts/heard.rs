//! What connected devices say of the models that roll-outs look at; and how a device is told that there is something
//! new for it alone, without the whole fleet reading its desired state again.

mod news;

pub(crate) use news::News;

use fleet::rollout::ledger::{Ledger, rows};
use fleet::rollout::member::{Member, Standing};
use fleet::rollout::{EVIDENCE_PER_S, Report, Rollout, calls_per_check};
use protocol::evidence::{EVERY_MAX_S, EVERY_MIN_S};
use protocol::id::{DeviceId, ModelName, Version};
use protocol::wire::{Evidence, ReportedModel, ReportedState, Watch};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Models of a device that are looked at here.
const MODELS_MAX: usize = 256;

/// What devices say.
#[derive(Debug)]
pub(crate) struct Heard {
    look_s: u32,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    connected: HashMap<DeviceId, Connected>,
    /// Of devices in running roll-outs, for their models only.
    ledgers: HashMap<DeviceId, BTreeMap<ModelName, Ledger>>,
    /// Which of them changed since they were kept.
    changed: BTreeSet<(DeviceId, ModelName)>,
    /// Which models of which devices are looked at.
    watched: HashMap<DeviceId, BTreeSet<ModelName>>,
    every_s: u32,
    calls_per_check: u32,
}

#[derive(Debug)]
struct Connected {
    sessions: usize,
    news: Arc<News>,
    models: Vec<ReportedModel>,
}

impl Heard {
    pub(super) fn new(look_s: u32) -> Self {
        Self { look_s: look_s.clamp(EVERY_MIN_S, EVERY_MAX_S), inner: Mutex::default() }
    }

    /// How often roll-outs are looked at, in seconds.
    pub(super) fn look_s(&self) -> u32 {
        self.look_s
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device has connected. What it hears when there is something new for it.
    pub(crate) fn enter(&self, device: &DeviceId) -> Arc<News> {
        let mut inner = self.lock();
        let fresh = || Connected { sessions: 0, news: Arc::default(), models: Vec::new() };
        let connected = inner.connected.entry(device.clone()).or_insert_with(fresh);
        connected.sessions += 1;
        connected.news.clone()
    }

    /// One of its connections has ended.
    pub(crate) fn leave(&self, device: &DeviceId) {
        let mut inner = self.lock();
        let Some(connected) = inner.connected.get_mut(device) else { return };
        connected.sessions -= 1;
        if connected.sessions == 0 {
            inner.connected.remove(device);
        }
    }

    /// There is something new for these devices.
    pub(crate) fn tell<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) {
        let inner = self.lock();
        for connected in devices.filter_map(|device| inner.connected.get(device)) {
            connected.news.add();
        }
    }

    /// What a device says it runs.
    pub(crate) fn hear_state(&self, device: &DeviceId, reported: &ReportedState) {
        if let Some(connected) = self.lock().connected.get_mut(device) {
            connected.models = reported.models.iter().take(MODELS_MAX).cloned().collect();
        }
    }

    /// What a device has counted. What was not asked for is left aside.
    pub(crate) fn hear_evidence(&self, device: &DeviceId, evidence: &Evidence) {
        let mut inner = self.lock();
        let Inner { ledgers, changed, watched, .. } = &mut *inner;
        let Some(own) = watched.get(device) else { return };
        for (model, row) in rows(&evidence.models, |model| own.contains(model)) {
            let of_device = ledgers.entry(device.clone()).or_default();
            let is_new = match of_device.get_mut(&model) {
                Some(ledger) => ledger.handle(row),
                None => Ledger::begin(row)
                    .map(|ledger| of_device.insert(model.clone(), ledger))
                    .is_some(),
            };
            if is_new {
                changed.insert((device.clone(), model));
            }
        }
    }

    /// What a device is asked for; nothing where nobody looks at it.
    pub(crate) fn watch_of(&self, device: &DeviceId) -> Option<Watch> {
        let inner = self.lock();
        let models = inner.watched.get(device)?.iter().map(ToString::to_string).collect();
        let Inner { every_s, calls_per_check, .. } = *inner;
        Some(Watch { models, every_s, calls_per_check })
    }

    /// From now on the devices of these roll-outs are looked at, and no others. Whoever has to hear of it.
    pub(super) fn watch<'a>(&self, rollouts: impl Iterator<Item = &'a Rollout>) -> Vec<DeviceId> {
        let mut watched: HashMap<DeviceId, BTreeSet<ModelName>> = HashMap::new();
        for rollout in rollouts {
            let Some(model) = &rollout.plan_of().model else { continue };
            for device in rollout.members().keys() {
                watched.entry(device.clone()).or_default().insert(model.clone());
            }
        }
        let spread = u32::try_from(watched.len() / EVIDENCE_PER_S).unwrap_or(EVERY_MAX_S);
        let every_s = self.look_s.max(spread).min(EVERY_MAX_S);
        let calls_per_check = calls_per_check(watched.len());
        let mut inner = self.lock();
        let inner = &mut *inner;
        let all = (inner.every_s, inner.calls_per_check) != (every_s, calls_per_check);
        let differs = |device: &&DeviceId| all || inner.watched.get(device) != watched.get(device);
        let devices: BTreeSet<&DeviceId> = inner.watched.keys().chain(watched.keys()).collect();
        let told = devices.into_iter().filter(differs).cloned().collect();
        inner.ledgers.retain(|device, own| {
            let models = watched.get(device);
            own.retain(|model, _| models.is_some_and(|models| models.contains(model)));
            !own.is_empty()
        });
        let ledgers = &inner.ledgers;
        inner.changed.retain(|(device, model)| {
            ledgers.get(device).is_some_and(|own| own.contains_key(model))
        });
        inner.watched = watched;
        (inner.every_s, inner.calls_per_check) = (every_s, calls_per_check);
        told
    }

    /// What was kept of evidence before this process.
    pub(super) fn restore(&self, kept: Vec<(DeviceId, ModelName, Ledger)>) {
        let mut inner = self.lock();
        for (device, model, ledger) in kept {
            inner.ledgers.entry(device).or_default().insert(model, ledger);
        }
    }

    /// What has changed since the last time.
    pub(super) fn take_changed(&self) -> Vec<(DeviceId, ModelName, Ledger)> {
        let mut inner = self.lock();
        let changed = std::mem::take(&mut inner.changed);
        let with_ledger = |(device, model): (DeviceId, ModelName)| {
            let ledger = inner.ledgers.get(&device)?.get(&model)?.clone();
            Some((device, model, ledger))
        };
        changed.into_iter().filter_map(with_ledger).collect()
    }

    /// What could not be kept is tried again.
    pub(super) fn changed_again(&self, evidence: Vec<(DeviceId, ModelName, Ledger)>) {
        self.lock().changed.extend(evidence.into_iter().map(|(device, model, _)| (device, model)));
    }

    /// What the devices of a roll-out say now, those that are connected.
    pub(super) fn reports(&self, rollout: &Rollout) -> Vec<(DeviceId, Report)> {
        let inner = self.lock();
        let Some(model) = &rollout.plan_of().model else { return Vec::new() };
        let report = |(device, member): (&DeviceId, &Member)| {
            let connected = inner.connected.get(device)?;
            let ledger = inner.ledgers.get(device).and_then(|own| own.get(model));
            let report = report(connected.model(model), ledger, rollout);
            let is_counted = report.active.is_none() || report.tally.is_some();
            // What a device does without the version is what it is held against: that has to be known first.
            (is_counted || member.standing != Standing::Waiting).then(|| (device.clone(), report))
        };
        rollout.members().iter().filter_map(report).collect()
    }

    /// How far the devices are that were told and do not serve the version yet, in words.
    pub(crate) fn words(&self, rollout: &Rollout) -> BTreeMap<DeviceId, String> {
        let inner = self.lock();
        let Some(model) = &rollout.plan_of().model else { return BTreeMap::new() };
        let members = rollout.members().iter();
        let told = members.filter(|(_, member)| member.standing == Standing::Told);
        let word = |(device, _): (&DeviceId, &Member)| {
            let connected = inner.connected.get(device);
            let said =
                connected.map(|connected| progress(connected.model(model), rollout.version()));
            (device.clone(), said.unwrap_or_else(|| "not connected".into()))
        };
        told.map(word).collect()
    }
}

impl Connected {
    /// What the device says of a model.
    fn model(&self, model: &ModelName) -> Option<&ReportedModel> {
        self.models.iter().find(|own| own.name == model.as_str())
    }
}

/// What a device says it does for a version.
fn progress(own: Option<&ReportedModel>, version: Version) -> String {
    match own {
        Some(own) if own.active_version == version.get() => "answers".into(),
        Some(own) if own.target_version == version.get() && own.reason.is_empty() => {
            own.phase.clone()
        }
        Some(own) if own.target_version == version.get() => {
            format!("{}: {}", own.phase, own.reason)
        }
        _ => "has not taken it up yet".into(),
    }
}

/// What a device says of the model.
fn report(own: Option<&ReportedModel>, ledger: Option<&Ledger>, rollout: &Rollout) -> Report {
    let active = own.and_then(|own| Version::new(own.active_version));
    let refused =
        own.filter(|own| own.target_version == rollout.version().get() && own.phase == "refused");
    let refused = refused.map(|own| own.reason.clone());
    let counted = ledger.filter(|ledger| active == Some(ledger.version()));
    let tally = counted.map(Ledger::tally);
    let provider = counted.map(|own| own.provider().to_owned()).unwrap_or_default();
    Report { active, refused, tally, provider }
}

#[cfg(test)]
mod tests;
