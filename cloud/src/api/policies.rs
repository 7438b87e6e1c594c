//! Which versions of a model answer side by side.

use axum::Json;
use axum::extract::{Path, State};
use fleet::access::Permission;
use protocol::id::{InvalidName, ModelName};
use protocol::versions::VersionPolicy;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::Cloud;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    policy: VersionPolicy,
}

pub(super) async fn put(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(model): Path<String>,
    Body(Wanted { policy }): Body<Wanted>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Load)?;
    let model: ModelName =
        model.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))?;
    let (by, own, wanted) = (caller.by(), model.clone(), policy.clone());
    if !cloud.db.call(move |store| store.set_policy(&by, &own, &wanted)).await? {
        return Err(ApiError::not_found(format!("there is no cloud variant of {model}"))
            .hint("see what there is: outrigger model list"));
    }
    cloud.serving.set_policy(&model, policy.clone());
    // Loaded before they are asked; what is not named any more is let go of.
    cloud.serving.preload_answering().await;
    cloud.serving.release_unwanted();
    Ok(Json(json!({ "model": model, "policy": policy })))
}
