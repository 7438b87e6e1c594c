//! Renewal: a known device gets a fresh certificate for the key it enrolled with, also when the old
//! one has expired within the grace. What it trusts is not decided anew.

use link::connection::Connection;
use protocol::problem::{Problem, ProblemCode};
use protocol::wire::{EnrolReply, RenewRequest};

use super::once;
use super::session::identify;
use crate::state::Cloud;

/// Serves one renewal connection to its end.
pub(super) async fn serve(cloud: &Cloud, connection: &Connection) {
    once::serve(cloud, connection, async |_: RenewRequest| renew(cloud, connection).await).await;
}

async fn renew(cloud: &Cloud, connection: &Connection) -> Result<EnrolReply, Problem> {
    let known = identify(cloud, connection).await.map_err(|reason| {
        cloud.events.agent_unauthorised(connection.remote_address(), reason);
        Problem::new(ProblemCode::Unauthorised, reason)
    })?;
    let old = known.certificate;
    let leaf = cloud.ca.renewed_certificate(&old).map_err(|error| {
        cloud.events.internal_error(&error);
        Problem::new(ProblemCode::Internal, "the cloud could not renew the certificate")
    })?;
    cloud.events.renewed(&old.device);
    Ok(EnrolReply {
        device_id: old.device.to_string(),
        certificates: once::chain(cloud, &leaf),
        signer_keys: Vec::new(),
        root: bytes::Bytes::new(),
    })
}
