//! The task that looks at every running roll-out, every few seconds.

use fleet::rollout::plan::Plan;
use fleet::rollout::{Phase, Rollout};
use protocol::id::{DeviceId, RolloutId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Rollouts;
use crate::state::{Cloud, now_s, unix_s};
use crate::store::audit::By;
use crate::store::rollouts::{Assigned, KeptRollout, Step};
use crate::store::{Store, StoreError};

/// Who acts where nobody does.
const ACTOR: &str = "roll-outs";

type Running = BTreeMap<RolloutId, Arc<KeptRollout>>;

/// Goes on with what the database has, until the server ends.
pub(crate) async fn drive(cloud: Arc<Cloud>) {
    let mut stopping = cloud.stopping.subscribe();
    let every = Duration::from_secs(cloud.rollouts.heard.look_s().into());
    let mut is_restored = false;
    while !*stopping.borrow_and_update() {
        if !is_restored {
            match restore(&cloud).await {
                Ok(()) => is_restored = true,
                Err(error) => cloud.events.internal_error(&error),
            }
        }
        look(&cloud).await;
        tokio::select! {
            _ = stopping.changed() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

async fn restore(cloud: &Arc<Cloud>) -> Result<(), StoreError> {
    let mut running = cloud.rollouts.running.lock().await;
    let read = |store: &Store| Ok::<_, StoreError>((store.running_rollouts()?, store.evidence()?));
    let (rollouts, evidence) = cloud.db.call(read).await?;
    cloud.rollouts.heard.restore(evidence);
    running.extend(rollouts.into_iter().map(|kept| (kept.id.clone(), Arc::new(kept))));
    watch(cloud, &running);
    Ok(())
}

/// Has the devices of these roll-outs looked at.
pub(super) fn watch(cloud: &Cloud, running: &Running) {
    let Rollouts { heard, .. } = &cloud.rollouts;
    let told = heard.watch(running.values().map(|kept| &kept.rollout));
    heard.tell(told.iter());
}

/// Brings what devices say to each roll-out, and carries out what it decides.
async fn look(cloud: &Arc<Cloud>) {
    keep_evidence(cloud).await;
    let mut running = cloud.rollouts.running.lock().await;
    let all: Vec<_> = running.values().cloned().collect();
    for kept in all {
        let own = cloud.clone();
        let before = kept.clone();
        let decided = tokio::task::spawn_blocking(move || decide(&own, &before.rollout)).await;
        let Ok(next) = decided else { return }; // the server ends
        let by = By { actor: ACTOR.to_owned(), now_s: now_s() };
        if let Err(error) = keep(cloud, &mut running, &kept, next, by).await {
            cloud.events.internal_error(&error); // the next look decides anew
        }
    }
}

async fn keep_evidence(cloud: &Arc<Cloud>) {
    let evidence = cloud.rollouts.heard.take_changed();
    if evidence.is_empty() {
        return;
    }
    let own = evidence.clone();
    if let Err(error) = cloud.db.call(move |store| store.keep_evidence(&own)).await {
        cloud.rollouts.heard.changed_again(evidence);
        cloud.events.internal_error(&error);
    }
}

fn decide(cloud: &Cloud, before: &Rollout) -> Rollout {
    let now_s = unix_s();
    let mut next = before.clone();
    for (device, report) in cloud.rollouts.heard.reports(before) {
        next.handle_report(&device, &report, now_s);
    }
    // What it wants done stands in its members: it is carried out by what devices are told from then on.
    drop(next.poll(now_s));
    next
}

/// Writes a step down; then devices are told.
pub(super) async fn keep(
    cloud: &Arc<Cloud>,
    running: &mut Running,
    before: &Arc<KeptRollout>,
    next: Rollout,
    by: By,
) -> Result<Arc<KeptRollout>, StoreError> {
    let next = Arc::new(before.with(next));
    let (was, is) = (before.clone(), next.clone());
    let written = move |store: &Store| {
        let step = step(&was, &is);
        let told = told(&was.rollout, &is.rollout);
        store.keep_step(&by, &step)?;
        Ok::<_, StoreError>((told, step.assigned))
    };
    let (told, assigned) = cloud.db.call(written).await?;
    for entry in news(&before.rollout, &next.rollout) {
        cloud.events.rollout_stepped(&next.id, &entry);
    }
    if next.rollout.phase().is_end() {
        running.remove(&next.id);
        watch(cloud, running);
    } else {
        running.insert(next.id.clone(), next.clone());
    }
    match assigned {
        Some(_) => cloud.publish_desired().await?,
        None => cloud.rollouts.heard.tell(told.iter()),
    }
    Ok(next)
}

fn step<'a>(before: &KeptRollout, next: &'a KeptRollout) -> Step<'a> {
    let (was, is) = (&before.rollout, &next.rollout);
    let changed =
        is.members().iter().filter(|(device, member)| was.members().get(*device) != Some(member));
    let done = is.phase() == Phase::Done && was.phase() != Phase::Done;
    Step {
        id: &next.id,
        rollout: is,
        members: changed.collect(),
        entries: news(was, is),
        assigned: done.then(|| assigned(is)),
    }
}

/// Whom the version belongs to where everything went well.
fn assigned(rollout: &Rollout) -> Assigned {
    let Plan { target, agent_min, .. } = rollout.plan_of();
    let all = target.as_ref().is_some_and(fleet::rollout::query::Query::is_all);
    match all && agent_min.is_none() {
        true => Assigned::Everyone,
        false => Assigned::Devices(rollout.members().keys().cloned().collect()),
    }
}

/// The devices that are to run something else than before.
fn told(was: &Rollout, is: &Rollout) -> Vec<DeviceId> {
    let devices = is.members().keys();
    devices.filter(|device| was.wants(device) != is.wants(device)).cloned().collect()
}

/// What happened since.
fn news(was: &Rollout, is: &Rollout) -> Vec<String> {
    let last = was.history().last();
    let at = last.and_then(|last| is.history().iter().rposition(|entry| entry == last));
    let new = is.history().iter().skip(at.map_or(0, |at| at + 1));
    new.map(|entry| entry.what.clone()).collect()
}
