//! A one-time token lets a node in: it buys a certificate for the key that was made there.

use link::connection::Connection;
use protocol::id::NodeId;
use protocol::problem::{Problem, ProblemCode};
use protocol::token::Secret;
use protocol::wire;

use crate::agents::{clip, once};
use crate::ca::SigningRequest;
use crate::state::{Cloud, now_s};
use crate::store::nodes::NodeApplicant;
use crate::store::tokens::EnrolError;

/// Serves one enrolment connection to its end.
pub(crate) async fn serve(cloud: &Cloud, connection: &Connection) {
    once::serve(cloud, connection, async |request| {
        enrol(cloud, request).await.inspect_err(|problem| {
            cloud.events.enrolment_refused(connection.remote_address(), problem);
        })
    })
    .await;
}

async fn enrol(cloud: &Cloud, request: wire::EnrolRequest) -> Result<wire::EnrolReply, Problem> {
    let signing = SigningRequest::parse(&request.csr).map_err(|e| invalid(&e))?;
    let secret: Secret = request.token_secret.parse().map_err(|e| invalid(&e))?;
    let fresh_id = format!("n-{}", hex::encode(link::entropy::<4>()));
    let applicant = NodeApplicant {
        token_id: request.token_id,
        presented: secret.digest(),
        key: signing.key,
        hostname: clip(&request.hostname),
        version: clip(&request.agent_version),
        fresh_id: fresh_id.parse::<NodeId>().map_err(|e| invalid(&e))?,
        now_s: now_s(),
    };
    let joined = cloud.db.call(move |store| store.join(&applicant)).await;
    let node = joined.map_err(|error| match error {
        EnrolError::Refused(problem) => problem.hint("make another with: outrigger node token"),
        EnrolError::Store(error) => internal(cloud, &error),
    })?;
    let leaf = cloud.ca.node_certificate(&node.id, &node.names, &signing);
    let leaf = leaf.map_err(|error| internal(cloud, &error))?;
    cloud.events.node_joined(&node.id, &node.hostname);
    Ok(wire::EnrolReply {
        device_id: node.id.to_string(),
        certificates: once::chain(cloud, &leaf),
        signer_keys: Vec::new(), // nodes hear of signers as they hear of everything else
        root: bytes::Bytes::new(),
    })
}

fn invalid(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(ProblemCode::InvalidRequest, error.to_string())
}

fn internal(cloud: &Cloud, error: &dyn std::error::Error) -> Problem {
    cloud.events.internal_error(error);
    Problem::new(ProblemCode::Internal, "the cloud could not let the node in")
        .hint("try again; the operator can look into the server's log")
}
