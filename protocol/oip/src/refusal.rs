//! Refusals from before the router, in the shape that the caller's protocol reads.

use crate::grpc::status_of;
use crate::http::failure;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::problem::Problem;

/// Whether a request is a gRPC call.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// The answer to a caller who may not do this: 403, or the status of the problem.
pub fn forbidden(headers: &HeaderMap, problem: &Problem) -> Response {
    if is_grpc(headers) {
        return status_of(problem).into_http::<axum::body::Body>().into_response();
    }
    failure(problem)
}

/// The answer to a caller who did not say who it is: 401 or `UNAUTHENTICATED`.
pub fn unauthenticated(headers: &HeaderMap, problem: &Problem) -> Response {
    if is_grpc(headers) {
        let status = tonic::Status::unauthenticated(problem.to_string());
        return status.into_http::<axum::body::Body>().into_response();
    }
    let mut response = failure(problem);
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let scheme = HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

/// The answer to a caller who failed too often: 429, or `RESOURCE_EXHAUSTED`.
pub fn too_many(headers: &HeaderMap, problem: &Problem) -> Response {
    if is_grpc(headers) {
        let status = tonic::Status::resource_exhausted(problem.to_string());
        return status.into_http::<axum::body::Body>().into_response();
    }
    let mut response = failure(problem);
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response
}
