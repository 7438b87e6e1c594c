//! What devices have recorded: listed, handed out as it was sealed, deleted; and for whom it is sealed.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use fleet::access::Permission;
use protocol::analytics::SignedStatement;
use protocol::id::{DeviceId, InvalidName, TenantName};
use protocol::problem::chain;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use telemetry::Class;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::{Cloud, now_s};
use crate::store::Store;
use crate::store::analytics::AnalyticsError;
use crate::store::audit::By;
use crate::telemetry::{Filter, TelemetryError, Whose};

/// Segments in one list.
const LISTED_MAX: u32 = 1000;
/// Carries the encapsulated key of samples, in hexadecimal digits.
const DETACHED_KEY: HeaderName = HeaderName::from_static("x-outrigger-encapsulated-key");

impl From<TelemetryError> for ApiError {
    fn from(error: TelemetryError) -> Self {
        Self::internal(error)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only behind this id.
    #[serde(default)]
    after: i64,
    device: Option<DeviceId>,
    class: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let Query(wanted) = wanted.map_err(|e| ApiError::invalid(e.body_text()))?;
    let Wanted { after, device, class, limit } = wanted;
    let limit = limit.unwrap_or(LISTED_MAX);
    if !(1..=LISTED_MAX).contains(&limit) {
        return Err(ApiError::invalid(format!("limit is 1 to {LISTED_MAX}")));
    }
    if after < 0 {
        return Err(ApiError::invalid("after is the id of a segment, or 0"));
    }
    if class.as_ref().is_some_and(|class| Class::from_name(class).is_none()) {
        return Err(ApiError::invalid("class is counters, aggregates, events or samples"));
    }
    let device = device.map(|device| device.to_string());
    let filter = Filter { after, device, class, limit };
    let segments = cloud.telemetry.call(move |store| store.list(&filter)).await?;
    Ok(Json(json!({ "segments": segments })))
}

pub(super) async fn fetch(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    caller.need(Permission::ReadTelemetry)?;
    let id: i64 = id.parse().map_err(|_| ApiError::invalid("a segment's id is a number"))?;
    let stored = cloud.telemetry.call(move |store| store.fetch(id)).await?;
    let stored = stored.ok_or_else(|| {
        ApiError::not_found("there is no such segment").hint("it may have been deleted")
    })?;
    let key = stored.detached_key.map(hex::encode).unwrap_or_default();
    let headers = [(CONTENT_TYPE, "application/octet-stream".to_owned()), (DETACHED_KEY, key)];
    Ok((headers, Bytes::from(stored.body)).into_response())
}

pub(super) async fn delete_device(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name: DeviceId = name.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))?;
    delete(&cloud, &caller, Whose::Device, name.to_string()).await
}

pub(super) async fn delete_tenant(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let name: TenantName =
        name.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))?;
    delete(&cloud, &caller, Whose::Tenant, name.to_string()).await
}

async fn delete(
    cloud: &Cloud,
    caller: &Caller,
    whose: Whose,
    name: String,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::ManageKeys)?;
    let by: By = caller.by();
    let noted = name.clone();
    cloud.db.call(move |store| store.note(&by, "telemetry.delete", &noted)).await?;
    let own = name.clone();
    let deleted = cloud.telemetry.call(move |store| store.delete(whose, &own)).await?;
    Ok(Json(json!({ "name": name, "deleted": deleted })))
}

pub(super) async fn key(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let statement = cloud.db.call(Store::analytics_key).await?;
    let statement = statement.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    Ok(Json(json!({ "key": statement })))
}

pub(super) async fn put_key(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(signed): Body<SignedStatement>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Push)?;
    let by = caller.by();
    let trusted = cloud.db.call(Store::signer_keys).await?;
    let said = signed.verify(&trusted, 0).map_err(|error| {
        ApiError::unprocessable("bad_signature", chain(&error))
            .hint("devices trust the keys that outrigger login registers")
    })?;
    let (kept, serial) = (said.clone(), said.serial);
    let put = cloud.db.call(move |store| store.put_analytics_key(&by, &signed, &kept)).await;
    match put {
        Ok(()) => {}
        Err(error @ AnalyticsError::Older { .. }) => {
            let hint = "make another one: outrigger telemetry key --rotate";
            return Err(ApiError::conflict("older", error.to_string()).hint(hint));
        }
        Err(AnalyticsError::Store(error)) => return Err(error.into()),
    }
    cloud.publish_desired().await?;
    Ok(Json(json!({ "serial": serial, "public_key": said.public_key, "at_s": now_s() })))
}
