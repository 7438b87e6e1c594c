//! The local API: the Open Inference Protocol over HTTP on a loopback address.
//!
//! It has no access control, so it answers only what comes from this machine on purpose: the Host
//! must be a loopback name (against DNS rebinding), and a browser's Origin is refused.

mod guard;
mod inference;
mod metrics;
mod status;

pub(crate) use metrics::metrics_router;
pub(crate) use status::{ModelStatus, StatusReport};

use crate::counters::Counters;
use crate::identity::IdentityFiles;
use crate::install::Installer;
use crate::requests::Requests;
use crate::uplink::Uplink;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, middleware};
use protocol::id::DeviceId;
use protocol::oip;
use protocol::problem::{Problem, ProblemCode};
use std::sync::Arc;

/// What the handlers share.
pub(crate) struct Context {
    pub(crate) requests: Requests,
    pub(crate) counters: Arc<Counters>,
    pub(crate) uplink: Uplink,
    pub(crate) installer: Arc<Installer>,
    pub(crate) device: DeviceId,
    pub(crate) cloud: String,
    pub(crate) identity: IdentityFiles,
}

/// The routes.
pub(crate) fn router(context: Arc<Context>) -> Router {
    let model = "/v2/models/{model}";
    let versioned = "/v2/models/{model}/versions/{version}";
    Router::new()
        .route("/v2", get(inference::server_metadata))
        .route("/v2/", get(inference::server_metadata))
        .route("/v2/health/live", get(inference::live))
        .route("/v2/health/ready", get(inference::ready))
        .route(model, get(inference::model_metadata))
        .route(versioned, get(inference::model_metadata_of_version))
        .route(&format!("{model}/ready"), get(inference::model_ready))
        .route(&format!("{versioned}/ready"), get(inference::model_ready_of_version))
        .route(&format!("{model}/infer"), post(inference::infer))
        .route(&format!("{versioned}/infer"), post(inference::infer_of_version))
        .route("/outrigger/status", get(status::status))
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(context.clone(), guard::local_callers_only))
        .with_state(context)
}

async fn unknown_path(uri: axum::http::Uri) -> Response {
    let text = format!("there is nothing at {}", uri.path());
    let hint =
        "the Open Inference Protocol is served under /v2, the agent's status at /outrigger/status";
    failure(&Problem::new(ProblemCode::NotFound, text).hint(hint))
}

/// The HTTP answer to a problem, in the standard's shape.
fn failure(problem: &Problem) -> Response {
    let status = match problem.code {
        ProblemCode::InvalidRequest | ProblemCode::Protocol => StatusCode::BAD_REQUEST,
        ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::Unauthorised => StatusCode::FORBIDDEN,
        ProblemCode::Overloaded | ProblemCode::Unreachable | ProblemCode::GoingAway => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ProblemCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ProblemCode::InferenceFailed | ProblemCode::Internal | ProblemCode::None => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (status, json, oip::error_body(problem)).into_response();
    if problem.retry_after_ms > 0 {
        let seconds = HeaderValue::from(problem.retry_after_ms.div_ceil(1000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}
