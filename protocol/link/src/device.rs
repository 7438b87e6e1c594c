//! A device's side of its connections, as far as it is the same for whoever stands for one: what it asks first, what it
//! says of itself, and what it hears. What follows from that is decided elsewhere.

mod told;

pub use told::{Counts, Told};

use crate::connection::{Connection, RecvStream, SendStream};
use crate::frames::{self, LinkError};
use crate::pki::{self, PkiError};
use protocol::codec::Framed;
use protocol::mux::Priority;
use protocol::time::{InvalidTime, answered_ms, signed_text};
use protocol::wire::{DesiredState, Hello, ReportedState, SignedTime, TimeRequest};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

/// Asks one question on a stream of its own.
///
/// # Errors
/// [`LinkError`]; [`LinkError::Refused`] where the other end says no.
pub async fn exchange<A: Framed>(
    connection: &Connection,
    question: &impl Framed,
) -> Result<A, LinkError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    frames::send_last(&mut send, question, []).await?;
    frames::receive(&mut receive).await
}

/// Why the time that was told is not taken.
#[derive(Debug, thiserror::Error)]
pub enum UntoldTime {
    /// It was not told.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The answer is none.
    #[error("the cloud's time is not taken")]
    Invalid(#[from] InvalidTime),
    /// Somebody else told it.
    #[error("the cloud's time is not signed by the fleet CA")]
    Signature(#[source] PkiError),
}

/// Asks for the time, in Unix milliseconds, and verifies that the fleet CA has told it.
///
/// # Errors
/// [`UntoldTime`].
pub async fn ask_time(connection: &Connection, ca: &CertificateDer<'_>) -> Result<i64, UntoldTime> {
    let nonce = crate::entropy();
    let request = TimeRequest { nonce: nonce.to_vec().into() };
    let answer: SignedTime = exchange(connection, &request).await?;
    let signed_ms = answered_ms(&answer, &nonce)?;
    pki::verify_signature(ca, &signed_text(&nonce, answer.unix_ms), &answer.signature)
        .map_err(UntoldTime::Signature)?;
    Ok(signed_ms)
}

/// An open control stream: desired state comes down, reported state goes up.
pub struct ControlStream {
    send: SendStream,
    receive: RecvStream,
    /// The cloud's first word.
    pub first: DesiredState,
}

impl ControlStream {
    /// Says hello and hears what the cloud wants.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn open(connection: &Connection, hello: &Hello) -> Result<Self, LinkError> {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.set_priority(Priority::Control);
        frames::send(&mut send, hello).await?;
        let first = frames::receive(&mut receive).await?;
        Ok(Self { send, receive, first })
    }

    /// Passes states on in both directions until the stream ends, and evidence up; `say` makes of a state what is said.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn serve(
        &mut self,
        desired: &watch::Sender<Option<DesiredState>>,
        reported: &mut watch::Receiver<ReportedState>,
        say: impl Fn(&ReportedState) -> ReportedState,
        told: &mut Told<impl Counts>,
    ) -> Result<(), LinkError> {
        let Self { send, receive, .. } = self;
        let down = async {
            while let Some(header) = frames::next_header(receive).await? {
                desired.send_replace(Some(frames::message(receive, header).await?));
            }
            Ok(())
        };
        let up = async {
            loop {
                let evidence = tokio::select! {
                    changed = reported.changed() => match changed {
                        Ok(()) => None,
                        Err(_) => return Ok(()),
                    },
                    evidence = told.next() => Some(evidence),
                };
                match evidence {
                    Some(evidence) => frames::send(send, &evidence).await?,
                    None => {
                        let state = say(&reported.borrow_and_update());
                        frames::send(send, &state).await?;
                    }
                }
            }
        };
        // Neither direction is cut in the middle of a frame: the first to end ends the connection.
        tokio::select! { end = down => end, end = up => end }
    }
}
