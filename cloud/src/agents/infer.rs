//! One request: admitted on its header, then read, run, and answered on the same stream.

use link::connection::{RecvStream, SendStream};
use link::durable::aside;
use link::frames;
use protocol::codec::FrameHeader;
use protocol::problem::{Problem, ProblemCode};
use protocol::trace::{Origin, Via};
use protocol::transport::PACKED_AT_ONCE_BYTES;
use protocol::wire::{self, PendingRequest};
use std::time::{Duration, Instant};

use super::answer_problem;
use super::session::{Session, StreamError};
use crate::metrics::Transport;
use crate::requests::Taken;
use crate::serving::{Asker, Knock, Size, late};
use crate::state::now_ns;

/// How a request ended without an answer.
enum Unanswered {
    /// The agent is told why.
    Problem(Problem),
    /// The agent gave the request up.
    Cancelled,
    /// The stream broke.
    Stream(StreamError),
}

impl From<Problem> for Unanswered {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// Serves one inference stream.
pub(super) async fn serve(
    session: &Session,
    mut send: SendStream,
    mut recv: RecvStream,
    header: FrameHeader,
) -> Result<(), StreamError> {
    let events = &session.cloud.events;
    let open: wire::InferOpen = frames::message(&mut recv, header).await?;
    let arrived = Instant::now();
    events.request_arrived();
    let flying = session.cloud.take_off();
    let taken = match &flying {
        Some(_) => admit(session, open).await,
        None => Err(stopping()),
    };
    let taken = match taken {
        Ok(taken) => taken,
        Err(problem) => {
            events.request_refused(&session.device, &problem);
            let said = answer_problem(&mut send, &mut recv, problem).await;
            session.cloud.observed.refused(Transport::Quic, arrived.elapsed());
            return Ok(said?);
        }
    };
    let result = answer(session, taken, &mut send, &mut recv).await;
    match result {
        Ok((reply, outputs)) => {
            frames::send_last(&mut send, &reply, outputs).await?;
            events.request_answered();
            // In flight until it has arrived: a stopping server must not cut it off.
            let _ = send.stopped().await;
            Ok(())
        }
        Err(Unanswered::Problem(problem)) => {
            events.request_failed(&session.device, &problem);
            Ok(answer_problem(&mut send, &mut recv, problem).await?)
        }
        Err(Unanswered::Cancelled) => {
            events.request_cancelled();
            Ok(())
        }
        Err(Unanswered::Stream(error)) => Err(error),
    }
}

/// A request that was taken, before its tensors arrived.
type Admitted = (PendingRequest, Taken);

async fn admit(session: &Session, open: wire::InferOpen) -> Result<Admitted, Problem> {
    let pending = PendingRequest::from_open(open)?;
    let size = Size {
        items: pending.items(),
        bytes: pending.held_bytes(),
        priority: pending.priority(),
        remaining: Duration::from_millis(pending.deadline_ms().into()),
        background: pending.background,
    };
    let (model, version) = (pending.model(), Some(pending.version()));
    let origin = Origin { via: Via::Agent, parent: pending.trace.clone() };
    let carrier = session.connection.carrier().as_str();
    let mut trace = session.cloud.traces.serve(origin, carrier, model, now_ns);
    session.check_model(model).await.inspect_err(|problem| trace.failed(problem))?;
    let knock = Knock { asker: Asker::Device, model, version, size };
    let taken = session.cloud.admit(&session.identity, &knock, trace)?;
    Ok((pending, taken))
}

/// Whoever asks a stopping server learns it at once, and can go to another.
fn stopping() -> Problem {
    Problem::new(ProblemCode::GoingAway, "this server is stopping").hint("ask again, or another")
}

type Reply = (wire::InferReply, Vec<bytes::Bytes>);

async fn answer(
    session: &Session,
    (pending, taken): Admitted,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<Reply, Unanswered> {
    let raw = frames::receive_raw(recv, &pending.tensor_sizes);
    let Ok(raw) = tokio::time::timeout_at(taken.deadline().into(), raw).await else {
        let late = late();
        taken.spoilt(&late);
        return Err(late.into());
    };
    let raw = raw.map_err(|error| match error {
        frames::LinkError::Reset(_) => Unanswered::Cancelled,
        other => Unanswered::Stream(other.into()),
    })?;
    let large = pending.is_packed() && pending.held_bytes() > PACKED_AT_ONCE_BYTES;
    let unpack = || pending.with_data(raw);
    let request = match if large { aside(unpack) } else { unpack() } {
        Ok(request) => request,
        Err(problem) => {
            taken.spoilt(&problem);
            return Err(problem.into());
        }
    };
    let deferred = session.cloud.answer(taken, request);
    tokio::select! {
        result = deferred => {
            let response = result?;
            let outputs = response.outputs.iter().map(|output| output.data().clone()).collect();
            let wait_us = session.cloud.wait_us();
            Ok((wire::InferReply { wait_us, ..wire::infer_reply(&response) }, outputs))
        }
        // The agent stops the answer or resets the request: nobody waits any more.
        _ = send.stopped() => Err(Unanswered::Cancelled),
        Ok(Some(_)) = recv.received_reset() => Err(Unanswered::Cancelled),
    }
}
