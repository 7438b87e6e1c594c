//! Enrolment tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleet::access::Permission;
use protocol::id::TenantName;
use protocol::limits::NAME_MAX_BYTES;
use protocol::token::Token;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::Cloud;
use crate::store::tokens::NewToken;

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
    if wanted.label.len() > NAME_MAX_BYTES || wanted.label.contains(char::is_control) {
        let text = format!("a label has at most {NAME_MAX_BYTES} bytes, on one line");
        return Err(ApiError::invalid(text));
    }
    cloud.access.check_tenant(&wanted.tenant)?;
    let token = Token::from_entropy(link::entropy(), link::entropy(), cloud.ca.hash());
    let by = caller.by();
    let expires_at_s = by.now_s + i64::from(ttl_s);
    let (id, digest) = (token.id.clone(), token.secret.digest());
    let Wanted { label, tenant, .. } = wanted;
    let new = NewToken { id, digest, label, tenant, expires_at_s };
    cloud.db.call(move |store| store.add_token(&by, &new)).await?;
    let answer = json!({ "id": token.id, "token": token.reveal(), "expires_at_s": expires_at_s });
    Ok((StatusCode::CREATED, Json(answer)))
}
