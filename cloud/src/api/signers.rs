//! Keys whose signatures devices trust.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleet::access::Permission;
use protocol::limits::NAME_MAX_BYTES;
use protocol::manifest::SignerKey;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::Cloud;
use crate::store::Store;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSigner {
    public_key: String,
    name: String,
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let signers = cloud.db.call(Store::signers).await?;
    Ok(Json(json!({ "signers": signers })))
}

pub(super) async fn trust(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(new): Body<NewSigner>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::TrustSigner)?;
    let key = hex::decode(&new.public_key).ok().and_then(|bytes| SignerKey::from_slice(&bytes));
    let key = key.ok_or_else(|| {
        ApiError::invalid("public_key is not an Ed25519 public key (64 hexadecimal digits)")
    })?;
    let is_line = !new.name.contains(char::is_control);
    if new.name.is_empty() || new.name.len() > NAME_MAX_BYTES || !is_line {
        let text = format!("a name has 1 to {NAME_MAX_BYTES} bytes, on one line");
        return Err(ApiError::invalid(text));
    }
    let by = caller.by();
    let added = cloud.db.call(move |store| store.add_signer(&by, key, &new.name)).await?;
    let status = if added { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(json!({ "key_id": key.key_id(), "added": added }))))
}
