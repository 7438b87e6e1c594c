//! A token buys one identity, and only at the right server.

use link::pki::DeviceKey;
use link::tls;
use protocol::ALPN_AGENT;
use protocol::id::ContentHash;
use protocol::problem::ProblemCode;
use protocol::token::Token;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::support::{Cloud, enrol, start};

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

/// Clients with a key each, all at once: the ids of those who won, and what the others were told.
fn race(cloud: &Cloud, token: &Token, clients: usize) -> (BTreeSet<String>, Vec<String>) {
    let start = Arc::new(tokio::sync::Barrier::new(clients));
    let address = cloud.server.address();
    let race = (0..clients).map(|_| {
        let (start, token, key) = (start.clone(), token.clone(), DeviceKey::generate().unwrap());
        cloud.runtime.spawn(async move {
            start.wait().await;
            enrol(address, &token, &key).await.map(|reply| reply.device_id)
        })
    });
    let race: Vec<_> = race.collect();
    let ended = race.into_iter().map(|client| cloud.runtime.block_on(client).unwrap());
    let (won, lost): (Vec<_>, Vec<_>) = ended.partition(Result::is_ok);
    let ids = won.into_iter().flatten().collect();
    (ids, lost.into_iter().filter_map(Result::err).collect())
}

#[test]
fn of_a_hundred_that_race_for_a_token_as_many_win_as_it_is_good_for() {
    let cloud = start();
    for (count, label) in [(1, "door"), (10, "line-{n}")] {
        let token = cloud.token_for(&json!({ "count": count, "label": label }));
        let (won, lost) = race(&cloud, &token, 100);
        assert_eq!((won.len(), lost.len()), (count, 100 - count));
        let used = lost.iter().all(|told| told.contains("used before"));
        assert!(used, "each of them hears why: {lost:?}");
    }
    let (_, body) = cloud.admin("GET", "/v1/devices", &Value::Null);
    let names = body["devices"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap());
    let expected: BTreeSet<_> =
        (1..=10).map(|n| format!("line-{n}")).chain(["door".into()]).collect();
    assert_eq!(names.map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    let (_, body) = cloud.admin("GET", "/v1/tokens", &Value::Null);
    let tokens = body["tokens"].as_array().unwrap();
    assert!(tokens.iter().all(|token| token["state"] == "used"), "{tokens:?}");
}

#[test]
fn a_token_that_was_taken_back_lets_nobody_in() {
    let cloud = start();
    let token = cloud.token_for(&json!({ "count": 3, "label": "line-{n}" }));
    let mine = DeviceKey::generate().unwrap();
    cloud.enrol(&token, &mine).unwrap();
    let path = format!("/v1/tokens/{}", token.id);
    assert_eq!(cloud.admin("DELETE", &path, &Value::Null).0, 200);
    assert_eq!(cloud.admin("DELETE", &path, &Value::Null).0, 404);
    for key in [mine, DeviceKey::generate().unwrap()] {
        assert!(cloud.enrol(&token, &key).unwrap_err().contains("revoked"));
    }
    for (label, count) in [("door", 2), ("{x}", 1), ("", 0), ("", 10_001)] {
        let wanted = json!({ "label": label, "count": count });
        assert_eq!(cloud.admin("POST", "/v1/tokens", &wanted).0, 422, "{wanted}");
    }
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
