//! What the cloud is doing, and who asked it to.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use fleet::access::Permission;
use fleet::admission::RefusalKind;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use crate::state::Cloud;

/// Entries of one answer.
const AUDIT_MAX: u32 = 1000;
const AUDIT_DEFAULT: u32 = 100;

pub(super) async fn whoami(State(cloud): State<Arc<Cloud>>, caller: Caller) -> Json<Value> {
    Json(json!({
        "key_id": caller.0.record.id,
        "name": caller.0.record.name,
        "role": caller.0.record.role,
        "tenant": caller.0.record.tenant,
        "ca_hash": cloud.ca.hash(),
        "cloud_version": env!("CARGO_PKG_VERSION"),
    }))
}

pub(super) async fn stats(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let (known, loaded) = cloud.serving.counts();
    let moves = cloud.serving.moves();
    let door = cloud.serving.door();
    let admission = door.counts();
    let refused = RefusalKind::ALL.map(|kind| (kind.as_str(), admission.refused(kind)));
    let dropped = door.drops().map(|(reason, count)| (reason.as_str(), count));
    let (runs, shared) = door.runs();
    Ok(Json(json!({
        "devices_online": cloud.online.len(),
        "requests_in_flight": cloud.in_flight.count(),
        "keys_live": cloud.access.live_keys(),
        "cloud_variants": known,
        "cloud_variants_loaded": loaded,
        "models_loaded": moves.loads,
        "models_evicted": moves.evictions,
        "counts": cloud.events.counts(),
        "admitted": admission.admitted,
        "refused": BTreeMap::from(refused),
        "dropped": dropped.collect::<BTreeMap<_, _>>(),
        "runs": runs,
        "runs_of_several_requests": shared,
    })))
}

/// What Prometheus reads.
pub(super) async fn metrics(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Response, ApiError> {
    caller.need(Permission::View)?;
    Ok(crate::metrics::response(&cloud).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    limit: Option<u32>,
}

pub(super) async fn audit(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    query: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let Query(query) = query.map_err(|e| ApiError::invalid(e.body_text()))?;
    let limit = query.limit.unwrap_or(AUDIT_DEFAULT).min(AUDIT_MAX);
    let entries = cloud.db.call(move |store| store.audit(limit)).await?;
    Ok(Json(json!({ "audit": entries })))
}
