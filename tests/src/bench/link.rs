//! The two carriers beside each other on loopback: the same frames, 600 KiB up and a few bytes back, 64 in
//! flight, over one QUIC connection and multiplexed over one TLS connection over TCP; and the same bytes down, as a device
//! behind an Ethernet fetches a model over QUIC. Both ends are in this process, and nothing runs a model: what is measured
//! is the carrier.

use super::{BenchReport, Goal, Row, rounded};
use crate::certificates::Certificates;
use crate::statistics::{median, percentile_ms};
use crate::world::CpuMeter;
use anyhow::Context;
use bytes::Bytes;
use link::connection::Connection;
use link::dial::{Dialler, Target};
use link::frames;
use link::quic;
use link::tcp::{self, Peer};
use link::tls;
use protocol::ALPN_AGENT;
use protocol::carrier::{Wanted, alpn_over_tcp};
use protocol::mux::Side;
use protocol::wire::{BlobHeader, BlobRequest};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

const REQUEST_BYTES: usize = 600 << 10;
const IN_FLIGHT: usize = 64;
/// Of the fallback's throughput.
const SHARE_GOAL: f64 = 0.5;
const SHARE_STRETCH: f64 = 0.7;

/// Measures.
///
/// # Errors
/// A connection that breaks.
pub fn run(short: bool) -> anyhow::Result<BenchReport> {
    let (rounds, time) = if short { (3, 400) } else { (9, 2000) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(rounds, Duration::from_millis(time)))
}

async fn measure(rounds: usize, time: Duration) -> anyhow::Result<BenchReport> {
    let fleet = Fleet(Certificates::new()?);
    let ways = [
        Way { name: "QUIC", connection: fleet.connect_quic().await?, is_down: false },
        Way {
            name: "streams over TLS and TCP",
            connection: fleet.connect_tcp().await?,
            is_down: false,
        },
        Way {
            name: "QUIC, down",
            connection: fleet.connect_quic_on_ethernet().await?,
            is_down: true,
        },
    ];
    for way in &ways {
        way.ask_for(time / 4).await?; // congestion windows open
    }
    let mut measured: [Vec<Round>; 3] = Default::default();
    for _ in 0..rounds {
        for (way, measured) in ways.iter().zip(&mut measured) {
            measured.push(way.ask_for(time).await?);
        }
    }
    let rows = ways.iter().zip(&measured).map(|(way, rounds)| way.row(rounds));
    let shares: Vec<f64> =
        measured[0].iter().zip(&measured[1]).map(|(q, t)| q.per_s / t.per_s).collect();
    let share = median(&shares);
    let name = "requests a second over QUIC, as a share of those over TLS and TCP";
    let stretch = "the same, stretch";
    let goals = vec![
        Goal::at_least(name, SHARE_GOAL, share),
        Goal::at_least(stretch, SHARE_STRETCH, share),
    ];
    Ok(BenchReport { name: "link", rows: rows.collect(), goals })
}

/// What was measured in one round.
struct Round {
    per_s: f64,
    cpu_ms: f64,
    took: Vec<Duration>,
}

/// A connection, and where most bytes go on it.
struct Way {
    name: &'static str,
    connection: Connection,
    is_down: bool,
}

impl Way {
    fn row(&self, rounds: &[Round]) -> Row {
        let per_s = median(&rounds.iter().map(|round| round.per_s).collect::<Vec<_>>());
        let cpu_ms = median(&rounds.iter().map(|round| round.cpu_ms).collect::<Vec<_>>());
        let took: Vec<Duration> = rounds.iter().flat_map(|round| round.took.clone()).collect();
        Row(vec![
            ("carrier", json!(self.name)),
            ("per_s", json!(rounded(per_s))),
            ("mb_per_s", json!(rounded(per_s * REQUEST_BYTES as f64 / 1e6))),
            ("cpu_ms", json!(rounded(cpu_ms))),
            ("p50_ms", json!(rounded(percentile_ms(&took, 50.0)))),
            ("p99_ms", json!(rounded(percentile_ms(&took, 99.0)))),
            ("packets_lost", json!(self.connection.counts().lost_packets)),
        ])
    }

