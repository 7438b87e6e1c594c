//! Roll-outs: planned, begun, watched and told what to do.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fleet::access::{Actor, Permission};
use fleet::rollout::cohort::Cohort;
use fleet::rollout::member::{Member, Standing};
use fleet::rollout::plan::{Plan, PlanError};
use fleet::rollout::{Command, Rollout};
use protocol::id::{DeviceId, GroupName, RolloutId};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::rollouts::{self, RolloutError};
use crate::state::Cloud;
use crate::store::Store;
use crate::store::rollouts::{BeginError, KeptRollout};

/// Roll-outs that are listed.
const LISTED_MAX: u32 = 200;
/// Devices that are named in a roll-out's status, those that failed first.
const NAMED_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    plan: Plan,
    /// Its query is the target, where the plan has none.
    group: Option<GroupName>,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn start(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(Wanted { mut plan, group, dry_run }): Body<Wanted>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(if dry_run { Permission::View } else { Permission::Assign })?;
    if let Some(group) = group {
        let groups = cloud.db.call(Store::groups).await?;
        let known = groups.into_iter().find(|own| own.name == group);
        let known = known.ok_or_else(|| absent_group(&group))?;
        plan.target.get_or_insert(known.query);
    }
    let planned = rollouts::plan(&cloud, plan, &caller.0.record.actor()).await;
    let (rollout, cohort) = planned.map_err(refuse)?;
    let mut drawn = draft(&cloud, &rollout, &cohort);
    if dry_run {
        return Ok((StatusCode::OK, Json(drawn)));
    }
    let kept = rollouts::begin(&cloud, rollout, caller.by()).await.map_err(refuse)?;
    drawn["id"] = json!(kept.id);
    Ok((StatusCode::CREATED, Json(drawn)))
}

pub(super) fn absent_group(name: &GroupName) -> ApiError {
    ApiError::not_found(format!("there is no group {name}"))
        .hint("see what there is: outrigger group list")
}

/// Whom a plan would reach, stage by stage.
fn draft(cloud: &Cloud, rollout: &Rollout, cohort: &Cohort) -> Value {
    let plan = rollout.plan_of();
    let stage = |(number, stage): (usize, &fleet::rollout::plan::Stage)| {
        let places = cohort.places.iter().filter(|place| place.stage == number);
        let devices: Vec<&DeviceId> = places.map(|place| &place.device).collect();
        let online = devices.iter().filter(|device| cloud.online.contains(device)).count();
        let named: Vec<_> = devices.iter().take(20).collect();
        json!({
            "stage": number + 1, "devices": devices.len(), "online": online,
            "soak_s": stage.soak_s, "first": named,
        })
    };
    json!({
        "id": Value::Null,
        "model": plan.model,
        "version": rollout.version(),
        "target": plan.target,
        "devices": cohort.places.len(),
        "stages": plan.stages.iter().enumerate().map(stage).collect::<Vec<_>>(),
        "strata": cohort.places.iter().map(|place| place.stratum + 1).max().unwrap_or(0),
        "too_old": cohort.too_old.len(),
        "have_it": cohort.have_it.len(),
        "approvals": if plan.needs_approval(cohort.places.len()) { plan.approvals } else { 1 },
        "phase": rollout.phase(),
    })
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let all = cloud.db.call(|store| store.rollouts(LISTED_MAX)).await?;
    Ok(Json(json!({ "rollouts": all.iter().map(brief).collect::<Vec<_>>() })))
}

fn brief(kept: &KeptRollout) -> Value {
    let KeptRollout { id, rollout, planned_by, planned_at_s } = kept;
    let plan = rollout.plan_of();
    json!({
        "id": id,
        "model": plan.model,
        "version": rollout.version(),
        "target": plan.target,
        "phase": rollout.phase(),
        "stage": rollout.stage() + 1,
        "stages": plan.stages.len(),
        "reason": rollout.reason(),
        "planned_by": planned_by,
        "planned_at_s": planned_at_s,
    })
}

pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let id: RolloutId = id.parse().map_err(|_| absent(&id))?;
    if let Some(kept) = cloud.rollouts.running().await.into_iter().find(|kept| kept.id == id) {
        return Ok(Json(describe(&kept, &cloud.rollouts.heard.words(&kept.rollout))));
    }
    let own = id.clone();
    let kept = cloud.db.call(move |store| store.rollout(&own)).await?;
    Ok(Json(describe(&kept.ok_or_else(|| absent(id.as_str()))?, &BTreeMap::new())))
}

fn absent(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no roll-out {id:?}"))
        .hint("see what there is: outrigger rollout status")
}

