//! The standard over HTTP: its paths, and errors in its shape.

mod body;
mod infer;
mod models;
mod named;
mod repository;

use crate::Inference;
use crate::refusal::is_grpc;
use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use protocol::oip;
use protocol::problem::{Problem, ProblemCode};
use std::sync::Arc;

/// The routes.
pub(crate) fn routes<I: Inference>(inference: Arc<I>) -> Router {
    let mut router = Router::new()
        .route("/v2", get(models::server_metadata::<I>))
        .route("/v2/", get(models::server_metadata::<I>))
        .route("/v2/health/live", get(models::live::<I>))
        .route("/v2/health/ready", get(models::ready::<I>))
        .route("/v2/models/stats", get(models::all_statistics::<I>))
        .route("/v2/repository/index", post(repository::index::<I>))
        .route("/v2/repository/models/{model}/load", post(repository::load::<I>))
        .route("/v2/repository/models/{model}/unload", post(repository::unload::<I>));
    for model in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        router = router
            .route(model, get(models::metadata::<I>))
            .route(&format!("{model}/ready"), get(models::model_ready::<I>))
            .route(&format!("{model}/config"), get(models::config::<I>))
            .route(&format!("{model}/stats"), get(models::statistics::<I>))
            .route(&format!("{model}/infer"), infer::route::<I>());
    }
    router.method_not_allowed_fallback(wrong_method).fallback(unknown_path).with_state(inference)
}

async fn wrong_method(uri: Uri) -> Response {
    let text = format!("{} does not take this method", uri.path());
    let mut response = failure(&Problem::new(ProblemCode::InvalidRequest, text));
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response
}

/// Extensions of the standard that are not served here, by the beginning of their paths.
const NOT_SERVED: [(&str, &str); 4] = [
    ("/v2/systemsharedmemory", "shared memory"),
    ("/v2/cudasharedmemory", "shared memory"),
    ("/v2/trace", "tracing"),
    ("/v2/logging", "logging"),
];

async fn unknown_path(headers: HeaderMap, uri: Uri) -> Response {
    if is_grpc(&headers) {
        let status = tonic::Status::unimplemented(format!("{} is not served here", uri.path()));
        return status.into_http::<axum::body::Body>().into_response();
    }
    let path = uri.path();
    let not_served = NOT_SERVED.iter().find(|(start, _)| path.starts_with(start));
    let (text, hint) = match not_served {
        Some((_, what)) => (
            format!("the extension for {what} is not served here"),
            "the answer to GET /v2 lists the extensions that are",
        ),
        None => (
            format!("there is nothing at {path}"),
            "the Open Inference Protocol is served under /v2",
        ),
    };
    failure(&Problem::new(ProblemCode::NotFound, text).hint(hint))
}

/// The HTTP answer to a problem, in the standard's shape.
pub(crate) fn failure(problem: &Problem) -> Response {
    let status = match problem.code {
        ProblemCode::None => StatusCode::INTERNAL_SERVER_ERROR, // no success stands for a failure
        code => StatusCode::from_u16(code.http_status()).unwrap_or_default(),
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (status, json, oip::error_body(problem)).into_response();
    if problem.retry_after_ms > 0 {
        let seconds = HeaderValue::from(problem.retry_after_ms.div_ceil(1000));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// JSON, or the problem.
fn respond<T: serde::Serialize>(result: Result<T, Problem>) -> Response {
    match result {
        Ok(body) => axum::Json(body).into_response(),
        Err(problem) => failure(&problem),
    }
}
