//! The time, signed by the fleet CA: a device whose clock may be wrong asks for it before it judges
//! anything by a date.

use link::connection::{RecvStream, SendStream};
use link::frames;
use protocol::codec::FrameHeader;
use protocol::problem::{Problem, ProblemCode};
use protocol::time::{NONCE_BYTES, Nonce};
use protocol::wire;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::answer_problem;
use crate::state::{Cloud, now_ms};
use link::frames::LinkError;

/// One connection is told the time at most so often, and twice more.
const INTERVAL: Duration = Duration::from_secs(1);
const BURST: u32 = 3;

/// How often one connection may ask.
#[derive(Debug)]
pub(super) struct Allowance(Mutex<(u32, Instant)>);

impl Default for Allowance {
    fn default() -> Self {
        Self(Mutex::new((BURST, Instant::now())))
    }
}

impl Allowance {
    fn take(&self, now: Instant) -> bool {
        let mut allowance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, since) = &mut *allowance;
        if now.saturating_duration_since(*since) >= INTERVAL {
            *left = (*left + 1).min(BURST);
            *since = now;
        }
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }
}

/// Serves one question.
pub(super) async fn serve(
    cloud: &Cloud,
    allowance: &Allowance,
    remote: SocketAddr,
    (mut send, mut recv): (SendStream, RecvStream),
    header: FrameHeader,
) -> Result<(), LinkError> {
    let request: wire::TimeRequest = frames::message(&mut recv, header).await?;
    match tell(cloud, allowance, &request) {
        Ok(answer) => {
            cloud.events.time_signed();
            frames::send_last(&mut send, &answer, []).await
        }
        Err(problem) => {
            cloud.events.time_refused(remote, &problem);
            answer_problem(&mut send, &mut recv, problem).await
        }
    }
}

fn tell(
    cloud: &Cloud,
    allowance: &Allowance,
    request: &wire::TimeRequest,
) -> Result<wire::SignedTime, Problem> {
    let nonce = Nonce::try_from(&*request.nonce).map_err(|_| {
        let text = format!("a nonce has {NONCE_BYTES} bytes");
        Problem::new(ProblemCode::InvalidRequest, text)
    })?;
    if !allowance.take(Instant::now()) {
        let text = "this connection asked for the time too often";
        let wait_ms = u32::try_from(INTERVAL.as_millis()).unwrap_or(u32::MAX);
        return Err(Problem::new(ProblemCode::Overloaded, text).retry_after_ms(wait_ms));
    }
    cloud.ca.sign_time(&nonce, now_ms()).map_err(|error| {
        cloud.events.internal_error(&error);
        Problem::new(ProblemCode::Internal, "the cloud could not sign the time")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_at_once_and_then_one_a_second() {
        let allowance = Allowance::default();
        let start = Instant::now();
        let asked = [0, 0, 0, 0, 1, 1, 9, 9].map(|s| allowance.take(start + INTERVAL * s));
        assert_eq!(asked, [true, true, true, false, true, false, true, false]);
    }
}
