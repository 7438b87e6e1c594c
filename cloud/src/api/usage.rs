//! What tenants, keys and devices, or models took.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use fleet::access::Permission;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use crate::state::{Cloud, now_s};
use crate::store::usage::UsageBy;

const DAY_S: i64 = 24 * 60 * 60;

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum By {
    #[default]
    Tenant,
    Key,
    Model,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Unix seconds; a day before `to` when absent.
    from: Option<i64>,
    /// Unix seconds; now when absent.
    to: Option<i64>,
    #[serde(default)]
    by: By,
}

pub(super) async fn report(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let Query(wanted) = wanted.map_err(|e| ApiError::invalid(e.body_text()))?;
    let to_s = wanted.to.unwrap_or_else(|| now_s() + 1);
    let from_s = wanted.from.unwrap_or(to_s.saturating_sub(DAY_S));
    if from_s > to_s {
        return Err(ApiError::invalid("from is after to"));
    }
    crate::usage::flush(&cloud).await; // so that the report holds all that was asked until now
    let by = match wanted.by {
        By::Tenant => UsageBy::Tenant,
        By::Key => UsageBy::Caller,
        By::Model => UsageBy::Model,
    };
    let lines = cloud.db.call(move |store| store.usage(from_s, to_s, by)).await?;
    Ok(Json(json!({ "from": from_s, "to": to_s, "usage": lines })))
}
