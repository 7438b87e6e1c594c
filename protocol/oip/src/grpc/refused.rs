//! What is refused before a call gets here: by the intake, by the look at its bytes, by decoding.
//! These become problems like all others, counted and with a hint.

use super::{CODE_KEY, early, status_of};
use crate::Inference;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use protocol::problem::{Problem, ProblemCode};
use std::sync::Arc;
use tonic::{Code, Status};

/// Measures the body of a call, and makes whatever status is not ours one of ours.
pub(super) async fn measure<I: Inference>(
    State(inference): State<Arc<I>>,
    mut request: Request,
    next: Next,
) -> Response {
    let streamed = request.uri().path().ends_with("/ModelStreamInfer");
    let asks_once = request.uri().path().ends_with("/ModelInfer");
    let held = inference.intake().request(); // until the call is answered
    request.extensions_mut().insert(held.clone());
    let mut request = request.map(|body| held.measure(body, streamed));
    if asks_once {
        request = match early::admit(&*inference, request).await {
            Ok(request) => request,
            Err(refusal) => return *refusal,
        };
    }
    let response = next.run(request).await;
    let ours = response.headers().contains_key(CODE_KEY);
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok && !ours => {
            count(&*inference, status).into_http::<Body>().into_response()
        }
        _ => response,
    }
}

/// Counts a refusal that nobody has counted, and says it as all are said.
pub(super) fn count<I: Inference>(inference: &I, status: Status) -> Status {
    let code = match status.code() {
        Code::ResourceExhausted | Code::OutOfRange => ProblemCode::TooLarge,
        Code::Internal | Code::InvalidArgument => ProblemCode::InvalidRequest,
        Code::DeadlineExceeded => ProblemCode::DeadlineExceeded,
        Code::Unavailable => ProblemCode::Overloaded,
        // What is not served, such as a compression, is said in gRPC's own terms.
        Code::Unimplemented => {
            inference.refused(&Problem::new(ProblemCode::InvalidRequest, status.message()));
            return status;
        }
        _ => return status, // the caller went away
    };
    let mut problem = Problem::new(code, status.message());
    problem.hint = match code {
        ProblemCode::TooLarge if status.code() == Code::OutOfRange => {
            "send fewer items per request".to_owned()
        }
        ProblemCode::InvalidRequest if status.code() == Code::Internal => {
            "send a message of the Open Inference Protocol's inference.proto".to_owned()
        }
        _ => String::new(), // the message has it
    };
    if code == ProblemCode::Overloaded {
        problem.retry_after_ms = 100;
    }
    inference.refused(&problem);
    status_of(&problem)
}
