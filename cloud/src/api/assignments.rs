//! Who should run what.

use axum::Json;
use axum::extract::State;
use fleet::access::Permission;
use fleet::desired::Assignment;
use protocol::id::{DeviceId, ModelName, Version};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::Cloud;
use crate::store::Store;
use crate::store::assignments::AssignError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    model: ModelName,
    version: Version,
    /// `null` for every device; it must be said, so that the fleet is never meant by accident.
    #[serde(deserialize_with = "Option::deserialize")]
    device: Option<DeviceId>,
}

fn describe(assignment: &Assignment) -> Value {
    json!({
        "model": assignment.model,
        "version": assignment.version,
        "device": assignment.device,
    })
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let assignments = cloud.db.call(Store::assignments).await?;
    let assignments: Vec<_> = assignments.iter().map(describe).collect();
    Ok(Json(json!({ "assignments": assignments })))
}

pub(super) async fn assign(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(Wanted { model, version, device }): Body<Wanted>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Assign)?;
    let assignment = Assignment { device, model, version };
    let (by, own) = (caller.by(), assignment.clone());
    cloud.db.call(move |store| store.assign(&by, &own)).await.map_err(refuse)?;
    cloud.publish_desired().await?;
    preload(&cloud, &assignment);
    Ok(Json(describe(&assignment)))
}

/// Loads the cloud variant before the first deferral asks for it.
fn preload(cloud: &Arc<Cloud>, assignment: &Assignment) {
    let (cloud, assignment) = (cloud.clone(), assignment.clone());
    tokio::spawn(async move {
        let loaded = cloud.serving.preload(&assignment.model, assignment.version).await;
        if let Err(error) = loaded {
            cloud.events.internal_error(&error);
        }
    });
}

fn refuse(error: AssignError) -> ApiError {
    let text = error.to_string();
    match error {
        AssignError::NoEdgeVariant { .. } => {
            ApiError::not_found(text).hint("see what there is: outrigger model list")
        }
        AssignError::NoDevice(_) => {
            ApiError::not_found(text).hint("see what there is: outrigger device list")
        }
        AssignError::Store(error) => error.into(),
    }
}
