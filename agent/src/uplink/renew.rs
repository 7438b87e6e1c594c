//! Renewal: a device whose certificate nears its end, or is past it, gets a fresh one for the same
//! key, on a connection made for nothing else.

use super::{UplinkError, Way, explained};
use crate::clock::Clock;
use crate::counters::Counters;
use crate::identity::{IdentityError, IdentityFiles};
use ::link::device;
use ::link::pki::{DeviceCertificate, is_issued_by};
use ::link::tls;
use edge::renewal;
use protocol::problem::chain;
use protocol::wire::{EnrolReply, RenewRequest};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

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
    pub(crate) way: Way,
    pub(crate) identity: IdentityFiles,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) bells: Arc<Bells>,
}

/// What the renewal of the certificate and the connection that shows it tell each other.
#[derive(Default)]
pub(crate) struct Bells {
    /// The cloud takes the certificate for no good, whatever its dates say here.
    pub(super) wanted: Notify,
    /// The certificate is of another CA than the one before.
    pub(super) reissued: Notify,
}

impl Renewer {
    pub(crate) async fn run(self) {
        // One draw per process: devices enrolled together renew apart.
        let jitter = u64::from_le_bytes(::link::entropy());
        let mut forced = false;
        loop {
            if forced || self.is_due(jitter) {
                match tokio::time::timeout(PATIENCE, self.renew(jitter)).await {
                    Ok(Ok(true)) => self.counters.renewed(),
                    Ok(Ok(false)) => {} // by the time that the cloud told, it is not due yet
                    Ok(Err(RenewError::Uplink(error))) => {
                        self.counters.renewal_failed(&explained(&error));
                    }
                    Ok(Err(error)) => self.counters.renewal_failed(&chain(&error)),
                    Err(_) => self.counters.renewal_failed(&RenewError::Silent.to_string()),
                }
            }
            // Once per pause: a device that was shut out need not be told twice as often.
            let again = tokio::time::Instant::now() + PAUSE;
            let may = async {
                if forced {
                    tokio::time::sleep_until(again).await;
                }
                self.bells.wanted.notified().await;
            };
            forced =
                tokio::select! { () = tokio::time::sleep_until(again) => false, () = may => true };
        }
    }

    fn is_due(&self, jitter: u64) -> bool {
        let certificate = || {
            let chain = self.identity.tls().ok()?.chain;
            DeviceCertificate::parse(chain.first()?).ok()
        };
        let Some(certificate) = certificate() else { return true };
        if !self.is_of_current_ca() {
            return true;
        }
        let now_s = self.clock.now_s();
        renewal::is_due(certificate.not_before_s, certificate.not_after_s, now_s, jitter)
    }

    /// Whether the fleet CA has signed this device's certificate, and not one whose place it took.
    fn is_of_current_ca(&self) -> bool {
        let (Ok(chain), Ok(ca)) = (self.identity.chain(), self.identity.ca()) else { return true };
        chain.first().is_some_and(|leaf| is_issued_by(leaf, &ca))
    }

    /// Renews, if it is still due once the cloud has told the time. Whether it did.
    async fn renew(&self, jitter: u64) -> Result<bool, RenewError> {
        let (trust, own) = (tls::Trust::Ca(vec![self.identity.ca()?]), Some(self.identity.tls()?));
        let link = self.way.connect(trust, own, protocol::ALPN_RENEW, &self.clock).await?;
        if self.identity.follow(&link.connection.peer_certificates())? {
            self.counters.fleet_ca_changed();
        }
        if !self.is_due(jitter) {
            link.connection.finish().await;
            return Ok(false);
        }
        let request = RenewRequest { agent_version: crate::program::version().into() };
        let asked = device::exchange(&link.connection, &request).await;
        let reply: EnrolReply = asked.map_err(UplinkError::from)?;
        link.connection.finish().await;
        self.keep(&reply)?;
        Ok(true)
    }

    fn keep(&self, reply: &EnrolReply) -> Result<(), RenewError> {
        let fresh: Vec<CertificateDer<'_>> =
            reply.certificates.iter().map(|der| CertificateDer::from_slice(der)).collect();
        let leaf = fresh.first().ok_or(RenewError::WrongKey)?;
        let certificate = DeviceCertificate::parse(leaf).map_err(IdentityError::from)?;
        if certificate.key != self.identity.key()?.hash() {
            return Err(RenewError::WrongKey);
        }
        let was_of_current_ca = self.is_of_current_ca();
        self.identity.keep_chain(&fresh)?;
        if !was_of_current_ca {
            self.bells.reissued.notify_one();
        }
        Ok(())
    }
}
