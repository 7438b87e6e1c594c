//! Roll-outs, carried out: what `fleet::rollout` decides is told to devices, and what these say is brought to it.
//!
//! `heard` has what connected devices say; `candidates` whom a query asks for; `driver` looks at each running
//! roll-out every few seconds. What is decided is written down, with all that follows from it, before any device is
//! told: a process that ends in between has decided nothing. In memory is only what is in the database too, but for the
//! evidence since the last look, which devices say again.

use fleet::access::Actor;
use fleet::rollout::cohort::Cohort;
use fleet::rollout::plan::{Plan, PlanError};
use fleet::rollout::{Command, CommandError, ROLLOUTS_MAX, Rollout};
use protocol::id::{DeviceId, RolloutId};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

use crate::state::{Cloud, unix_s};
use crate::store::audit::By;
use crate::store::rollouts::{BeginError, KeptRollout};
use crate::store::{Store, StoreError};

pub(crate) mod candidates;
mod driver;
pub(crate) mod heard;

pub(crate) use driver::drive;
use heard::Heard;

/// All that is known of roll-outs while this process lives.
#[derive(Debug)]
pub struct Rollouts {
    /// What devices say.
    pub(crate) heard: Heard,
    /// Those that are not over, as they are in the database; nothing until they were read from there.
    running: Mutex<BTreeMap<RolloutId, Arc<KeptRollout>>>,
}

/// Why something was not done to a roll-out.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The plan, or the fleet.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What is there already, or is not.
    #[error(transparent)]
    Begin(#[from] BeginError),
    /// It makes no sense where the roll-out stands.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// No such roll-out that is not over.
    #[error("there is no roll-out {0} that is under way")]
    Absent(RolloutId),
    /// One more than there may be.
    #[error("{ROLLOUTS_MAX} roll-outs are under way already")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Rollouts {
    /// None runs yet. Devices are looked at every so many seconds.
    pub(crate) fn new(look_s: u32) -> Self {
        Self { heard: Heard::new(look_s), running: Mutex::default() }
    }

    /// Those that are not over.
    pub(crate) async fn running(&self) -> Vec<Arc<KeptRollout>> {
        self.running.lock().await.values().cloned().collect()
    }
}

/// What a plan comes to: nothing has begun.
///
/// # Errors
/// [`RolloutError::Plan`], or the database.
pub(crate) async fn plan(
    cloud: &Cloud,
    plan: Plan,
    by: &Actor,
) -> Result<(Rollout, Cohort), RolloutError> {
    let fleet = candidates::all(cloud, plan.model.as_ref()).await?;
    Ok(Rollout::plan(plan, &fleet, by, &link::entropy(), unix_s())?)
}

/// Begins a roll-out.
///
/// # Errors
/// [`RolloutError`]; nothing has begun then.
pub(crate) async fn begin(
    cloud: &Arc<Cloud>,
    rollout: Rollout,
    by: By,
) -> Result<Arc<KeptRollout>, RolloutError> {
    let mut running = cloud.rollouts.running.lock().await;
    if running.len() >= ROLLOUTS_MAX {
        return Err(RolloutError::TooMany);
    }
    let id: RolloutId = format!("r-{}", hex::encode(link::entropy::<4>()))
        .parse()
        .map_err(|_| StoreError::Closed)?; // such a text always is an id
    let (planned_by, planned_at_s) = (by.actor.clone(), by.now_s);
    let kept = Arc::new(KeptRollout { id: id.clone(), rollout, planned_by, planned_at_s });
    let own = kept.clone();
    let begun = move |store: &Store| store.begin_rollout(&by, &own.id, &own.rollout);
    cloud.db.call(begun).await?;
    running.insert(id, kept.clone());
    driver::watch(cloud, &running);
    preload(cloud, &kept.rollout);
    Ok(kept)
}

/// Loads the cloud variant before the first deferral asks for it.
fn preload(cloud: &Arc<Cloud>, rollout: &Rollout) {
    let (cloud, version) = (cloud.clone(), rollout.version());
    let Some(model) = rollout.plan_of().model.clone() else { return };
    tokio::spawn(async move {
        if let Err(error) = cloud.serving.preload(&model, version).await {
            cloud.events.internal_error(&error);
        }
    });
}

/// A device is removed from the fleet: it counts as failed in every roll-out that is under way with it.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn remove_device(
    cloud: &Arc<Cloud>,
    device: &DeviceId,
    by: &By,
) -> Result<(), StoreError> {
    let mut running = cloud.rollouts.running.lock().await;
    let all: Vec<_> = running.values().cloned().collect();
    for kept in all {
        let mut next = kept.rollout.clone();
        if next.handle_removed(device, &by.actor, u64::try_from(by.now_s).unwrap_or(0)) {
            driver::keep(cloud, &mut running, &kept, next, by.clone()).await?;
        }
    }
    Ok(())
}

/// Somebody wants something of a roll-out.
///
/// # Errors
/// [`RolloutError`]; nothing changed then.
pub(crate) async fn command(
    cloud: &Arc<Cloud>,
    id: &RolloutId,
    command: Command,
    (by, actor): (By, &Actor),
) -> Result<Arc<KeptRollout>, RolloutError> {
    let mut running = cloud.rollouts.running.lock().await;
    let kept = running.get(id).cloned().ok_or_else(|| RolloutError::Absent(id.clone()))?;
    let mut next = kept.rollout.clone();
    next.handle_command(command, actor, u64::try_from(by.now_s).unwrap_or(0))?;
    Ok(driver::keep(cloud, &mut running, &kept, next, by).await?)
}
