//! One deferral on one connection: a stream of its own, header first, then the application's own
//! tensors, as they are or packed. Dropping the future resets the stream, which cancels the request in the cloud.
//! Who keeps the connection, and who is asked, is not decided here.

use super::Question;
use ::link::connection::{Connection, RecvStream, SendStream};
use ::link::frames::{self, LinkError};
use protocol::id::Version;
use protocol::infer::Timing;
use protocol::mux::Priority;
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::Tensor;
use protocol::trace::TraceContext;
use protocol::wire::{self, InferReply, PendingReply};
use std::time::{Duration, Instant};

/// What the cloud answered.
#[derive(Debug)]
pub(crate) struct CloudAnswer {
    pub(crate) version: Version,
    pub(crate) outputs: Vec<Tensor>,
    pub(crate) confidence: Option<f32>,
    pub(crate) label: Option<String>,
    pub(crate) timing: Timing,
    /// How many nodes were asked for it.
    pub(crate) attempts: u32,
    /// How long a request that came next would wait there, by the node's own word.
    pub(crate) wait: Duration,
    /// Tensor bytes that came back.
    pub(crate) received_bytes: u64,
    /// Tensor bytes that need not go there.
    pub(crate) saved_bytes: u64,
}

/// Resets the request's stream unless the answer arrived whole.
struct Cancel<'a> {
    send: SendStream,
    receive: &'a mut RecvStream,
    done: bool,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.send.reset(ProblemCode::DeadlineExceeded);
            self.receive.stop(ProblemCode::DeadlineExceeded);
        }
    }
}

/// Asks the cloud, which may take `budget`, and waits for the whole answer. The caller bounds the
/// wait. A check in the background steps behind whatever else is to be sent.
pub(crate) async fn ask(
    connection: &Connection,
    question: &Question<'_>,
    budget: Duration,
    context: Option<&TraceContext>,
) -> Result<CloudAnswer, Problem> {
    let answer = exchange(connection, question, budget, context).await;
    answer.map_err(LinkError::into_problem)?
}

async fn exchange(
    connection: &Connection,
    question: &Question<'_>,
    budget: Duration,
    context: Option<&TraceContext>,
) -> Result<Result<CloudAnswer, Problem>, LinkError> {
    let started = Instant::now();
    let Question { request, parcel, version, check, .. } = *question;
    let (send, mut receive) = connection.open_bi().await?;
    if check {
        send.set_priority(Priority::Check);
    }
    let mut stream = Cancel { send, receive: &mut receive, done: false };
    let deadline_ms = u32::try_from(budget.as_millis()).unwrap_or(u32::MAX);
    let trace = context.map(TraceContext::to_wire);
    let open = wire::infer_open(request, parcel, version, deadline_ms);
    let open = wire::InferOpen { trace, background: check, ..open };
    match frames::send_last(&mut stream.send, &open, parcel.pieces()).await {
        // A refusal is decided on the header: the cloud stops reading and says why.
        Ok(()) | Err(LinkError::Reset(_)) => {}
        Err(error) => return Err(error),
    }
    let reply: InferReply = frames::receive(stream.receive).await?;
    let pending = match PendingReply::from_reply(reply) {
        Ok(pending) => pending,
        Err(problem) => return Ok(Err(problem)),
    };
    let data = frames::receive_raw(stream.receive, &pending.tensor_sizes).await?;
    stream.done = true;
    let answer = whole_answer(pending, data, started.elapsed());
    Ok(answer.map(|answer| CloudAnswer { saved_bytes: parcel.saved_bytes(), ..answer }))
}

fn whole_answer(
    pending: PendingReply,
    data: Vec<bytes::Bytes>,
    elapsed: Duration,
) -> Result<CloudAnswer, Problem> {
    let InferReply { confidence, queue_us, infer_us, label, wait_us, .. } = pending.reply.clone();
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let network_us = elapsed_us.saturating_sub(queue_us).saturating_sub(infer_us);
    Ok(CloudAnswer {
        version: pending.version,
        attempts: 1,
        wait: Duration::from_micros(wait_us),
        received_bytes: pending.tensor_sizes.iter().sum(),
        saved_bytes: 0,
        outputs: pending.with_data(data)?,
        confidence: confidence.filter(|confidence| confidence.is_finite()),
        label: Some(label).filter(|l| !l.is_empty()),
        timing: Timing { queue_us, infer_us, network_us },
    })
}
