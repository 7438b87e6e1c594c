//! Renewal: a device whose certificate nears its end, or is past it, gets a fresh one for the same
//! key, on a connection made for nothing else.

use super::{CloudAddress, UplinkError};
use crate::counters::Counters;
use crate::identity::{IdentityError, IdentityFiles};
use ::link::frames;
use ::link::pki::DeviceCertificate;
use ::link::{quic, tls};
use edge::renewal;
use protocol::problem::ProblemCode;
use protocol::problem::chain;
use protocol::wire::{EnrolReply, RenewRequest};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A failed renewal is tried again after this long, an idle check made as often.
const PAUSE: Duration = Duration::from_secs(60);
/// A renewal that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no fresh certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the cloud did not answer")]
    Silent,
    #[error("the cloud's certificate is not for this device's key")]
    WrongKey,
}

/// Renews when it is due, for ever.
pub(crate) struct Renewer {
    pub(crate) address: CloudAddress,
    pub(crate) identity: IdentityFiles,
    pub(crate) counters: Arc<Counters>,
}

impl Renewer {
    pub(crate) async fn run(self) {
        // One draw per process: devices enrolled together renew apart.
        let jitter = u64::from_le_bytes(::link::entropy());
        loop {
            if self.is_due(jitter) {
                match tokio::time::timeout(PATIENCE, self.renew()).await {
                    Ok(Ok(())) => self.counters.renewed(),
                    Ok(Err(error)) => self.counters.renewal_failed(&chain(&error)),
                    Err(_) => self.counters.renewal_failed(&RenewError::Silent.to_string()),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn is_due(&self, jitter: u64) -> bool {
        let certificate = || {
            let chain = self.identity.tls().ok()?.chain;
            DeviceCertificate::parse(chain.first()?).ok()
        };
        let Some(certificate) = certificate() else { return true };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let now_s = i64::try_from(now_s).unwrap_or(i64::MAX);
        renewal::is_due(certificate.not_before_s, certificate.not_after_s, now_s, jitter)
    }

    async fn renew(&self) -> Result<(), RenewError> {
        let tls =
            tls::client(&self.identity.ca()?, Some(self.identity.tls()?), protocol::ALPN_RENEW);
        let (endpoint, connection) = self.address.connect(tls.map_err(UplinkError::from)?).await?;
        let ask = async {
            let (mut send, mut receive) = connection.open_bi().await?;
            let request = RenewRequest { agent_version: env!("CARGO_PKG_VERSION").into() };
            frames::send_last(&mut send, &request, []).await?;
            frames::receive::<EnrolReply>(&mut receive).await
        };
        let reply = ask.await.map_err(UplinkError::from)?;
        quic::close(&connection, ProblemCode::None, "");
        endpoint.wait_idle().await;
        self.keep(&reply)
    }

    fn keep(&self, reply: &EnrolReply) -> Result<(), RenewError> {
        let fresh: Vec<CertificateDer<'_>> =
            reply.certificates.iter().map(|der| CertificateDer::from_slice(der)).collect();
        let leaf = fresh.first().ok_or(RenewError::WrongKey)?;
        let certificate = DeviceCertificate::parse(leaf).map_err(IdentityError::from)?;
        if certificate.key != self.identity.key()?.hash() {
            return Err(RenewError::WrongKey);
        }
        Ok(self.identity.keep_chain(&fresh)?)
    }
}
