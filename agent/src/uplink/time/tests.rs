//! Clouds that lie about the time, over real QUIC: each has the fleet CA's certificate, and a server
//! certificate of it, as somebody would who stole one or relays to the true cloud.

use super::*;
use crate::uplink::{CloudAddress, UplinkError, Way};
use ::link::frames;
use ::link::quic;
use ::link::tls::{self, Identity, Trust};
use protocol::ALPN_RENEW;
use protocol::id::ContentHash;
use protocol::time::{Nonce, signed_text};
use protocol::wire::{SignedTime, TimeRequest};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SigningKey};
use rustls_pki_types::PrivatePkcs8KeyDer;
use std::time::SystemTime;

const HOUR_MS: i64 = 3_600_000;
const DAY: Duration = Duration::from_secs(86_400);

/// A fleet CA, and the certificate of its server, valid for these days from now.
struct Fleet {
    ca: CertificateDer<'static>,
    ca_key: KeyPair,
    server: Identity,
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn fleet(from_days: i64, to_days: i64) -> Fleet {
    let ca_key = key();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().der().clone();
    let at = |days: i64| {
        let off = DAY * u32::try_from(days.unsigned_abs()).unwrap();
        if days < 0 { SystemTime::now() - off } else { SystemTime::now() + off }
    };
    let mut leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (leaf.not_before, leaf.not_after) = (at(from_days).into(), at(to_days).into());
    let leaf_key = key();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(params, &ca_key)).unwrap();
    let chain = vec![leaf.der().clone(), ca.clone()];
    let server = Identity { chain, key: PrivatePkcs8KeyDer::from(leaf_key.serialize_der()).into() };
    Fleet { ca, ca_key, server }
}

fn signed(by: &KeyPair, nonce: &[u8], unix_ms: i64) -> SignedTime {
    let unix_ms = unix_ms.unsigned_abs();
    let text = signed_text(&Nonce::try_from(nonce).unwrap(), unix_ms);
    let signature = by.sign(&text).unwrap();
    SignedTime { unix_ms, nonce: nonce.to_vec().into(), signature: signature.into() }
}

/// The truth, as far as this machine knows it.
fn now_ms(clock: &Clock) -> i64 {
    clock.reading().system_ms
}

/// What an agent makes of a cloud that answers so.
async fn check(
    fleet: &Fleet,
    clock: &Clock,
    answer: impl Fn(&[u8]) -> SignedTime + Send + 'static,
) -> Result<(), UplinkError> {
    let config = tls::server(fleet.server.clone(), &[], &[ALPN_RENEW]).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let endpoint = quic::listener(any, quic::server(config).unwrap(), &[0; 32]).unwrap();
    let address: CloudAddress = endpoint.local_addr().unwrap().to_string().parse().unwrap();
    let serving = tokio::spawn(async move {
        let connection = Connection::from(endpoint.accept().await.unwrap().await.unwrap());
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            let asked: TimeRequest = frames::receive(&mut receive).await.unwrap();
            frames::send_last(&mut send, &answer(&asked.nonce), []).await.unwrap();
        }
    });
    let trust = Trust::Ca(vec![fleet.ca.clone()]);
    let way = Way::new(address, &crate::config::Link::default());
    let connected = way.connect(trust, None, ALPN_RENEW, clock).await;
    serving.abort();
    connected.map(drop)
}

fn clock(fleet: &Fleet, folder: &tempfile::TempDir) -> Clock {
    Clock::open(folder.path(), ContentHash::of(&fleet.ca), std::sync::Arc::default())
}

#[tokio::test]
async fn the_truth_is_taken() {
    let (fleet, folder) = (fleet(-1, 1), tempfile::tempdir().unwrap());
    let clock = clock(&fleet, &folder);
    let (by, now_ms) = (KeyPair::from_pem(&fleet.ca_key.serialize_pem()).unwrap(), now_ms(&clock));
    check(&fleet, &clock, move |nonce| signed(&by, nonce, now_ms)).await.unwrap();
    assert!(clock.status().verified && clock.status().system_believed);
}

#[tokio::test]
async fn no_lie_is_taken() {
    let fleet = fleet(-1, 1);
    type Lie = fn(&KeyPair, &[u8], i64) -> SignedTime;
    let lies: [(&str, Lie); 6] = [
        ("a replay", |by, _, now_ms| signed(by, &[1; 32], now_ms)),
        ("another key", |_, nonce, now_ms| signed(&key(), nonce, now_ms)),
        ("an old signature under this nonce", |by, nonce, now_ms| SignedTime {
            nonce: nonce.to_vec().into(),
            ..signed(by, &[1; 32], now_ms)
        }),
        ("another time than was signed", |by, nonce, now_ms| SignedTime {
            unix_ms: now_ms.unsigned_abs() + 1,
            ..signed(by, nonce, now_ms)
        }),
        ("before the floor", |by, nonce, now_ms| {
            signed(by, nonce, now_ms - 20 * 365 * 24 * HOUR_MS)
        }),
        ("after all that can be", |by, nonce, now_ms| {
            signed(by, nonce, now_ms + 50 * 365 * 24 * HOUR_MS)
        }),
    ];
    for (name, lie) in lies {
        let folder = tempfile::tempdir().unwrap();
        let clock = clock(&fleet, &folder);
        let by = KeyPair::from_pem(&fleet.ca_key.serialize_pem()).unwrap();
        let now_ms = now_ms(&clock);
        let result = check(&fleet, &clock, move |nonce| lie(&by, nonce, now_ms)).await;
        let Err(UplinkError::Time(error)) = result else { panic!("{name}: {result:?}") };
        assert!(error.is_refusal() && !error.hint().is_empty(), "{name}: {error}");
        assert!(!clock.status().verified, "{name}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{name}: nothing is kept");
    }
}

/// A stolen server certificate that has ended, with the true time relayed from the true cloud.
#[tokio::test]
async fn by_the_true_time_dates_are_judged() {
    for (from_days, to_days) in [(-3, -2), (2, 3)] {
        let (fleet, folder) = (fleet(from_days, to_days), tempfile::tempdir().unwrap());
        let clock = clock(&fleet, &folder);
        let by = KeyPair::from_pem(&fleet.ca_key.serialize_pem()).unwrap();
        let now_ms = now_ms(&clock);
        let result = check(&fleet, &clock, move |nonce| signed(&by, nonce, now_ms)).await;
        let judged = matches!(result, Err(UplinkError::Time(TimeError::Certificate(_))));
        assert!(judged, "{result:?}");
    }
}
