//! The HTTPS side: liveness, the admin API under `/v1` as JSON, and the Open Inference Protocol
//! ([`crate::standard`]) for everything else.
//!
//! Every call but liveness and a sign-in, which ends with a key, carries `Authorization: Bearer ID.SECRET`,
//! readiness too; what a key's role may do is the table in [`fleet::access`]. Every failure under `/v1` is
//! `{"error": "...", "code": "...", "hint": "..."}`.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::middleware::map_response_with_state;
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

use crate::state::{Cloud, Unready};

mod assignments;
mod auth;
mod blobs;
pub(crate) mod credentials;
mod devices;
mod error;
mod groups;
mod keys;
mod measurements;
mod models;
mod nodes;
pub mod openapi;
mod policies;
mod questions;
mod releases;
mod repository;
mod rollouts;
mod sign_in;
mod signers;
mod status;
mod telemetry;
mod tenants;
mod tokens;
mod usage;

use auth::Caller;
pub use error::ApiError;

/// Every body but a blob's.
const BODY_MAX_BYTES: usize = 512 << 10;

/// All routes. `body` is how long the body of a request to a model may take.
pub fn router(cloud: Arc<Cloud>, body: Duration) -> Router {
    let v1 = Router::new()
        .route("/whoami", get(status::whoami))
        .route("/stats", get(status::stats))
        .route("/audit", get(status::audit))
        .route("/signers", get(signers::list).post(signers::trust))
        .route("/blobs/{sha256}", put(blobs::push).head(blobs::exists))
        .route("/agent/releases", get(releases::list).post(releases::push))
        .route("/agent/assignments", put(releases::assign))
        .route("/models", get(models::list).post(models::push))
        .route("/models/{model}/policy", put(policies::put))
        .route("/bundles/{sha256}", get(repository::bundle))
        .route("/repository/keys/{role}", post(repository::make_key))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{id}", delete(keys::revoke))
        .route("/sign-in", post(sign_in::begin).delete(sign_in::end))
        .route("/sign-in/finish", post(sign_in::finish))
        .route("/tenants", get(tenants::list))
        .route("/tenants/{name}", put(tenants::put))
        .route("/usage", get(usage::report))
        .route("/tokens", get(tokens::list).post(tokens::create))
        .route("/tokens/{id}", delete(tokens::revoke))
        .route("/devices", get(devices::list))
        .route("/devices/{id}", get(devices::show).delete(devices::remove))
        .route("/devices/{id}/denied", put(devices::deny))
        .route("/devices/{id}/labels", put(devices::label))
        .route("/groups", get(groups::list))
        .route("/groups/{name}", put(groups::put).delete(groups::remove))
        .route("/rollouts", get(rollouts::list).post(rollouts::start))
        .route("/rollouts/{id}", get(rollouts::show))
        .route("/rollouts/{id}/commands", post(rollouts::command))
        .route("/measurements", post(measurements::order))
        .route("/measurements/{id}", get(measurements::show))
        .route("/questions", post(questions::ask))
        .route("/questions/{id}", get(questions::show))
        .route("/nodes", get(nodes::list))
        .route("/nodes/tokens", post(nodes::token))
        .route("/nodes/{id}", delete(nodes::remove))
        .route("/assignments", get(assignments::list).put(assignments::assign))
        .route("/telemetry/key", get(telemetry::key).put(telemetry::put_key))
        .route("/telemetry/segments", get(telemetry::list))
        .route("/telemetry/segments/{id}", get(telemetry::fetch))
        .route("/telemetry/devices/{name}", delete(telemetry::delete_device))
        .route("/telemetry/tenants/{name}", delete(telemetry::delete_tenant))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .route("/repository", get(repository::show).post(repository::take))
        .layer(DefaultBodyLimit::max(repository::BODY_MAX_BYTES))
        .layer(map_response_with_state(cloud.clone(), count));
    let standard = crate::standard::router(&cloud, body);
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(openapi))
        .nest("/v1", v1)
        .fallback_service(standard)
        .with_state(cloud)
}

/// The routes of an inference node: no admin API, which changes what only the control node may.
pub fn node_router(cloud: Arc<Cloud>, body: Duration) -> Router {
    let standard = crate::standard::router(&cloud, body);
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(status::metrics))
        .fallback_service(standard)
        .with_state(cloud)
}

async fn healthz() -> Json<Value> {
    Json(json!({ "live": true }))
}

async fn readyz(State(cloud): State<Arc<Cloud>>, _: Caller) -> (StatusCode, Json<Value>) {
    let reasons: Vec<_> = cloud.unready().into_iter().map(Unready::as_str).collect();
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "reasons": reasons })))
}

async fn openapi(_: Caller) -> Json<Value> {
    Json(openapi::document())
}

async fn not_found(_: Caller) -> ApiError {
    ApiError::not_found("there is nothing at this path").hint("the API lives under /v1")
}

async fn method_not_allowed(_: Caller) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", "not with this method")
}

/// Counts and logs failures in one place, whichever handler they come from.
async fn count(State(cloud): State<Arc<Cloud>>, response: Response) -> Response {
    if response.status() == StatusCode::FORBIDDEN {
        cloud.events.api_forbidden();
    }
    if let Some(fault) = response.extensions().get::<error::Fault>() {
        cloud.events.internal_error(&*fault.0);
    }
    response
}
