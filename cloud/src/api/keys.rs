//! Keys: made, listed, revoked. A secret is shown once, when its key is made.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fleet::access::{KeyRecord, Permission, Role};
use protocol::id::TenantName;
use protocol::limits::NAME_MAX_BYTES;
use protocol::pattern::ModelPatterns;
use protocol::token::Token;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::{Cloud, now_s};
use crate::store::Store;
use crate::store::keys::{KEYS_MAX, Revoked, StoredKey};

/// Ten years.
const EXPIRES_MAX_S: u32 = 10 * 365 * 24 * 60 * 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewKey {
    name: String,
    role: Role,
    #[serde(default)]
    tenant: TenantName,
    #[serde(default = "ModelPatterns::all")]
    models: ModelPatterns,
    /// Never, when absent.
    expires_in_s: Option<u32>,
}

pub(super) async fn create(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(wanted): Body<NewKey>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::ManageKeys)?;
    check(&wanted)?;
    cloud.access.check_tenant(&wanted.tenant)?;
    let by = caller.by();
    let token = Token::from_entropy(link::entropy(), link::entropy(), cloud.ca.hash());
    let record = KeyRecord {
        id: token.id.clone(),
        digest: token.secret.digest(),
        role: wanted.role,
        name: wanted.name,
        tenant: wanted.tenant,
        models: wanted.models,
        expires_at_s: wanted.expires_in_s.map(|s| by.now_s + i64::from(s)),
        person: None,
    };
    let own = record.clone();
    if !cloud.db.call(move |store| store.add_api_key(&by, &own)).await? {
        let text = format!("there are {KEYS_MAX} keys that can be used");
        return Err(ApiError::conflict("too_many_keys", text).hint("revoke one"));
    }
    let mut answer = describe_record(&record);
    answer["key"] = token.reveal().into();
    cloud.access.add(record);
    Ok((StatusCode::CREATED, Json(answer)))
}

fn check(wanted: &NewKey) -> Result<(), ApiError> {
    let NewKey { name, expires_in_s, .. } = wanted;
    if name.is_empty() || name.len() > NAME_MAX_BYTES || name.contains(char::is_control) {
        let text = format!("a name has 1 to {NAME_MAX_BYTES} bytes, on one line");
        return Err(ApiError::invalid(text));
    }
    if expires_in_s.is_some_and(|s| !(1..=EXPIRES_MAX_S).contains(&s)) {
        let text = format!("expires_in_s lies between 1 and {EXPIRES_MAX_S}");
        return Err(ApiError::invalid(text));
    }
    Ok(())
}

/// What is told of a key.
pub(super) fn describe_record(record: &KeyRecord) -> Value {
    let person = record.person.as_ref();
    let person = person.map(|p| json!({ "issuer": p.issuer(), "subject": p.subject() }));
    json!({
        "person": person,
        "id": record.id,
        "name": record.name,
        "role": record.role,
        "tenant": record.tenant,
        "models": record.models,
        "expires_at_s": record.expires_at_s,
    })
}

fn describe(cloud: &Cloud, key: &StoredKey) -> Value {
    let live = cloud.access.still_live(&key.record.id);
    let last_used_s = live.and_then(|live| live.last_used_s()).or(key.last_used_s);
    let state = match key {
        StoredKey { revoked_at_s: Some(_), .. } => "revoked",
        key if !key.is_live(now_s()) => "expired",
        _ => "live",
    };
    let mut answer = describe_record(&key.record);
    answer["state"] = state.into();
    answer["created_at_s"] = key.created_at_s.into();
    answer["last_used_s"] = last_used_s.into();
    answer
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::ManageKeys)?;
    let keys = cloud.db.call(Store::api_keys).await?;
    let keys: Vec<_> = keys.iter().map(|key| describe(&cloud, key)).collect();
    Ok(Json(json!({ "keys": keys })))
}

pub(super) async fn revoke(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::ManageKeys)?;
    let (by, own) = (caller.by(), id.clone());
    match cloud.db.call(move |store| store.revoke_api_key(&by, &own)).await? {
        Revoked::Now => {
            cloud.access.remove(&id);
            Ok(Json(json!({ "id": id, "state": "revoked" })))
        }
        Revoked::Absent => Err(ApiError::not_found("there is no such key that is not revoked")
            .hint("see what there is: outrigger key list")),
        Revoked::LastAdmin => {
            Err(ApiError::conflict("last_admin", "this is the last key of an admin")
                .hint("make another one first: outrigger key create --role admin"))
        }
    }
}
