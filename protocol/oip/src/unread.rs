//! What becomes of a body that nobody will read.
//!
//! Over HTTP/1 a server that answers before the body has arrived has to close the connection; the
//! caller, still sending, then often sees a broken connection instead of the answer. So the body
//! is thrown away as it arrives, up to a bound. Over HTTP/2 only the one call is cut short, and a
//! caller that expects `100 Continue` has not begun to send: neither has anything to throw away.

use axum::body::Body;
use axum::http::{HeaderMap, Version, header};
use futures_util::StreamExt;
use std::time::Duration;

/// What is thrown away at most; a caller that sends more may see a broken connection.
const BYTES_MAX: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(2);

/// Throws a body away where that lets the caller read its answer.
pub async fn discard(version: Version, headers: &HeaderMap, body: Body) {
    if version >= Version::HTTP_2 || headers.contains_key(header::EXPECT) {
        return;
    }
    let arrive = async {
        let (mut data, mut seen) = (body.into_data_stream(), 0);
        while let Some(Ok(piece)) = data.next().await {
            seen += piece.len();
            if seen > BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, arrive).await;
}
