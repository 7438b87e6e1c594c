//! Releasing a bundle from quarantine, for whoever may open the Unix socket.

use super::Context;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::delete;
use protocol::id::ContentHash;
use std::sync::Arc;

/// A bundle in quarantine is at this path, under its hash.
pub(crate) const QUARANTINE_PATH: &str = "/outrigger/quarantine/";

pub(super) fn routes(context: Arc<Context>) -> Router {
    Router::new()
        .route(&format!("{QUARANTINE_PATH}{{bundle}}"), delete(release))
        .with_state(context)
}

/// 204 when it is out, 404 when it was not in.
async fn release(State(context): State<Arc<Context>>, Path(bundle): Path<String>) -> StatusCode {
    let Ok(bundle) = bundle.parse::<ContentHash>() else { return StatusCode::NOT_FOUND };
    // A row of a database on this device; the lock waits for no trial.
    match tokio::task::block_in_place(|| context.installer.release(bundle)) {
        Ok(true) => StatusCode::NO_CONTENT,
        Ok(false) => StatusCode::NOT_FOUND,
        Err(error) => {
            tracing::error!(error = protocol::problem::chain(&error), "nothing was released");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}
