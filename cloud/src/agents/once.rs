//! A connection for one certificate: one stream, one request, one answer, and the end. Before it, a
//! device may ask for the time, which it needs to judge this very connection.

use bytes::Bytes;
use link::connection::{Connection, SendStream};
use link::frames::{self, LinkError};
use protocol::codec::{FrameKind, Framed};
use protocol::problem::{Problem, ProblemCode};
use protocol::wire;
use rustls_pki_types::CertificateDer;

use super::{FAREWELL_TIMEOUT, FIRST_FRAME_TIMEOUT, time, violation};
use crate::state::Cloud;

/// Serves one connection to its end.
pub(crate) async fn serve<M: Framed>(
    cloud: &Cloud,
    connection: &Connection,
    answer: impl AsyncFnOnce(M) -> Result<wire::EnrolReply, Problem>,
) {
    let exchange = tokio::time::timeout(FIRST_FRAME_TIMEOUT, request(cloud, connection));
    let (mut send, request) = match exchange.await {
        Ok(Ok(received)) => received,
        Ok(Err(error)) => {
            if let Some(code) = violation(&error) {
                cloud.events.protocol_error(connection.remote_address(), &error);
                connection.close(code, &error.to_string());
            }
            return;
        }
        Err(_) => return connection.close(ProblemCode::Protocol, "no request came"),
    };
    let code = match answer(request).await {
        Ok(reply) => send_last(&mut send, &reply, ProblemCode::None).await,
        Err(problem) => {
            let code = problem.code;
            send_last(&mut send, &wire::Problem::from(problem), code).await
        }
    };
    // The answer must arrive before the connection is closed.
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, connection.closed()).await;
    connection.close(code, "");
}

/// The request, after questions for the time.
async fn request<M: Framed>(
    cloud: &Cloud,
    connection: &Connection,
) -> Result<(SendStream, M), LinkError> {
    let times = time::Allowance::default();
    loop {
        let (send, mut recv) = connection.accept_bi().await?;
        let header = frames::next_header(&mut recv).await?.ok_or(LinkError::Ended)?;
        if header.kind == FrameKind::TimeRequest {
            let remote = connection.remote_address();
            time::serve(cloud, &times, remote, (send, recv), header).await?;
        } else {
            return Ok((send, frames::message(&mut recv, header).await?));
        }
    }
}

/// Sends the answer; a peer that is gone already is none of our concern.
async fn send_last<M: Framed>(
    send: &mut SendStream,
    message: &M,
    code: ProblemCode,
) -> ProblemCode {
    match frames::send_last(send, message, []).await {
        Ok(()) => code,
        Err(_) => ProblemCode::Internal,
    }
}

/// A device's chain: its certificate, and the fleet CA's.
pub(crate) fn chain(cloud: &Cloud, leaf: &[u8]) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(leaf), Bytes::copy_from_slice(cloud.ca.certificate())]
}

/// The chain of an inference node, which is a server: it must lead devices to the CA as well.
pub(crate) fn server_chain(cloud: &Cloud, leaf: CertificateDer<'static>) -> Vec<Bytes> {
    cloud.ca.chain(leaf).iter().map(|der| Bytes::copy_from_slice(der)).collect()
}
