//! Who calls the admin API, and what they may do.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use fleet::access::Permission;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use super::ApiError;
use super::credentials::{Unknown, holder, remote};
use crate::access::LiveKey;
use crate::state::{Cloud, now_s};
use crate::store::audit::By;

/// The holder of a valid key.
pub(super) struct Caller(pub(super) Arc<LiveKey>);

impl Caller {
    /// Refuses a caller whose role does not include the permission.
    pub(super) fn need(&self, permission: Permission) -> Result<(), ApiError> {
        self.0.need(permission).map_err(|problem| ApiError::forbidden(problem.message))
    }

    /// The caller as the audit log names it.
    pub(super) fn by(&self) -> By {
        By { actor: self.0.actor(), now_s: now_s() }
    }
}

impl FromRequestParts<Arc<Cloud>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, cloud: &Arc<Cloud>) -> Result<Self, ApiError> {
        holder(cloud, &parts.headers, &parts.extensions).map(Self).map_err(refuse)
    }
}

/// Where a call comes from.
pub(super) struct Remote(pub(super) IpAddr);

impl FromRequestParts<Arc<Cloud>> for Remote {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Cloud>) -> Result<Self, Infallible> {
        Ok(Self(remote(&parts.extensions)))
    }
}

fn refuse(unknown: Unknown) -> ApiError {
    let text = unknown.to_string();
    match unknown {
        Unknown::Denied(_) => ApiError::unauthorised(text),
        Unknown::TooOften { wait_ms } => {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", text)
                .retry_after_ms(wait_ms)
        }
    }
}