/// All there is to say; with what devices say themselves that were told and do not serve the version yet.
fn describe(kept: &KeptRollout, words: &BTreeMap<DeviceId, String>) -> Value {
    let rollout = &kept.rollout;
    let plan = rollout.plan_of();
    let count = rollout.members().len();
    let sizes = plan.sizes(count);
    let stage = |(stage, devices): (&fleet::rollout::plan::Stage, &usize)| json!({ "devices": devices, "soak_s": stage.soak_s });
    let mut described = brief(kept);
    described["stages"] = plan.stages.iter().zip(&sizes).map(stage).collect();
    described["progress"] = json!(rollout.progress());
    described["in_phase_s"] = json!(rollout.in_phase_s());
    described["breach"] = json!(rollout.breach());
    described["agreed"] = rollout.agreed().iter().map(Actor::name).collect();
    described["approvals"] = json!(if plan.needs_approval(count) { plan.approvals } else { 1 });
    described["standings"] = json!(standings(rollout));
    described["devices"] = devices(rollout, words);
    described["history"] = json!(rollout.history());
    described["plan"] = json!(plan);
    described
}

fn standings(rollout: &Rollout) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for member in rollout.members().values() {
        *counts.entry(member.standing.as_str()).or_default() += 1;
    }
    counts
}

/// The devices that people look for: those that failed, then those that are on their way, then those that have arrived.
fn devices(rollout: &Rollout, words: &BTreeMap<DeviceId, String>) -> Value {
    let rank = |member: &Member| match member.standing {
        Standing::Failed(_) | Standing::Stranded => 0,
        Standing::Told | Standing::Serving | Standing::Returning => 1,
        Standing::Succeeded | Standing::Returned => 2,
        Standing::Waiting => 3,
    };
    let mut members: Vec<_> = rollout.members().iter().collect();
    members.sort_by_key(|(_, member)| (rank(member), member.stage));
    let device = |(device, member): (&DeviceId, &Member)| {
        let why = match &member.standing {
            Standing::Failed(failure) => failure.to_string(),
            _ => words.get(device).cloned().unwrap_or_default(),
        };
        json!({
            "device": device, "stage": member.stage + 1, "standing": member.standing.as_str(),
            "why": why, "requests": member.after.requests, "errors": member.after.errors,
            "run_p50_ms": member.after.run_quantile_ms(0.5),
        })
    };
    members.into_iter().take(NAMED_MAX).map(device).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    command: Word,
}

/// A command as it is said.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Approve,
    Pause,
    Resume,
    Abort,
}

pub(super) async fn command(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
    Body(Order { command }): Body<Order>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Assign)?;
    let id: RolloutId = id.parse().map_err(|_| absent(&id))?;
    let command = match command {
        Word::Approve => Command::Approve,
        Word::Pause => Command::Pause,
        Word::Resume => Command::Resume,
        Word::Abort => Command::Abort,
    };
    let by = (caller.by(), &caller.0.record.actor());
    let kept = rollouts::command(&cloud, &id, command, by).await.map_err(refuse)?;
    Ok(Json(describe(&kept, &cloud.rollouts.heard.words(&kept.rollout))))
}

fn refuse(error: RolloutError) -> ApiError {
    let text = error.to_string();
    match error {
        RolloutError::Plan(error) => refuse_plan(&error, text),
        RolloutError::Begin(BeginError::NoEdgeVariant { .. }) => {
            ApiError::not_found(text).hint("see what there is: outrigger model list")
        }
        RolloutError::Begin(BeginError::NoCloudVariant { .. }) => {
            ApiError::unprocessable("missing_variant", text)
                .hint("push both variants, or devices could not defer any more")
        }
        RolloutError::Begin(BeginError::Overlaps { .. }) => {
            ApiError::conflict("overlapping_rollout", text)
                .hint("wait for it, or end it: outrigger rollout abort")
        }
        RolloutError::Command(_) => ApiError::conflict("wrong_phase", text),
        RolloutError::Absent(_) => {
            ApiError::not_found(text).hint("see what there is: outrigger rollout status")
        }
        RolloutError::TooMany => ApiError::conflict("too_many", text),
        RolloutError::Begin(BeginError::Store(error)) | RolloutError::Store(error) => error.into(),
    }
}

fn refuse_plan(error: &PlanError, text: String) -> ApiError {
    match error {
        PlanError::Everyone => ApiError::unprocessable("everyone", text),
        PlanError::NoDevice { .. } => ApiError::unprocessable("empty_target", text)
            .hint("what devices can be asked for by: outrigger device show ID"),
        PlanError::AgentsTooOld(_) => ApiError::unprocessable("agents_too_old", text),
        PlanError::NothingToDo(_) => ApiError::unprocessable("nothing_to_do", text),
        PlanError::TooMany(_) => ApiError::unprocessable("too_many", text),
        PlanError::Missing(_) | PlanError::Range { .. } => ApiError::invalid(text),
    }
}