    /// Asks for so long.
    async fn ask_for(&self, time: Duration) -> anyhow::Result<Round> {
        let (began, cpu) = (Instant::now(), CpuMeter::start(&[std::process::id()])?);
        let (end, is_down) = (began + time, self.is_down);
        let mut callers = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let connection = self.connection.clone();
            callers.spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < end {
                    let began = Instant::now();
                    if is_down {
                        fetch(&connection).await?;
                    } else {
                        ask(&connection).await?;
                    }
                    took.push(began.elapsed());
                }
                anyhow::Ok(took)
            });
        }
        let mut took = Vec::new();
        while let Some(caller) = callers.join_next().await {
            took.extend(caller??);
        }
        let per_s = took.len() as f64 / began.elapsed().as_secs_f64();
        let cpu_ms = cpu.seconds()? * 1000.0 / took.len() as f64;
        Ok(Round { per_s, cpu_ms, took })
    }
}

/// What goes either way.
const DATA: Bytes = Bytes::from_static(&[7; REQUEST_BYTES]);

async fn ask(connection: &Connection) -> anyhow::Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let head = BlobRequest { offset: DATA.len() as u64, ..Default::default() };
    frames::send_last(&mut send, &head, [DATA]).await?;
    let answer: BlobHeader = frames::receive(&mut receive).await?;
    anyhow::ensure!(answer.size_bytes == DATA.len() as u64, "another answer");
    Ok(())
}

async fn fetch(connection: &Connection) -> anyhow::Result<()> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let head = BlobRequest { length: DATA.len() as u64, ..Default::default() };
    frames::send_last(&mut send, &head, []).await?;
    let answer: BlobHeader = frames::receive(&mut receive).await?;
    frames::receive_raw(&mut receive, &[DATA.len() as u64]).await?;
    anyhow::ensure!(answer.size_bytes == 0, "another answer");
    Ok(())
}

async fn serve(connection: Connection) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        tokio::spawn(async move {
            let head: BlobRequest = frames::receive(&mut receive).await?;
            let data = frames::receive_raw(&mut receive, &[head.offset]).await?;
            let size_bytes = data.iter().map(|piece| piece.len() as u64).sum();
            let down = (head.length > 0).then_some(DATA);
            let answer = BlobHeader { size_bytes, ..Default::default() };
            frames::send_last(&mut send, &answer, down).await
        });
    }
}

/// Both carriers' server, and whom its client trusts.
struct Fleet(Certificates);

impl Fleet {
    async fn connect_quic(&self) -> anyhow::Result<Connection> {
        let address = self.listen_quic()?;
        self.connect(address, &Dialler::new(Wanted::Quic, None)).await
    }

    async fn connect_quic_on_ethernet(&self) -> anyhow::Result<Connection> {
        let address = self.listen_quic()?;
        self.connect(address, &Dialler::sharing(quic::endpoint_on_ethernet(address)?)).await
    }

    fn listen_quic(&self) -> anyhow::Result<SocketAddr> {
        let tls = tls::server(self.0.identity(), &[], &[ALPN_AGENT])?;
        let endpoint = quic::listener("127.0.0.1:0".parse()?, quic::server(tls)?, &[0; 32])?;
        let address = endpoint.local_addr()?;
        tokio::spawn(async move {
            let connection = Connection::from(endpoint.accept().await?.await.ok()?);
            connection.open_wide();
            serve(connection).await;
            Some(endpoint)
        });
        Ok(address)
    }

    async fn connect_tcp(&self) -> anyhow::Result<Connection> {
        let alpn = alpn_over_tcp(ALPN_AGENT).context("a name over TCP")?;
        let tls = TlsAcceptor::from(Arc::new(tls::server(self.0.identity(), &[], &[alpn])?));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            let (stream, address) = listener.accept().await?;
            tcp::tune(&stream);
            let stream = tls.accept(stream).await?;
            let peer = Peer { address, certificates: vec![], protocol: alpn.to_vec() };
            let (round_trip, life) = (Duration::ZERO, quic::Life::Steady);
            let connection = tcp::Connection::start(stream, Side::Accepts, peer, round_trip, life);
            serve(connection.into()).await;
            std::io::Result::Ok(())
        });
        self.connect(address, &Dialler::new(Wanted::Tcp, None)).await
    }

    async fn connect(&self, address: SocketAddr, dialler: &Dialler) -> anyhow::Result<Connection> {
        let tls = tls::client(&self.0.ca, None, ALPN_AGENT)?;
        let host = address.ip().to_string();
        let target = Target { server_name: host.clone(), host, port: address.port() };
        Ok(dialler.dial(&target, &tls).await?)
    }
}
