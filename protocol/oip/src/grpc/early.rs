//! Admission of a unary call on the first bytes of its message: whoever is refused has cost no
//! decoding, and next to no reading. Where those bytes do not name the model, the call is admitted
//! once its message is there (`service`).
//!
//! Messages of a stream are admitted one by one when they are whole: what a stream has in flight is
//! bounded by itself, and a refusal does not end it.

use super::status_of;
use crate::{Ask, Caller, Inference};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use protocol::id::{ModelName, Version};
use protocol::infer::InferRequest;
use protocol::oip::grpc::{OPENING_MAX_BYTES, Opening};
use protocol::problem::{Problem, ProblemCode};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

/// A place that was given for the model that a call named in front.
pub(super) struct Early<P> {
    model: ModelName,
    version: Option<Version>,
    place: Arc<Mutex<Option<P>>>,
}

impl<P> Clone for Early<P> {
    fn clone(&self) -> Self {
        let Self { model, version, place } = self;
        Self { model: model.clone(), version: *version, place: place.clone() }
    }
}

impl<P> Early<P> {
    /// The place, for the request that was decoded.
    ///
    /// # Errors
    /// A later field named another model: the last one counts in protobuf.
    pub(super) fn place_for(self, request: &InferRequest) -> Result<Option<P>, Problem> {
        if self.model != request.model || self.version != request.version {
            let text = "the message names its model twice, and differently";
            return Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("send each of the fields model_name and model_version once"));
        }
        Ok(self.place.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

/// Admits a call, if its first bytes say what it asks; the same call, with its place.
///
/// # Errors
/// The refusal.
pub(super) async fn admit<I: Inference>(
    inference: &I,
    request: Request,
) -> Result<Request, Box<Response>> {
    let began = Instant::now();
    let Ok(caller) = Caller::of(request.extensions()) else { return Ok(request) };
    let (mut parts, body) = request.into_parts();
    let (opening, body) = open(body).await;
    if let Opening::Names { model, version, message_bytes } = opening {
        let taken = take(inference, &caller, (&model, version), message_bytes);
        let place = taken.map_err(|problem| {
            inference.turned_away(began.elapsed());
            Box::new(status_of(&problem).into_http::<Body>().into_response())
        })?;
        let place = Arc::new(Mutex::new(Some(place)));
        parts.extensions.insert(Early { model, version, place });
    }
    Ok(Request::from_parts(parts, body))
}

fn take<I: Inference>(
    inference: &I,
    caller: &Caller,
    (model, version): (&ModelName, Option<Version>),
    message_bytes: u32,
) -> Result<I::Place, Problem> {
    caller.check_model(model).inspect_err(|problem| inference.refused(problem))?;
    inference.admit(caller, &Ask { model, version, body_bytes: Some(message_bytes.into()) })
}

/// Reads the beginning of a body; what it says, and the whole body again.
async fn open(mut body: Body) -> (Opening, Body) {
    let (mut beginning, mut seen) = (Vec::new(), Vec::new());
    let opening = loop {
        match Opening::read(&beginning) {
            Opening::Unfinished if seen.len() < OPENING_MAX_BYTES => {}
            Opening::Unfinished => break Opening::Silent, // pieces without bytes
            known => break known,
        }
        let Some(frame) = body.frame().await else { break Opening::Silent };
        if let Some(data) = frame.as_ref().ok().and_then(Frame::data_ref) {
            let room = (2 * OPENING_MAX_BYTES).saturating_sub(beginning.len());
            beginning.extend_from_slice(&data[..data.len().min(room)]);
        }
        let is_broken = frame.is_err();
        seen.push(frame);
        if is_broken {
            break Opening::Silent;
        }
    };
    (opening, Body::new(Reread { seen: seen.into_iter(), rest: body }))
}

/// A body whose beginning was looked at.
struct Reread {
    seen: std::vec::IntoIter<Result<Frame<Bytes>, axum::Error>>,
    rest: Body,
}

impl HttpBody for Reread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.seen.next() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.seen.len() == 0 && self.rest.is_end_stream()
    }
}
