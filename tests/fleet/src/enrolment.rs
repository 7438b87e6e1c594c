//! A device becomes a member of the fleet: its key is made here, and the token buys a certificate for it.

use crate::fleet::{FleetError, Place};
use edge::time::{DeviceTime, Kept, Reading, Validity};
use link::connection::Connection;
use link::device::{self, exchange};
use link::dial::Dialler;
use link::pki::{self, DeviceKey};
use link::tls::{self, Identity, Trust};
use protocol::ALPN_ENROL;
use protocol::id::DeviceId;
use protocol::manifest::SignerKey;
use protocol::token::Token;
use protocol::wire::{EnrolReply, EnrolRequest};
use rustls_pki_types::CertificateDer;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who a device is, and whom it trusts.
pub(crate) struct Member {
    pub(crate) id: DeviceId,
    pub(crate) identity: Identity,
    pub(crate) ca: CertificateDer<'static>,
    /// Whose manifests it takes.
    pub(crate) signers: Vec<SignerKey>,
}

/// Enrols the device with this number.
pub(crate) async fn enrol(
    place: &Place,
    dialler: &Dialler,
    token: &Token,
    number: usize,
) -> Result<Member, FleetError> {
    let key = DeviceKey::generate()?;
    let request = EnrolRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.reveal(),
        csr: key.signing_request()?.into(),
        hostname: format!("simulated-{number}"),
        agent_version: env!("CARGO_PKG_VERSION").into(),
    };
    let tls = tls::agent(Trust::Hash(token.ca_hash), None, ALPN_ENROL)?;
    let connection = dialler.dial(&place.target(), &tls).await?;
    let shown = connection.peer_certificates();
    let ca = tls::find_ca(&shown, token.ca_hash).ok_or(FleetError::NoCa)?;
    settle(&connection, &ca, &mut clock()).await?;
    let reply: EnrolReply = exchange(&connection, &request).await?;
    connection.close(protocol::problem::ProblemCode::None, "");
    let chain = reply.certificates.iter().map(|der| CertificateDer::from(der.to_vec()));
    let signers: Option<Vec<_>> =
        reply.signer_keys.iter().map(|key| SignerKey::from_slice(key)).collect();
    Ok(Member {
        id: reply.device_id.parse().map_err(|_| FleetError::Nonsense("no device id"))?,
        identity: Identity {
            chain: chain.collect(),
            key: pki::key_from_pem(key.to_pem().as_bytes())?.into(),
        },
        ca,
        signers: signers.ok_or(FleetError::Nonsense("a signing key that is none"))?,
    })
}

/// What a device's program was built before its start, at least.
const BUILT_BEFORE_MS: i64 = 3_600_000;

/// A device's clock at its start.
pub(crate) fn clock() -> DeviceTime {
    let now = reading();
    DeviceTime::new(now.system_ms - BUILT_BEFORE_MS, Kept::default(), now)
}

/// Asks for the time, and judges the server's certificate by it.
pub(crate) async fn settle(
    connection: &Connection,
    ca: &CertificateDer<'_>,
    clock: &mut DeviceTime,
) -> Result<(), FleetError> {
    let sent = reading();
    let signed_ms = device::ask_time(connection, ca).await?;
    clock.accept(signed_ms, sent, reading()).map_err(FleetError::Time)?;
    let shown = connection.peer_certificates();
    let leaf = shown.first().ok_or(FleetError::NoCa)?;
    let (not_before_s, not_after_s) = pki::validity_s(leaf)?;
    let now_s = clock.now(reading()).unix_s();
    Validity { not_before_s, not_after_s }.check(now_s).map_err(FleetError::Certificate)
}

fn reading() -> Reading {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Reading { system_ms: i64::try_from(ms).unwrap_or(i64::MAX), counter_ms: ms }
}
