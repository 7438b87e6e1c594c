//! `/metrics`, on an address of its own, for the same callers as the rest of the local API.

use super::{Context, guard, unknown_path};
use crate::metrics::{MEDIA_TYPE, render};
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, middleware};
use std::sync::Arc;

/// The route.
pub(crate) fn metrics_router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(unknown_path)
        .layer(middleware::from_fn_with_state(context.clone(), guard::local_callers_only))
        .with_state(context)
}

async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], render(&context))
}
