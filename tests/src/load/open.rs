//! An open loop: callers come at a rate of their own, whether or not those before were answered, as
//! they do outside of benches. What a server cannot keep up with waits, and its wait is measured.

use super::http1::Connection;
use super::{Ask, Target};
use anyhow::bail;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// Calls under way at a time; the next ones wait for a connection, and that is part of their wait.
const CONNECTIONS: usize = 64;
/// Whoever was not answered by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Calls that came.
    pub offered: usize,
    /// From their coming to their answer, of those that were answered in time.
    pub latencies: Vec<Duration>,
    /// Calls that the server refused because it had too much to do.
    pub refused: usize,
}

/// Sends `per_second` calls on average for so long, at random times from a seed.
///
/// # Errors
/// A wrong answer, or a target over gRPC.
pub fn offer(
    target: &Target,
    per_second: f64,
    time: Duration,
    seed: u64,
) -> anyhow::Result<Outcome> {
    let Ask::Http(request) = &target.ask else { bail!("an open loop asks over HTTP") };
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let arrivals = Arc::new(Mutex::new(arrivals));
        let mut callers = JoinSet::new();
        let end = Instant::now() + time + PATIENCE;
        for _ in 0..CONNECTIONS {
            let connection = Connection::open(target, request.clone()).await?;
            callers.spawn(serve(connection, arrivals.clone(), end));
        }
        let mut outcome =
            Outcome { offered: come(&sender, per_second, time, seed).await, ..Default::default() };
        drop(sender);
        while let Some(done) = callers.join_next().await {
            let (latencies, refused) = done??;
            outcome.latencies.extend(latencies);
            outcome.refused += refused;
        }
        Ok(outcome)
    })
}

/// Exponential gaps: a Poisson process. How many came.
async fn come(
    arrivals: &mpsc::UnboundedSender<Instant>,
    per_second: f64,
    time: Duration,
    seed: u64,
) -> usize {
    let (start, mut state, mut offered) = (Instant::now(), seed | 1, 0);
    let mut next = Duration::ZERO;
    loop {
        // xorshift64; its upper 53 bits make a number in (0, 1].
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let uniform = ((state >> 11) as f64 + 1.0) / (1u64 << 53) as f64;
        next += Duration::from_secs_f64(-uniform.ln() / per_second);
        if next >= time {
            return offered;
        }
        tokio::time::sleep_until((start + next).into()).await;
        offered += 1;
        let _ = arrivals.send(Instant::now()); // the callers outlive it
    }
}

/// One connection, for one call after the other.
async fn serve(
    mut connection: Connection,
    arrivals: Arc<Mutex<mpsc::UnboundedReceiver<Instant>>>,
    end: Instant,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let (mut latencies, mut refused) = (Vec::new(), 0);
    loop {
        let arrival = arrivals.lock().await.recv().await;
        let Some(arrival) = arrival else { return Ok((latencies, refused)) };
        match tokio::time::timeout_at(end.into(), connection.ask()).await {
            Ok(answer) => match answer? {
                None if arrival.elapsed() <= PATIENCE => latencies.push(arrival.elapsed()),
                None => {}
                Some(_) => refused += 1,
            },
            Err(_) => return Ok((latencies, refused)),
        }
    }
}
