//! Whoever is shut out is so at once: the connection, the requests on it, and every way back.

use link::connection::Ended;
use link::frames::LinkError;
use link::tls;
use protocol::id::Variant;
use protocol::problem::ProblemCode;
use protocol::wire::{EnrolReply, RenewRequest};
use protocol::{ALPN_AGENT, ALPN_RENEW};
use serde_json::json;

use crate::support::{Cloud, Device, MODEL, bundle, infer, request, start_gated};

fn deny(cloud: &Cloud, device: &Device, denied: bool) {
    let path = format!("/v1/devices/{}/denied", device.id);
    assert_eq!(cloud.admin("PUT", &path, &json!({ "denied": denied })).0, 200);
}

/// What becomes of a request for a fresh certificate.
fn renew(cloud: &Cloud, device: &Device) -> Result<EnrolReply, LinkError> {
    let ca = cloud.server.cloud().ca.certificate();
    let tls = tls::client(ca, Some(device.identity.clone()), ALPN_RENEW).unwrap();
    let connection = cloud.connect(tls).unwrap();
    cloud.runtime.block_on(async {
        let (mut send, mut recv) = connection.open_bi().await?;
        let request = RenewRequest { agent_version: "0.1.0".into() };
        link::frames::send_last(&mut send, &request, []).await?;
        link::frames::receive(&mut recv).await
    })
}

#[test]
fn a_denied_device_loses_its_connection_its_requests_and_every_way_back() {
    let (cloud, gate) = start_gated();
    gate.open(); // for the probes
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, MODEL)).0, 201);
    let device = cloud.device_with_model();
    let connection = cloud.agent(&device);
    cloud.runtime.block_on(infer(&connection, &request(&[0.0; 3]), 1, 60_000)).unwrap();
    let before = gate.arrivals();
    gate.close();
    let asked = connection.clone();
    let under_way =
        cloud.runtime.spawn(async move { infer(&asked, &request(&[0.0; 3]), 1, 60_000).await });
    gate.wait_for(before + 1);

    deny(&cloud, &device, true);
    // Each of these waits for the event itself; `cargo xtask bench revocation` says how long it takes.
    let (code, reason) = cloud.closed(&connection);
    assert_eq!(code, ProblemCode::Unauthorised);
    assert!(reason.contains("denied"), "{reason}");
    let answer = cloud.runtime.block_on(under_way).unwrap();
    let Err(LinkError::Connection(Ended::ByPeer { code, .. })) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(code, ProblemCode::Unauthorised, "a request knows why it ended");
    let again = cloud.closed(&cloud.agent(&device));
    assert_eq!(again.0, ProblemCode::Unauthorised);
    let Err(LinkError::Refused(problem)) = renew(&cloud, &device) else { panic!("renewed") };
    assert_eq!(problem.code, ProblemCode::Unauthorised);

    gate.open();
    deny(&cloud, &device, false);
    assert!(renew(&cloud, &device).is_ok());
    let ca = cloud.server.cloud().ca.certificate();
    let tls = tls::client(ca, Some(device.identity.clone()), ALPN_AGENT).unwrap();
    let back = cloud.connect(tls).unwrap();
    cloud.runtime.block_on(infer(&back, &request(&[0.0; 3]), 1, 60_000)).unwrap();
}
