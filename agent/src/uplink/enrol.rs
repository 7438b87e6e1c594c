//! Enrolment: the token's CA hash decides whether anything is sent at all; then the token buys a
//! certificate for the key that was made on this device.

use super::{UplinkError, Way};
use crate::clock::Clock;
use crate::identity::{Enrolment, IdentityError, IdentityFiles};
use ::link::connection::Ended;
use ::link::device;
use ::link::frames::LinkError;
use ::link::tls;
use protocol::id::DeviceId;
use protocol::manifest::SignerKey;
use protocol::problem::Problem;
use protocol::token::Token;
use protocol::tuf::client::trusted_root;
use protocol::wire::{EnrolReply, EnrolRequest};
use rustls_pki_types::CertificateDer;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(15);

/// Why this device was not enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    #[error("the cloud at {0} does not have the CA that the token names; nothing was sent")]
    WrongCa(String),
    #[error("the cloud at {0} did not answer within 15 s")]
    Silent(String),
    #[error("the cloud refused")]
    Refused(#[source] Problem),
    #[error("the cloud's answer makes no sense: {0}")]
    Nonsense(&'static str),
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Enrols this device and keeps what comes of it.
pub(crate) async fn enrol(
    files: &IdentityFiles,
    way: &Way,
    token: &Token,
    clock: &Clock,
) -> Result<Enrolment, EnrolError> {
    let key = files.key()?;
    let request = EnrolRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.reveal(),
        csr: key.signing_request().map_err(IdentityError::from)?.into(),
        hostname: link::system::host_name().unwrap_or_default(),
        agent_version: crate::program::version().into(),
    };
    let exchange = exchange(way, token, request, clock);
    let (reply, ca) = tokio::time::timeout(PATIENCE, exchange)
        .await
        .map_err(|_| EnrolError::Silent(way.address.to_string()))??;
    let enrolment = read_reply(&reply, &way.address.to_string(), token)?;
    let chain: Vec<CertificateDer<'_>> =
        reply.certificates.iter().map(|der| CertificateDer::from_slice(der)).collect();
    files.keep_root(&reply.root)?;
    files.keep(&enrolment, &chain, &ca)?;
    Ok(enrolment)
}

async fn exchange(
    way: &Way,
    token: &Token,
    request: EnrolRequest,
    clock: &Clock,
) -> Result<(EnrolReply, CertificateDer<'static>), EnrolError> {
    let trust = tls::Trust::Hash(token.ca_hash);
    let link = match way.connect(trust, None, protocol::ALPN_ENROL, clock).await {
        Err(UplinkError::Connection(Ended::Certificate(_))) => {
            return Err(EnrolError::WrongCa(way.address.to_string()));
        }
        other => other?,
    };
    let ca = link.ca.clone();
    let asked = device::exchange(&link.connection, &request).await;
    let reply: EnrolReply = asked.map_err(|error| match error {
        LinkError::Refused(problem) => EnrolError::Refused(problem),
        other => EnrolError::Uplink(other.into()),
    })?;
    link.connection.finish().await;
    Ok((reply, ca))
}

fn read_reply(reply: &EnrolReply, cloud: &str, token: &Token) -> Result<Enrolment, EnrolError> {
    let device: DeviceId =
        reply.device_id.parse().map_err(|_| EnrolError::Nonsense("no valid device id"))?;
    let signers: Option<Vec<_>> =
        reply.signer_keys.iter().map(|k| SignerKey::from_slice(k)).collect();
    let signers = signers.ok_or(EnrolError::Nonsense("a signing key that is none"))?;
    if !reply.root.is_empty() && trusted_root(&reply.root).is_err() {
        return Err(EnrolError::Nonsense("a root that is none"));
    }
    if reply.certificates.is_empty() {
        return Err(EnrolError::Nonsense("no certificate"));
    }
    Ok(Enrolment::new(cloud, device, token.ca_hash, &signers))
}
