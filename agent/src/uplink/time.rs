//! The first word on every connection: what time is it? Before anything else is sent, the fleet CA
//! signs the time for a nonce of this device, and by that time the server's own certificate is judged.
//! So a device's clock may be off by years, and a certificate that has ended is still refused.

use crate::clock::Clock;
use ::link::connection::Connection;
use ::link::device::{UntoldTime, ask_time};
use ::link::frames::LinkError;
use ::link::pki::{self, PkiError};
use edge::time::{NotValid, RefusedTime, Validity};
use protocol::problem::chain;
use rustls_pki_types::CertificateDer;
use std::time::Duration;

/// The answer comes within this, or not at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the cloud's time, or its certificate, is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TimeError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the cloud did not tell the time within {} s", PATIENCE.as_secs())]
    Silent,
    #[error(transparent)]
    Untold(UntoldTime),
    #[error("{0}")]
    Refused(RefusedTime),
    #[error("the cloud's certificate cannot be read")]
    Unreadable(#[source] PkiError),
    #[error("the cloud's certificate is not valid now: {0}")]
    Certificate(NotValid),
}

impl TimeError {
    /// What a person can do.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.hint(),
            Self::Certificate(_) => "restart outrigger-cloud: it makes a fresh one at each start",
            Self::Untold(_) => {
                "somebody may be in between; or the cloud's CA was replaced: enrol again"
            }
            Self::Link(_) | Self::Silent | Self::Unreadable(_) => "",
        }
    }

    /// Whether the cloud said something that was not taken; a lost connection says nothing.
    fn is_refusal(&self) -> bool {
        !matches!(self, Self::Link(_) | Self::Silent)
    }
}

impl From<UntoldTime> for TimeError {
    fn from(error: UntoldTime) -> Self {
        match error {
            UntoldTime::Link(error) => Self::Link(error),
            other => Self::Untold(other),
        }
    }
}

/// Asks for the time and judges the certificates that the server showed.
pub(super) async fn settle(
    connection: &Connection,
    ca: &CertificateDer<'_>,
    clock: &Clock,
) -> Result<(), TimeError> {
    let judged = async {
        ask(connection, ca, clock).await?;
        judge(connection, clock)
    };
    judged.await.inspect_err(|error| {
        if error.is_refusal() {
            clock.refused(&chain(error));
        }
    })
}

/// Asks for the time and takes it over.
async fn ask(
    connection: &Connection,
    ca: &CertificateDer<'_>,
    clock: &Clock,
) -> Result<(), TimeError> {
    let sent = clock.reading();
    let asked = tokio::time::timeout(PATIENCE, ask_time(connection, ca)).await;
    let signed_ms = asked.map_err(|_| TimeError::Silent)??;
    clock.accept(signed_ms, sent).map_err(TimeError::Refused)
}

/// Judges the certificates that the server showed by what is known of the time.
pub(super) fn judge(connection: &Connection, clock: &Clock) -> Result<(), TimeError> {
    let shown = connection.peer_certificates();
    let leaf = shown.first().ok_or(TimeError::Unreadable(PkiError::Certificate))?;
    let (not_before_s, not_after_s) = pki::validity_s(leaf).map_err(TimeError::Unreadable)?;
    Validity { not_before_s, not_after_s }.check(clock.now_s()).map_err(TimeError::Certificate)
}

#[cfg(test)]
mod tests;
