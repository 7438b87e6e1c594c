//! Enrolment tokens.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fleet::access::Permission;
use fleet::enrol;
use fleet::rollout::query::Labels;
use protocol::id::TenantName;
use protocol::token::Token;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::{Cloud, now_s};
use crate::store::Store;
use crate::store::tokens::{NewToken, StoredToken};

const TTL_DEFAULT_S: u32 = 60 * 60;
const TTL_MAX_S: u32 = 30 * 24 * 60 * 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    ttl_s: Option<u32>,
    #[serde(default)]
    label: String,
    #[serde(default)]
    tenant: TenantName,
    /// What the devices can be asked for by.
    #[serde(default)]
    labels: Labels,
    /// How many devices it is good for; one when absent.
    count: Option<u32>,
}

/// How long a token is to be good for, where that is allowed.
pub(super) fn lifetime_s(wanted_s: Option<u32>, max_s: u32) -> Result<u32, ApiError> {
    let ttl_s = wanted_s.unwrap_or(TTL_DEFAULT_S);
    if !(1..=max_s).contains(&ttl_s) {
        return Err(ApiError::invalid(format!("ttl_s lies between 1 and {max_s}")));
    }
    Ok(ttl_s)
}

pub(super) async fn create(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(wanted): Body<Wanted>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::Enrol)?;
    let ttl_s = lifetime_s(wanted.ttl_s, TTL_MAX_S)?;
    let uses_max = wanted.count.unwrap_or(1);
    enrol::check(&wanted.label, uses_max).map_err(|e| ApiError::invalid(e.to_string()))?;
    fleet::labels::check_all(&wanted.labels).map_err(|e| ApiError::invalid(e.to_string()))?;
    cloud.access.check_tenant(&wanted.tenant)?;
    let token = Token::from_entropy(link::entropy(), link::entropy(), cloud.ca.hash());
    let by = caller.by();
    let expires_at_s = by.now_s + i64::from(ttl_s);
    let (id, digest) = (token.id.clone(), token.secret.digest());
    let Wanted { label, tenant, labels, .. } = wanted;
    let new = NewToken { id, digest, label, uses_max, tenant, labels, expires_at_s };
    cloud.db.call(move |store| store.add_token(&by, &new)).await?;
    let answer = json!({ "id": token.id, "token": token.reveal(), "expires_at_s": expires_at_s });
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Enrol)?;
    let tokens = cloud.db.call(Store::tokens).await?;
    let tokens: Vec<_> = tokens.iter().map(|token| describe(token, now_s())).collect();
    Ok(Json(json!({ "tokens": tokens })))
}

fn describe(token: &StoredToken, now_s: i64) -> Value {
    let state = match token {
        StoredToken { revoked_at_s: Some(_), .. } => "revoked",
        token if now_s >= token.expires_at_s => "expired",
        token if token.uses >= token.uses_max => "used",
        _ => "live",
    };
    json!({
        "id": token.id,
        "label": token.label,
        "tenant": token.tenant,
        "labels": token.labels,
        "state": state,
        "count": token.uses_max,
        "used": token.uses,
        "created_at_s": token.created_at_s,
        "expires_at_s": token.expires_at_s,
    })
}

pub(super) async fn revoke(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Enrol)?;
    let (by, own) = (caller.by(), id.clone());
    match cloud.db.call(move |store| store.revoke_token(&by, &own)).await? {
        true => Ok(Json(json!({ "id": id, "state": "revoked" }))),
        false => Err(ApiError::not_found("there is no such token that is not revoked")
            .hint("see what there is: outrigger device token list")),
    }
}
