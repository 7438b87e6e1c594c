//! One request: admitted on its header, then read, run, and answered on the same stream.

use link::frames;
use models::worker::{Answer, Job, Refused};
use protocol::codec::FrameHeader;
use protocol::id::Version;
use protocol::infer::InferRequest;
use protocol::problem::{Problem, ProblemCode};
use protocol::wire::{self, PendingRequest};
use quinn::{RecvStream, SendStream};
use std::time::{Duration, Instant};

use super::answer_problem;
use super::session::{Session, StreamError};
use crate::serving::Admitted;

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
    let _flying = session.cloud.in_flight.enter();
    let open: wire::InferOpen = frames::message(&mut recv, header).await?;
    events.request_arrived();
    let arrived = Instant::now();
    let admitted = match admit(session, open) {
        Ok(admitted) => admitted,
        Err(problem) => {
            events.request_refused(&session.device, &problem);
            return Ok(answer_problem(&mut send, &mut recv, problem).await?);
        }
    };
    let deadline = arrived + Duration::from_millis(admitted.0.deadline_ms().into());
    let result = answer(session, admitted, deadline, &mut send, &mut recv).await;
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
type Taken = (PendingRequest, Version, Admitted);

fn admit(session: &Session, open: wire::InferOpen) -> Result<Taken, Problem> {
    let pending = PendingRequest::from_open(open)?;
    let version = pending.version();
    let remaining = Duration::from_millis(pending.deadline_ms().into());
    let bytes = pending.tensor_sizes.iter().sum();
    let admitted = session.cloud.serving.admit(pending.model(), version, bytes, remaining)?;
    Ok((pending, version, admitted))
}

fn late() -> Unanswered {
    let text = "the deadline passed before the model could answer";
    Unanswered::Problem(Problem::new(ProblemCode::DeadlineExceeded, text).hint("allow more time"))
}

type Reply = (wire::InferReply, Vec<bytes::Bytes>);

async fn answer(
    session: &Session,
    (pending, version, admitted): Taken,
    deadline: Instant,
    send: &mut SendStream,
    recv: &mut RecvStream,
) -> Result<Reply, Unanswered> {
    let raw = frames::receive_raw(recv, &pending.tensor_sizes);
    let raw = tokio::time::timeout_at(deadline.into(), raw).await.map_err(|_| late())?;
    let raw = raw.map_err(|error| match error {
        frames::LinkError::Reset(_) => Unanswered::Cancelled,
        other => Unanswered::Stream(other.into()),
    })?;
    let request = pending.with_data(raw)?;
    tokio::select! {
        result = tokio::time::timeout_at(deadline.into(), run(session, request, version, admitted, deadline)) => {
            result.map_err(|_| late())?
        }
        // The agent stops the answer or resets the request: nobody waits any more.
        _ = send.stopped() => Err(Unanswered::Cancelled),
        Ok(Some(_)) = recv.received_reset() => Err(Unanswered::Cancelled),
    }
}

async fn run(
    session: &Session,
    request: InferRequest,
    version: Version,
    mut admitted: Admitted,
    deadline: Instant,
) -> Result<Reply, Unanswered> {
    let model = session.cloud.serving.model(&admitted).await.map_err(Problem::from)?;
    let job = Job {
        inputs: request.inputs.clone(), // shares the tensors' bytes
        outputs: request.outputs.clone(),
        deadline: Some(deadline),
    };
    let ticket = model.submit(job).map_err(refused)?;
    let answer = ticket.await.map_err(Problem::from)?;
    admitted.ran(Duration::from_micros(answer.infer_us));
    Ok(reply(&request, version, answer))
}

fn refused(refused: Refused) -> Problem {
    match refused {
        Refused::Full { .. } => Problem::new(ProblemCode::Overloaded, refused.to_string())
            .hint("try again after retry_after_ms")
            .retry_after_ms(100),
        Refused::Stopped => Problem::new(ProblemCode::GoingAway, refused.to_string()),
    }
}

fn reply(request: &InferRequest, version: Version, answer: Answer) -> Reply {
    let reply = wire::InferReply {
        confidence: answer.confidence,
        queue_us: answer.queue_us,
        infer_us: answer.infer_us,
        label: answer.label.unwrap_or_default(),
        ..wire::infer_reply(request, version, &answer.outputs)
    };
    (reply, answer.outputs.iter().map(|output| output.data().clone()).collect())
}
