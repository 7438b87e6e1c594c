//! Which installed models there are, and which of them answer.

use super::named::Named;
use super::{body, failure, respond};
use crate::{Caller, Inference};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use protocol::oip;
use protocol::problem::Problem;
use std::sync::Arc;

/// These bodies hold a few parameters; a client may try to send a whole model, to be told no.
const BODY_MAX_BYTES: usize = 16 << 20;

pub(super) async fn index<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
    content: Body,
) -> Response {
    let held = inference.intake().request();
    let read = body::read(content, BODY_MAX_BYTES, 0, &held).await;
    let ready_only = read.and_then(|body| oip::index_wants_ready_only(&body));
    respond(ready_only.map(|ready_only| crate::index(&*inference, &caller, ready_only)))
}

pub(super) async fn load<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
    named: Named,
    content: Body,
) -> Response {
    let allowed = check(&*inference, &caller, &named, content).await;
    match allowed {
        Ok(()) => done(inference.load(&caller, &named.model).await),
        Err(problem) => failure(&problem),
    }
}

pub(super) async fn unload<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
    named: Named,
    content: Body,
) -> Response {
    let allowed = check(&*inference, &caller, &named, content).await;
    match allowed {
        Ok(()) => done(inference.unload(&caller, &named.model).await),
        Err(problem) => failure(&problem),
    }
}

async fn check<I: Inference>(
    inference: &I,
    caller: &Caller,
    named: &Named,
    content: Body,
) -> Result<(), Problem> {
    let check = async {
        caller.check_manages(&named.model)?;
        let held = inference.intake().request();
        oip::check_parameters(&body::read(content, BODY_MAX_BYTES, 0, &held).await?)
    };
    check.await.inspect_err(|problem| inference.refused(problem))
}

fn done(result: Result<(), Problem>) -> Response {
    match result {
        Ok(()) => ().into_response(),
        Err(problem) => failure(&problem),
    }
}
