//! Failures of the admin API: a status for machines, a code for scripts, a sentence and a hint for
//! people.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::error::Error;
use std::sync::Arc;

use crate::store::StoreError;

/// The fault behind an internal error, for the log; the caller does not see it.
#[derive(Clone)]
pub(super) struct Fault(pub(super) Arc<dyn Error + Send + Sync>);

/// A failure as the caller sees it.
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    error: String,
    hint: String,
    retry_after_s: u32,
    fault: Option<Fault>,
}

impl ApiError {
    /// A failure without a hint.
    pub fn new(status: StatusCode, code: &'static str, error: impl Into<String>) -> Self {
        Self {
            status,
            code,
            error: error.into(),
            hint: String::new(),
            retry_after_s: 0,
            fault: None,
        }
    }

    /// The same failure with a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The same failure with the time after which to try again.
    pub(super) fn retry_after_ms(mut self, wait_ms: u32) -> Self {
        self.retry_after_s = wait_ms.div_ceil(1000);
        self
    }

    pub(super) fn unauthorised(error: String) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorised", error)
            .hint("log in with another: outrigger login --cloud HOST:PORT --key-file FILE")
    }

    pub(super) fn forbidden(error: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", error).hint("ask an admin of this cloud")
    }

    pub(super) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", error)
    }

    pub(super) fn unprocessable(code: &'static str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, error)
    }

    pub(super) fn invalid(error: impl Into<String>) -> Self {
        Self::unprocessable("invalid_request", error)
    }

    pub(super) fn conflict(code: &'static str, error: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, error)
    }

    pub(super) fn internal(fault: impl Error + Send + Sync + 'static) -> Self {
        let text = "the cloud failed to carry this out";
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text);
        Self { fault: Some(Fault(Arc::new(fault))), ..error.hint("see the server's log") }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "code": self.code, "hint": self.hint });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.retry_after_s > 0 {
            headers.insert(RETRY_AFTER, self.retry_after_s.into());
        }
        if let Some(fault) = self.fault {
            response.extensions_mut().insert(fault);
        }
        response
    }
}

/// A bounded JSON body whose failures look like every other.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let RawBody(bytes) = RawBody::from_request(request, state).await?;
        // Serde would take a list too that has a value for each field.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(ApiError::invalid("the body is not as expected: it is no object"));
        }
        let body = serde_json::from_slice(&bytes);
        body.map(Self).map_err(|e| ApiError::invalid(format!("the body is not as expected: {e}")))
    }
}

/// A bounded body.
pub(super) struct RawBody(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await;
        bytes.map(Self).map_err(|rejection| {
            let code = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => "too_large",
                _ => "invalid_request",
            };
            ApiError::new(rejection.status(), code, rejection.body_text())
        })
    }
}
