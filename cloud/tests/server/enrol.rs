//! A token buys one identity, and only at the right server.

use link::pki::DeviceKey;
use link::tls;
use protocol::ALPN_AGENT;
use protocol::id::ContentHash;
use protocol::problem::ProblemCode;
use protocol::token::Token;
use serde_json::{Value, json};

use crate::support::start;

#[test]
fn a_token_is_good_for_one_key() {
    let cloud = start();
    cloud.trust_signer();
    let token = cloud.token();
    let (mine, other) = (DeviceKey::generate().unwrap(), DeviceKey::generate().unwrap());
    let first = cloud.enrol(&token, &mine).unwrap();
    assert_eq!((first.certificates.len(), first.signer_keys.len()), (2, 1));
    let again = cloud.enrol(&token, &mine).unwrap();
    assert_eq!(again.device_id, first.device_id);
    assert!(cloud.enrol(&token, &other).unwrap_err().contains("used before"));
    let (_, body) = cloud.admin("GET", "/v1/devices", &Value::Null);
    let devices = body["devices"].as_array().unwrap();
    assert_eq!((devices.len(), &devices[0]["online"]), (1, &json!(false)));
    assert_eq!((&devices[0]["id"], &devices[0]["name"]), (&json!(first.device_id), &json!("box")));
}

#[test]
fn a_device_that_expects_another_ca_sends_nothing() {
    let cloud = start();
    let token = Token { ca_hash: ContentHash::of(b"another"), ..cloud.token() };
    assert!(cloud.enrol(&token, &DeviceKey::generate().unwrap()).is_err());
    let counts = cloud.server.cloud().events.counts();
    assert_eq!((counts.connections_accepted, counts.enrolments_refused), (0, 0));
}

#[test]
fn an_agent_needs_its_own_certificate() {
    let cloud = start();
    let device = cloud.device();
    let ca = cloud.server.cloud().ca.certificate();
    let stranger = cloud.connect(tls::client(ca, None, ALPN_AGENT).unwrap()).unwrap();
    let (code, reason) = cloud.closed(&stranger);
    assert_eq!(code, ProblemCode::Unauthorised);
    assert!(reason.contains("enrol"), "{reason}");

    let connection = cloud.agent(&device);
    let path = format!("/v1/devices/{}/denied", device.id);
    let live = cloud.runtime.block_on(crate::support::hello(&connection));
    assert!(live.is_ok());
    assert_eq!(cloud.admin("PUT", &path, &json!({ "denied": true })).0, 200);
    assert_eq!(cloud.closed(&connection).0, ProblemCode::Unauthorised);
    assert_eq!(cloud.closed(&cloud.agent(&device)).0, ProblemCode::Unauthorised);
    assert_eq!(cloud.admin("PUT", &path, &json!({ "denied": false })).0, 200);
    let allowed = cloud.agent(&device);
    assert!(cloud.runtime.block_on(crate::support::hello(&allowed)).is_ok());
}
