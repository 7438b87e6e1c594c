//! What callers may make the server hold: how long a body may take to arrive, and how much memory
//! the bodies of all requests under way take together. Whoever comes when it is full is refused.

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use protocol::problem::{Problem, ProblemCode};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// How long a body may take, unless the configuration says otherwise: a caller on a bad link is
/// waited for, one that does nothing but hold a place is not.
pub const BODY_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of all bodies together, unless the configuration says otherwise: 256 MiB.
pub const BODIES_MAX_BYTES: usize = 256 << 20;

/// What callers may make the server hold. Clones share it.
#[derive(Debug, Clone)]
pub struct Intake {
    patience: Duration,
    max_bytes: usize,
    memory: Arc<Semaphore>,
}

impl Default for Intake {
    fn default() -> Self {
        Self::new(BODY_PATIENCE, BODIES_MAX_BYTES)
    }
}

impl Intake {
    /// Each body has so much time, and all together so much memory.
    pub fn new(patience: Duration, max_bytes: usize) -> Self {
        let max_bytes = max_bytes.min(Semaphore::MAX_PERMITS);
        Self { patience, max_bytes, memory: Arc::new(Semaphore::new(max_bytes)) }
    }

    /// Bytes that requests hold now.
    pub fn held_bytes(&self) -> usize {
        self.max_bytes.saturating_sub(self.memory.available_permits())
    }

    /// A new request, which holds nothing yet.
    pub(crate) fn request(&self) -> Held {
        Held { intake: self.clone(), permit: Arc::default() }
    }
}

/// The memory that a request holds, until all clones are gone.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    intake: Intake,
    permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl Held {
    /// The body, measured as it arrives; with a limit to its time unless it is a stream of messages.
    pub(crate) fn measure(&self, body: Body, streamed: bool) -> Body {
        let waits = if streamed { Waits::ForEver } else { Waits::NotYet };
        Body::new(Measured { body, held: self.clone(), waits })
    }

    /// What is held so far; it is held until the result is gone.
    pub(crate) fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn add(&self, bytes: usize) -> Result<(), Problem> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX);
        let more = self.intake.memory.clone().try_acquire_many_owned(count);
        let more = more.map_err(|_| self.full())?;
        let mut permit = self.permit.lock().unwrap_or_else(PoisonError::into_inner);
        match permit.as_mut() {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        Ok(())
    }

    fn full(&self) -> Problem {
        let text = format!(
            "the requests under way hold all of the {} bytes that are for them",
            self.intake.max_bytes
        );
        Problem::new(ProblemCode::Overloaded, text)
            .hint("send fewer or smaller requests at once, or try again after retry_after_ms")
            .retry_after_ms(100)
    }

    fn late(&self) -> Problem {
        let text = format!("the body was not complete after {:?}", self.intake.patience);
        Problem::new(ProblemCode::DeadlineExceeded, text)
            .hint("send it faster, or in smaller requests")
    }
}

/// Why a body was not read to its end. The status is what gRPC's own decoding looks for.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub(crate) struct NotTaken {
    pub(crate) problem: Problem,
    source: tonic::Status,
}

impl NotTaken {
    /// What stands behind an error in reading a body, where it is of ours.
    pub(crate) fn of<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e Self> {
        let mut causes = std::iter::successors(Some(error), |e| e.source());
        causes.find_map(|cause| cause.downcast_ref())
    }

    fn new(problem: Problem) -> Self {
        let source = tonic::Status::new(crate::grpc::code_of(problem.code), problem.to_string());
        Self { problem, source }
    }
}

struct Measured {
    body: Body,
    held: Held,
    waits: Waits,
}

/// How long the rest of a body is waited for.
enum Waits {
    /// A stream of messages.
    ForEver,
    /// All of it was there so far, as most bodies are: no timer is spent on them.
    NotYet,
    Until(Pin<Box<Sleep>>),
}

impl Waits {
    /// Whether the time is over, now that nothing is there.
    fn are_over(&mut self, patience: Duration, context: &mut Context<'_>) -> bool {
        if let Self::NotYet = self {
            *self = Self::Until(Box::pin(tokio::time::sleep(patience)));
        }
        match self {
            Self::Until(end) => end.as_mut().poll(context).is_ready(),
            Self::ForEver | Self::NotYet => false,
        }
    }
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                let patience = self.held.intake.patience;
                if self.waits.are_over(patience, context) {
                    return Poll::Ready(Some(Err(NotTaken::new(self.held.late()).into())));
                }
                return Poll::Pending;
            }
        };
        let added = frame.data_ref().map_or(Ok(()), |data| self.held.add(data.len()));
        Poll::Ready(Some(added.map(|()| frame).map_err(|problem| NotTaken::new(problem).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn body(bytes: usize) -> Body {
        Body::from(vec![0; bytes])
    }

    async fn read(body: Body) -> Result<usize, Problem> {
        match body.collect().await {
            Ok(collected) => Ok(collected.to_bytes().len()),
            Err(error) => Err(NotTaken::of(&error).unwrap().problem.clone()),
        }
    }

    #[tokio::test]
    async fn bodies_share_a_memory_until_they_are_answered() {
        let intake = Intake::new(BODY_PATIENCE, 100);
        let (one, two, three) = (intake.request(), intake.request(), intake.request());
        assert_eq!(read(one.measure(body(60), false)).await, Ok(60));
        assert_eq!(read(two.measure(body(40), false)).await, Ok(40));
        let full = read(three.measure(body(1), false)).await.unwrap_err();
        assert_eq!((full.code, full.retry_after_ms), (ProblemCode::Overloaded, 100));
        assert_eq!(intake.held_bytes(), 100);
        let message = two.take();
        drop(two);
        assert_eq!(intake.held_bytes(), 100, "a message of a stream is still being answered");
        drop(message);
        assert_eq!(read(three.measure(body(40), false)).await, Ok(40));
        drop((one, three));
        assert_eq!(intake.held_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_its_time_but_a_stream_has_all() {
        let intake = Intake::default();
        let never =
            || Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>());
        let late = read(intake.request().measure(never(), false)).await.unwrap_err();
        assert_eq!(late.code, ProblemCode::DeadlineExceeded);
        let stream = read(intake.request().measure(never(), true));
        assert!(tokio::time::timeout(BODY_PATIENCE * 9, stream).await.is_err(), "it waits on");
    }
}
