//! Groups of devices: queries that have a name.

use axum::Json;
use axum::extract::{Path, State};
use fleet::access::Permission;
use fleet::rollout::query::Query;
use protocol::id::{GroupName, InvalidName};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use super::rollouts::absent_group;
use crate::rollouts::candidates;
use crate::state::Cloud;
use crate::store::Store;
use crate::store::labels::{Group, LabelError};

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let groups = cloud.db.call(Store::groups).await?;
    let fleet = candidates::all(&cloud, None).await?;
    let describe = |group: &Group| {
        let devices = fleet.iter().filter(|device| group.query.matches(&device.labels)).count();
        json!({ "name": group.name, "query": group.query, "devices": devices })
    };
    Ok(Json(json!({ "groups": groups.iter().map(describe).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    query: Query,
}

pub(super) async fn put(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(name): Path<String>,
    Body(Wanted { query }): Body<Wanted>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Assign)?;
    let (name, by) = (parse(&name)?, caller.by());
    let group = Group { name, query };
    let own = group.clone();
    cloud.db.call(move |store| store.put_group(&by, &own)).await.map_err(refuse)?;
    Ok(Json(json!({ "name": group.name, "query": group.query })))
}

pub(super) async fn remove(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Assign)?;
    let (name, by) = (parse(&name)?, caller.by());
    let own = name.clone();
    match cloud.db.call(move |store| store.remove_group(&by, &own)).await? {
        true => Ok(Json(json!({ "name": name, "removed": true }))),
        false => Err(absent_group(&name)),
    }
}

fn parse(name: &str) -> Result<GroupName, ApiError> {
    name.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))
}

/// What is wrong with labels or a group.
pub(super) fn refuse(error: LabelError) -> ApiError {
    let text = error.to_string();
    match error {
        LabelError::NoDevice(_) => {
            ApiError::not_found(text).hint("see what there is: outrigger device list")
        }
        LabelError::NoLabel { .. } => {
            ApiError::not_found(text).hint("see what it has: outrigger device show ID")
        }
        LabelError::Invalid(_) => ApiError::unprocessable("invalid_label", text),
        LabelError::TooManyGroups => ApiError::unprocessable("too_many", text),
        LabelError::Store(error) => error.into(),
    }
}
