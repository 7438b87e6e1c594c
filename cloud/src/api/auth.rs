//! Who calls, and what they may do.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use fleet::access::Permission;
use protocol::token::Secret;
use std::sync::Arc;

use super::ApiError;
use crate::state::{Cloud, now_s};
use crate::store::audit::By;
use crate::store::keys::ApiKey;

/// The holder of a valid key.
pub(super) struct Caller(pub(super) ApiKey);

impl Caller {
    /// Refuses a caller whose role does not include the permission.
    pub(super) fn need(&self, permission: Permission) -> Result<(), ApiError> {
        if self.0.role.allows(permission) {
            return Ok(());
        }
        let text = format!("the role {} does not include this: {permission:?}", self.0.role);
        Err(ApiError::forbidden(text))
    }

    /// The caller as the audit log names it.
    pub(super) fn by(&self) -> By {
        By { actor: format!("{} ({})", self.0.name, self.0.id), now_s: now_s() }
    }
}

impl FromRequestParts<Arc<Cloud>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, cloud: &Arc<Cloud>) -> Result<Self, ApiError> {
        let (id, secret) = credentials(parts).ok_or_else(ApiError::unauthorised)?;
        let key = cloud.db.call(move |store| store.api_key(&id)).await?;
        let key = key.filter(|key| key.digest.matches(&secret.digest()));
        key.map(Self).ok_or_else(ApiError::unauthorised)
    }
}

fn credentials(parts: &Parts) -> Option<(String, Secret)> {
    let header = parts.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (id, secret) = header.strip_prefix("Bearer ")?.split_once('.')?;
    Some((id.to_owned(), secret.parse().ok()?))
}
