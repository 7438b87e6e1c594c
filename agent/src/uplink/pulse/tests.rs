//! What a month of an idle link costs: the agent's own watch over real connections (QUIC, TLS, frames), of which only the
//! network and the clock are made here. Bytes are those of whole packets, IP and UDP included, both ways.

mod network;

use super::*;
use crate::telemetry::tests::Hours;
use ::link::device::{self, ControlStream, Told};
use ::link::dial::{Dialler, Target};
use ::link::quic::{self, DEVICE_PATIENCE};
use ::link::tls::{self, Identity, Trust};
use bytes::Bytes;
use edge::pulse::{PATIENCE_PULSES, PULSE_MAX};
use network::{Network, Paid};
use protocol::ALPN_AGENT;
use protocol::ALPN_RENEW;
use protocol::codec::FrameKind;
use protocol::id::ContentHash;
use protocol::problem::ProblemCode;
use protocol::wire::{
    DesiredState, EnrolReply, Hello, RenewRequest, ReportedState, SignedTime, TelemetryOffer,
    TelemetrySegment, TelemetryTaken, TelemetryWant, TelemetryWanted, TimeRequest, Watch,
};
use quinn::{Endpoint, EndpointConfig, TokioRuntime};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;

const DAYS: u32 = 30;
const HOUR: Duration = Duration::from_secs(3600);
/// A day's news: a director's list, or a manifest.
const NEWS_BYTES: usize = 4_000;
/// They come so long after the connection: when it has been idle for a while.
const NEWS_AFTER: Duration = Duration::from_secs(13 * 3600 + 20 * 60 + 7);

/// Nothing is looked at closely.
struct Nothing;

impl device::Counts for Nothing {
    fn look_closely(&self, _: Option<&Watch>) {}

    fn rows(&self, _: &[String]) -> Vec<wire::ModelEvidence> {
        Vec::new()
    }
}

/// A fleet of one: its CA, and who shows what.
struct Fleet {
    ca: CertificateDer<'static>,
    cloud: Identity,
    device: Identity,
}

fn fleet() -> Fleet {
    let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let ca_key = key();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().der().clone();
    let issuer = Issuer::new(params, &ca_key);
    let identity = |name: &str| {
        let leaf_key = key();
        let leaf = CertificateParams::new([name.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
        let key = PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into();
        Identity { chain: vec![leaf.der().clone(), ca.clone()], key }
    };
    let (cloud, device) = (identity("192.0.2.1"), identity("d-12345678.device.invalid"));
    Fleet { ca, cloud, device }
}

/// The test's own time, as it is written into what is sent.
fn sent_ms() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(|| now() - Duration::from_secs(1));
    u64::try_from(now().saturating_duration_since(*start).as_millis()).unwrap()
}

/// A cloud that says what a cloud says, on real connections.
fn serve(fleet: &Fleet, network: &Network) -> Arc<AtomicU64> {
    let tls = tls::server(
        fleet.cloud.clone(),
        std::slice::from_ref(&fleet.ca),
        &[ALPN_AGENT, ALPN_RENEW],
    );
    let server = Some(quic::server(tls.unwrap()).unwrap());
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        server,
        network.cloud(),
        runtime,
    );
    let (endpoint, served) = (endpoint.unwrap(), Arc::new(AtomicU64::new(0)));
    let (counted, chain) = (served.clone(), fleet.cloud.chain.clone());
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            if !incoming.remote_address_validated() {
                incoming.retry().unwrap(); // as the cloud does
                continue;
            }
            let connection = Connection::from(incoming.await.unwrap());
            counted.fetch_add(1, Relaxed);
            tokio::spawn(attend(connection, chain.clone()));
        }
    });
    served
}

async fn attend(connection: Connection, chain: Vec<CertificateDer<'static>>) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        let chain = chain.clone();
        tokio::spawn(async move {
            // An error is the connection's end.
            let _ = answer(&mut send, &mut receive, &chain).await;
        });
    }
}

