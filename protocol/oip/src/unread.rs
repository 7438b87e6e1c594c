//! What becomes of a body that nobody will read.
//!
//! Over HTTP/1 a server that answers and then closes the connection because the body has not arrived
//! yet takes the answer away from a caller that is still sending, who often sees a broken connection
//! instead. So the answer goes out at once, and the body is thrown away behind it, up to a bound; then
//! the connection serves the next request. Over HTTP/2 only the one call is cut short, and a caller
//! that expects `100 Continue` has not begun to send: neither has anything to throw away.

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, Version, header};
use futures_util::StreamExt;
use std::time::Duration;

/// What is thrown away at most; a caller that sends more may see a broken connection.
const BYTES_MAX: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(2);

/// Has a body thrown away where that lets the caller read its answer. Does not wait for it: its
/// connection reads nothing else meanwhile, so there is one such body for each at most.
pub fn discard(version: Version, headers: &HeaderMap, body: Body) {
    let is_behind = version < Version::HTTP_2 && !headers.contains_key(header::EXPECT);
    if is_behind && !body.is_end_stream() {
        drop(tokio::spawn(tokio::time::timeout(PATIENCE, arrive(body))));
    }
}

async fn arrive(body: Body) {
    let (mut data, mut seen) = (body.into_data_stream(), 0);
    while let Some(Ok(piece)) = data.next().await {
        seen += piece.len();
        if seen > BYTES_MAX {
            return;
        }
    }
}
