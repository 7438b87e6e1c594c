//! What TLS alone takes of a server: the records of a request opened and those of its answer sealed, in
//! this process, by the same library with the same ciphers.

use super::super::beside::groups::{self, Group};
use super::super::beside::subjects::Subject;
use super::super::{Row, rounded};
use crate::certificates::Certificates;
use crate::statistics::median;
use anyhow::ensure;
use link::tls;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ServerConnection};
use serde_json::json;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

const EXCHANGES: usize = 200;
const HEAD_BYTES: usize = 400;
/// What is handed over at a time.
const PIECE_BYTES: usize = 16 << 10;

/// What it takes for each subject; then what the cloud costs without it.
pub(super) fn rows(subjects: &[Subject], groups: &[Group]) -> anyhow::Result<Vec<Row>> {
    let (mut taken, mut without) = (Vec::new(), Vec::new());
    for subject in subjects {
        let tls_ms = ms_per_call(subject)?;
        let call_ms = median(&groups::found(groups, super::CLOUD, subject.what, 1)?.cpu_ms);
        taken.push(Row(vec![
            ("TLS alone, at the server", json!(subject.what)),
            ("ms_per_call", json!(rounded(tls_ms))),
            ("of_a_lone_call", json!(rounded(tls_ms / call_ms))),
        ]));
        for in_flight in subject.in_flight {
            let found = groups::found(groups, super::CLOUD, subject.what, *in_flight)?;
            let rounds = found.cpu_ms.iter().zip(&found.added_ms);
            let (rest_ms, efficiency): (Vec<f64>, Vec<f64>) = rounds
                .map(|(cpu_ms, added_ms)| {
                    let rest_ms = cpu_ms - tls_ms;
                    (rest_ms, (cpu_ms - added_ms) / rest_ms)
                })
                .unzip();
            without.push(Row(vec![
                ("cloud, HTTPS, less TLS", json!(subject.what)),
                ("in_flight", json!(in_flight)),
                ("cpu_ms_per_call", json!(rounded(median(&rest_ms)))),
                ("cpu_efficiency", json!(rounded(median(&efficiency)))),
            ]));
        }
    }
    Ok(taken.into_iter().chain(without).collect())
}

fn ms_per_call(subject: &Subject) -> anyhow::Result<f64> {
    let question = HEAD_BYTES + subject.http_body().1.len();
    let answer = HEAD_BYTES + 4 * subject.expected.len();
    let mut pair = Pair::new()?;
    let mut taken = Vec::new();
    for _ in 0..EXCHANGES {
        taken.push(pair.exchange(question, answer)?.as_secs_f64() * 1000.0);
    }
    Ok(median(&taken))
}

/// Both ends of a connection that stands.
struct Pair {
    client: ClientConnection,
    server: ServerConnection,
}

impl Pair {
    fn new() -> anyhow::Result<Self> {
        let certificates = Certificates::new()?;
        let server = tls::server(certificates.identity(), &[], &[b"http/1.1"])?;
        let client = tls::client(&certificates.ca, None, b"http/1.1")?;
        let name = ServerName::try_from("localhost")?;
        let client = ClientConnection::new(Arc::new(client), name)?;
        let server = ServerConnection::new(Arc::new(server))?;
        let mut pair = Self { client, server };
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            pair.up()?;
            pair.down()?;
        }
        Ok(pair)
    }

    /// What the client has to send; how long the server worked on it.
    fn up(&mut self) -> anyhow::Result<Duration> {
        let mut wire = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut wire)?;
        }
        let (start, mut wire) = (Instant::now(), wire.as_slice());
        while !wire.is_empty() {
            self.server.read_tls(&mut wire)?;
            self.server.process_new_packets()?;
        }
        Ok(start.elapsed())
    }

    /// What the server has to send.
    fn down(&mut self) -> anyhow::Result<Duration> {
        let (start, mut wire) = (Instant::now(), Vec::new());
        while self.server.wants_write() {
            self.server.write_tls(&mut wire)?;
        }
        let worked = start.elapsed();
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            self.client.read_tls(&mut wire)?;
            self.client.process_new_packets()?;
        }
        Ok(worked)
    }

    /// A request and its answer; how long the server worked.
    fn exchange(&mut self, question: usize, answer: usize) -> anyhow::Result<Duration> {
        let mut piece = vec![7; PIECE_BYTES];
        let (mut worked, mut left) = (Duration::ZERO, question);
        while left > 0 {
            let now = left.min(PIECE_BYTES);
            self.client.writer().write_all(&piece[..now])?;
            worked += self.up()?;
            let start = Instant::now();
            self.server.reader().read_exact(&mut piece[..now])?;
            worked += start.elapsed();
            left -= now;
        }
        let start = Instant::now();
        self.server.writer().write_all(&vec![7; answer])?;
        worked += start.elapsed() + self.down()?;
        let mut read = vec![0; answer];
        self.client.reader().read_exact(&mut read)?;
        ensure!(read.iter().all(|byte| *byte == 7), "what went in comes out");
        Ok(worked)
    }
}