async fn answer(
    send: &mut ::link::connection::SendStream,
    receive: &mut ::link::connection::RecvStream,
    chain: &[CertificateDer<'static>],
) -> Result<(), LinkError> {
    let header = frames::next_header(receive).await?.ok_or(LinkError::Ended)?;
    match header.kind {
        FrameKind::Pulse => {
            let _: wire::Pulse = frames::message(receive, header).await?;
            let patience_ms = u32::try_from(DEVICE_PATIENCE.as_millis()).unwrap();
            loop {
                frames::send(send, &NodeState { patience_ms, ..Default::default() }).await?;
                let _: wire::Pulse = frames::receive(receive).await?;
            }
        }
        FrameKind::Hello => {
            let _: Hello = frames::message(receive, header).await?;
            loop {
                let analytics_key = Bytes::from(vec![7; NEWS_BYTES]);
                let news =
                    DesiredState { revision: sent_ms(), analytics_key, ..Default::default() };
                frames::send(send, &news).await?;
                tokio::time::sleep(NEWS_AFTER).await;
            }
        }
        FrameKind::TimeRequest => {
            let asked: TimeRequest = frames::message(receive, header).await?;
            let signature = Bytes::from(vec![1; 71]);
            frames::send_last(
                send,
                &SignedTime { unix_ms: 1 << 40, nonce: asked.nonce, signature },
                [],
            )
            .await
        }
        FrameKind::RenewRequest => {
            let _: RenewRequest = frames::message(receive, header).await?;
            let certificates = chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
            frames::send_last(send, &EnrolReply { certificates, ..Default::default() }, []).await
        }
        _ => {
            let offer: TelemetryOffer = frames::message(receive, header).await?;
            let want = |s: &TelemetrySegment| TelemetryWant { segment: s.segment, offset: 0 };
            let wants = offer.segments.iter().map(want).collect();
            frames::send(send, &TelemetryWanted { wants, ..Default::default() }).await?;
            let _ = receive.read_to_end(1 << 20).await?;
            let taken = offer.segments.iter().map(|s| s.segment).collect();
            frames::send_last(send, &TelemetryTaken { taken, ..Default::default() }, []).await
        }
    }
}

/// A device that nobody asks.
struct Device {
    /// The longest wait between two nudges.
    max: Duration,
    /// How late news came.
    late: Vec<Duration>,
    dialler: Dialler,
    target: Target,
    fleet: Fleet,
    reported: watch::Sender<ReportedState>,
    desired: watch::Sender<Option<DesiredState>>,
    /// Its telemetry, where it has some.
    hours: Option<Hours>,
}

impl Device {
    fn new(fleet: Fleet, network: &Network, max: Duration, hours: Option<Hours>) -> Self {
        let (socket, runtime) = (network.device(), Arc::new(TokioRuntime));
        let endpoint =
            Endpoint::new_with_abstract_socket(EndpointConfig::default(), None, socket, runtime);
        let dialler = Dialler::sharing(endpoint.unwrap()).paced(max * PATIENCE_PULSES);
        let (host, port) = (Network::address().ip().to_string(), Network::address().port());
        let target = Target { server_name: host.clone(), host, port };
        let (reported, desired) = (watch::Sender::default(), watch::Sender::default());
        Self { max, late: Vec::new(), dialler, target, fleet, reported, desired, hours }
    }

    async fn dial(&self, alpn: &[u8]) -> Connection {
        let trust = Trust::Ca(vec![self.fleet.ca.clone()]);
        let tls = tls::agent(trust, Some(self.fleet.device.clone()), alpn).unwrap();
        let connection = self.dialler.dial(&self.target, &tls).await.unwrap();
        self.ask_time(&connection).await;
        connection
    }

    async fn ask_time(&self, connection: &Connection) {
        let nonce = Bytes::copy_from_slice(&::link::entropy::<16>());
        let request = TimeRequest { nonce };
        let _: SignedTime = device::exchange(connection, &request).await.unwrap();
    }

    /// Connected for a day, with what comes once in a while; then the connection is lost.
    async fn day(&mut self) {
        let connection = self.dial(ALPN_AGENT).await;
        let mut reported = self.reported.subscribe();
        let hello = Hello {
            agent_version: "0.1.0".into(),
            os: "linux".into(),
            arch: "x86_64".into(),
            reported: Some(ReportedState { carrier_reason: "x".repeat(600), ..Default::default() }),
        };
        let mut stream = ControlStream::open(&connection, &hello).await.unwrap();
        let mut told = Told::new(Arc::new(Nothing), self.desired.subscribe());
        let desired = self.desired.clone();
        let waiting = Waiting::default();
        let (mut heard, late) = (self.desired.subscribe(), &mut self.late);
        let hear = async {
            loop {
                heard.changed().await.unwrap();
                let sent_ms = heard.borrow_and_update().as_ref().map_or(0, |state| state.revision);
                late.push(Duration::from_millis(self::sent_ms() - sent_ms));
            }
        };
        let events = async {
            for hour in 1..=24 {
                tokio::time::sleep(HOUR).await;
                if let Some(hours) = &mut self.hours {
                    upload(&connection, hours.segments()).await;
                }
                if hour % 6 == 0 {
                    let nonce = Bytes::copy_from_slice(&::link::entropy::<16>());
                    device::exchange::<SignedTime>(&connection, &TimeRequest { nonce })
                        .await
                        .unwrap();
                }
            }
        };
        tokio::select! {
            () = events => {}
            () = hear => {}
            end = stream.serve(&desired, &mut reported, Clone::clone, &mut told) => panic!("{end:?}"),
            () = watch(&connection, &waiting, drop, || {}, self.max) => panic!("nobody is there"),
        }
        connection.close(ProblemCode::None, "");
    }

    /// A fresh certificate.
    async fn renew(&self) {
        let connection = self.dial(ALPN_RENEW).await;
        let request = RenewRequest { agent_version: "0.1.0".into() };
        let _: EnrolReply = device::exchange(&connection, &request).await.unwrap();
        connection.close(ProblemCode::None, "");
    }
}

async fn upload(connection: &Connection, segments: Vec<Vec<u8>>) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let offered = segments.iter().zip(1..).map(|(bytes, segment)| TelemetrySegment {
        segment,
        size_bytes: bytes.len() as u64,
        sha256: Bytes::copy_from_slice(ContentHash::of(bytes).as_bytes()),
        detached_key: Bytes::new(),
    });
    let segments_offered = offered.collect();
    frames::send(&mut send, &TelemetryOffer { segments: segments_offered }).await.unwrap();
    let wanted: TelemetryWanted = frames::receive(&mut receive).await.unwrap();
    assert_eq!(wanted.wants.len(), segments.len());
    for bytes in segments {
        send.write_chunk(bytes.into()).await.unwrap();
    }
    send.finish().unwrap();
    let _: TelemetryTaken = frames::receive(&mut receive).await.unwrap();
}

