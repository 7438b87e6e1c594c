//! Reading a body into one piece of memory, in which tensors can stay where they are.

use crate::intake::{Held, NotTaken};
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use protocol::problem::{Problem, ProblemCode};

/// Memory is made ready for so much of what is announced; for more only as it arrives.
const AHEAD_MAX_BYTES: usize = 1 << 20;
/// The strictest that a number in a tensor wants of its address, and what allocators give.
const ALIGNMENT: usize = 16;

/// The whole body; more than `limit` bytes, counted after decompression, are refused as soon as
/// they are seen. What stands behind the first `json_len` bytes begins at a multiple of
/// [`ALIGNMENT`], so that a runtime can read a tensor there without another copy.
pub(super) async fn read(
    body: Body,
    limit: usize,
    json_len: usize,
    held: &Held,
) -> Result<Bytes, Problem> {
    let mut body = held.measure(body, false);
    let pad = json_len.wrapping_neg() % ALIGNMENT; // zeros in front, which are not given back
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(too_large(limit));
    }
    let mut bytes = Vec::with_capacity(pad + announced.min(AHEAD_MAX_BYTES));
    bytes.resize(pad, 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if bytes.len() - pad + data.len() > limit {
            return Err(too_large(limit));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Bytes::from(bytes).slice(pad..))
}

fn too_large(limit: usize) -> Problem {
    let text = format!("the body has more than {limit} bytes");
    Problem::new(ProblemCode::TooLarge, text).hint("send fewer items per request")
}

fn broken(error: &axum::Error) -> Problem {
    if let Some(refused) = NotTaken::of(error) {
        return refused.problem.clone();
    }
    let text = "the body broke off, or is not what its Content-Encoding says";
    Problem::new(ProblemCode::InvalidRequest, text).hint("send the whole body again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::Intake;
    use futures_util::stream;
    use std::convert::Infallible;

    async fn check(pieces: &[&'static [u8]], limit: usize) -> Result<Bytes, ProblemCode> {
        let pieces = pieces.iter().map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece)));
        let body = Body::from_stream(stream::iter(pieces.collect::<Vec<_>>()));
        read(body, limit, 3, &Intake::default().request()).await.map_err(|problem| problem.code)
    }

    #[tokio::test]
    async fn pieces_become_one_and_the_limit_holds() {
        assert_eq!(check(&[b"{ }", b"12", b"34"], 7).await.unwrap().as_ref(), b"{ }1234");
        assert_eq!(check(&[b"{ }", b"12345"], 7).await, Err(ProblemCode::TooLarge));
        assert_eq!(
            read(Body::from(vec![0; 8]), 7, 0, &Intake::default().request())
                .await
                .unwrap_err()
                .code,
            ProblemCode::TooLarge
        );
        assert!(check(&[], 7).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_tensor_lies_where_it_can_be_read() {
        let intake = Intake::default();
        for json_len in 0..40 {
            let held = intake.request();
            let body = read(Body::from(vec![7; 2 << 20]), 4 << 20, json_len, &held).await.unwrap();
            assert_eq!(body[json_len..].as_ptr().align_offset(ALIGNMENT), 0, "{json_len}");
            assert_eq!(body.len(), 2 << 20);
        }
    }
}
