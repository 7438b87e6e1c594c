//! Files of bundles, pushed by hash.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::IntoResponse;
use fleet::access::Permission;
use protocol::id::{ContentHash, InvalidName};
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use crate::blobs::BlobError;
use crate::state::Cloud;

/// Of a file that is there already, when it is sent all the same.
const READ_AWAY_MAX_BYTES: usize = 1 << 20;

fn parse(hash: &str) -> Result<ContentHash, ApiError> {
    hash.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))
}

pub(super) async fn exists(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(hash): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    caller.need(Permission::View)?;
    let hash = parse(&hash)?;
    let size = cloud.blobs.size_bytes(hash).map_err(ApiError::internal)?;
    cloud.blobs.touch(hash);
    let size = size.ok_or_else(|| ApiError::not_found("there is no such blob"))?;
    Ok([(CONTENT_LENGTH, size.to_string())])
}

pub(super) async fn push(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(hash): Path<String>,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::Push)?;
    let hash = parse(&hash)?;
    if let Some(size_bytes) = cloud.blobs.size_bytes(hash).map_err(ApiError::internal)? {
        cloud.blobs.touch(hash);
        // A short one is read away: over HTTP/1 an unread body costs the connection.
        let _ = axum::body::to_bytes(body, READ_AWAY_MAX_BYTES).await;
        return Ok((StatusCode::OK, Json(json!({ "sha256": hash, "size_bytes": size_bytes }))));
    }
    let _permit = cloud.limits.uploads.acquire().await; // never closed
    let received = cloud.blobs.receive(hash, body.into_data_stream()).await;
    let size_bytes = received.map_err(refuse)?;
    Ok((StatusCode::CREATED, Json(json!({ "sha256": hash, "size_bytes": size_bytes }))))
}

fn refuse(error: BlobError) -> ApiError {
    let text = error.to_string();
    match error {
        BlobError::WrongHash { .. } => {
            ApiError::unprocessable("hash_mismatch", text).hint("push the file again")
        }
        BlobError::TooLarge => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", text),
        BlobError::BrokenOff => ApiError::new(StatusCode::BAD_REQUEST, "broken_off", text),
        BlobError::Io(error) => ApiError::internal(error),
    }
}