/// What a month is like.
struct Month {
    mapping: Duration,
    max: Duration,
    hours: Option<Hours>,
}

/// A month; what was paid for it, how often the cloud saw the device come, and how late news came at most.
async fn pass(month: Month) -> (Paid, u64, Duration) {
    let Month { mapping, max, hours } = month;
    let (fleet, network) = (fleet(), Network::new(mapping, 11));
    let served = serve(&fleet, &network);
    let mut device = Device::new(fleet, &network, max, hours);
    for day in 0..DAYS {
        device.renew().await; // 24 h are renewed at two thirds: three in two days
        if day % 2 == 0 {
            device.renew().await;
        }
        device.day().await;
    }
    let late = device.late.iter().max().copied().unwrap_or_default();
    assert!(device.late.len() >= DAYS as usize, "news once a day: {}", device.late.len());
    (network.paid(), served.load(Relaxed), late)
}

#[tokio::test(start_paused = true)]
async fn a_month_of_an_idle_link_costs_less_than_10_mb_and_its_telemetry_less_than_5() {
    let idle = Month { mapping: Duration::from_secs(60), max: PULSE_MAX, hours: None };
    let (idle, connections, late) = pass(idle).await;
    assert_eq!(connections, 30 + 45, "none was lost");
    assert!(late < Duration::from_secs(1), "the cloud's word came {late:?} late");
    let hours = Some(Hours::new(3));
    let with = Month { mapping: Duration::from_secs(60), max: PULSE_MAX, hours };
    let (with, ..) = pass(with).await;
    let telemetry = with.since(idle);
    println!("{idle:?} idle, {telemetry:?} for telemetry");
    assert!(idle.bytes() < 10_000_000, "{idle:?}");
    assert!(telemetry.bytes() < 5_000_000, "{telemetry:?}");
}

/// A NAT that forgets after half a minute costs more, and the cloud's word comes all the same.
#[tokio::test(start_paused = true)]
async fn behind_a_nat_that_forgets_soon_the_device_stays_within_reach() {
    let month = Month { mapping: Duration::from_secs(30), max: PULSE_MAX, hours: None };
    let (paid, connections, late) = pass(month).await;
    println!("{paid:?}, {late:?} late");
    assert_eq!(connections, 30 + 45, "none was lost");
    assert!(late < PULSE_MAX, "the cloud's word came {late:?} late");
    assert!(paid.bytes() < 25_000_000, "{paid:?}");
}
