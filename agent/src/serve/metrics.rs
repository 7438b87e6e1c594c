//! `/metrics`, on an address of its own, for the same callers as the rest of the local API.

use super::{Applications, Context, Door, guard};
use crate::metrics::{MEDIA_TYPE, render};
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, middleware};
use std::sync::Arc;

/// The route.
pub(crate) fn metrics_router(context: Arc<Context>) -> Router {
    // Counters say nothing of what was asked, so no token is wanted for them.
    let door = Door::Tcp(Arc::new(Applications::new(&[])));
    let gate = guard::Gate { counters: context.counters.clone(), door };
    Router::new()
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(Arc::new(gate), guard::admit))
        .with_state(context)
}

async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], render(&context))
}
