//! Enrolment: a one-time token buys a certificate.

use bytes::Bytes;
use link::connection::Connection;
use protocol::id::DeviceId;
use protocol::problem::{Problem, ProblemCode};
use protocol::token::Secret;
use protocol::tuf::metadata::ROOT;
use protocol::wire;

use super::{clip, once};
use crate::ca::SigningRequest;
use crate::state::{Cloud, now_s};
use crate::store::Store;
use crate::store::tokens::{Applicant, EnrolError};

/// A larger root would not fit into the answer; the device is introduced to it later.
const ROOT_MAX_BYTES: usize = 48 << 10;

/// Serves one enrolment connection to its end.
pub(super) async fn serve(cloud: &Cloud, connection: &Connection) {
    once::serve(cloud, connection, async |request| {
        enrol(cloud, request).await.inspect_err(|problem| {
            cloud.events.enrolment_refused(connection.remote_address(), problem);
        })
    })
    .await;
}

async fn enrol(cloud: &Cloud, request: wire::EnrolRequest) -> Result<wire::EnrolReply, Problem> {
    let signing = SigningRequest::parse(&request.csr).map_err(|error| {
        let text = format!("the signing request cannot be used: {error}");
        Problem::new(ProblemCode::InvalidRequest, text)
    })?;
    let applicant = applicant(&request, &signing)?;
    let hostname = applicant.hostname.clone();
    let decided = cloud.db.call(move |store| store.enrol(&applicant)).await;
    let device = decided.map_err(|error| match error {
        EnrolError::Refused(problem) => problem,
        EnrolError::Store(error) => internal(cloud, &error),
    })?;
    let leaf = cloud.ca.device_certificate(&device, &signing).map_err(|e| internal(cloud, &e))?;
    let signers = cloud.db.call(Store::signer_keys).await;
    let signers = signers.map_err(|error| internal(cloud, &error))?;
    let root =
        cloud.db.call(|store| store.repository().map(|mut newest| newest.remove(ROOT))).await;
    let root = root.map_err(|error| internal(cloud, &error))?;
    cloud.events.enrolled(&device, &hostname);
    Ok(wire::EnrolReply {
        device_id: device.to_string(),
        certificates: once::chain(cloud, &leaf),
        signer_keys: signers.iter().map(|key| Bytes::copy_from_slice(&key.0)).collect(),
        root: root.filter(|root| root.len() <= ROOT_MAX_BYTES).unwrap_or_default().into(),
    })
}

fn applicant(request: &wire::EnrolRequest, signing: &SigningRequest) -> Result<Applicant, Problem> {
    let invalid = |error: &dyn std::fmt::Display| {
        Problem::new(ProblemCode::InvalidRequest, error.to_string())
    };
    let secret: Secret = request.token_secret.parse().map_err(|e| invalid(&e))?;
    let id = format!("d-{}", hex::encode(link::entropy::<4>()));
    Ok(Applicant {
        token_id: request.token_id.clone(),
        presented: secret.digest(),
        key: signing.key,
        hostname: clip(&request.hostname),
        agent_version: clip(&request.agent_version),
        fresh_id: id.parse::<DeviceId>().map_err(|e| invalid(&e))?,
        now_s: now_s(),
    })
}

fn internal(cloud: &Cloud, error: &dyn std::error::Error) -> Problem {
    cloud.events.internal_error(error);
    Problem::new(ProblemCode::Internal, "the cloud could not enrol the device")
        .hint("try again; the operator can look into the server's log")
}
