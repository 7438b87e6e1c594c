//! What is said about the server and its models.

use super::named::Named;
use super::respond;
use crate::{Caller, Inference};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use protocol::oip::{EXTENSIONS, ModelDescription};
use protocol::problem::Problem;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) async fn server_metadata<I: Inference>(State(inference): State<Arc<I>>) -> Json<Value> {
    let (name, version) = (inference.name(), inference.version());
    Json(json!({ "name": name, "version": version, "extensions": EXTENSIONS }))
}

/// Clients differ in which of the two words they read, on either path.
fn health(ready: bool) -> Json<Value> {
    Json(json!({ "live": true, "ready": ready }))
}

pub(super) async fn live<I: Inference>(State(inference): State<Arc<I>>) -> Response {
    health(inference.is_ready()).into_response()
}

pub(super) async fn ready<I: Inference>(State(inference): State<Arc<I>>) -> Response {
    let ready = inference.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, health(ready)).into_response()
}

fn describe<I: Inference>(
    inference: &I,
    caller: &Caller,
    named: &Named,
) -> Result<Arc<ModelDescription>, Problem> {
    caller.check_model(&named.model)?;
    inference.describe(&named.model, named.version)
}

pub(super) async fn metadata<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
    named: Named,
) -> Response {
    respond(describe(&*inference, &caller, &named).map(|model| model.metadata()))
}

pub(super) async fn config<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
    named: Named,
) -> Response {
    let sequences = inference.sequence_limits();
    respond(describe(&*inference, &caller, &named).map(|model| model.config(sequences)))
}

pub(super) async fn model_ready<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
    named: Named,
) -> Response {
    let found = describe(&*inference, &caller, &named);
    respond(found.map(|model| json!({ "name": model.name, "ready": true })))
}

pub(super) async fn all_statistics<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
) -> Response {
    let found = crate::statistics(&*inference, &caller, None);
    respond(found.map(|models| json!({ "model_stats": models })))
}

pub(super) async fn statistics<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
    Named { model, version }: Named,
) -> Response {
    let found = crate::statistics(&*inference, &caller, Some((model, version)));
    respond(found.map(|models| json!({ "model_stats": models })))
}
