//! Who may call the API.

use fleet::access::Role;
use serde_json::{Value, json};

use crate::support::{bearer, start};

#[test]
fn the_first_key_is_an_admins_and_private() {
    let cloud = start();
    let (status, body) = cloud.admin("GET", "/v1/whoami", &Value::Null);
    assert_eq!((status, body["role"].as_str()), (200, Some("admin")));
    assert_eq!(body["ca_hash"].as_str(), Some(cloud.admin.ca_hash.to_string().as_str()));
    let listening = std::fs::read_to_string(cloud.folder.path().join("listening")).unwrap();
    assert_eq!(listening.trim(), cloud.server.address().to_string());
    #[cfg(unix)]
    for file in ["admin.key", "ca/ca.key"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(cloud.folder.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[test]
fn without_a_valid_key_there_is_only_health() {
    let cloud = start();
    assert_eq!(cloud.call(None, "GET", "/healthz", b""), (200, json!({ "live": true })));
    assert_eq!(cloud.call(None, "GET", "/v2/health/live", b"").0, 200);
    assert_eq!(cloud.call(None, "GET", "/readyz", b"").0, 401);
    assert_eq!(cloud.call(None, "GET", "/v2/health/ready", b"").0, 401);
    assert_eq!(cloud.call(None, "GET", "/", b"").0, 401);
    assert_eq!(cloud.call(None, "GET", "/v1/nothing", b"").0, 401);
    let good = bearer(&cloud.admin);
    let wrong_secret = format!("Bearer {}.{}", cloud.admin.id, "0".repeat(64));
    let unknown = good.replace(&cloud.admin.id, "0123456789abcdef");
    for auth in [
        None,
        Some("Bearer x"),
        Some(good.trim_start_matches("Bearer ")),
        Some(&wrong_secret),
        Some(&unknown),
    ] {
        let (status, body) = cloud.call(auth, "GET", "/v1/devices", b"");
        assert_eq!((status, body["code"].as_str()), (401, Some("unauthorised")), "{auth:?}");
        assert!(body["hint"].as_str().unwrap().contains("outrigger login"));
    }
    let (_, stats) = cloud.admin("GET", "/v1/stats", &Value::Null);
    assert_eq!(stats["counts"]["api_unauthorised"], 9);
}

#[test]
fn roles_limit_what_a_key_may_do() {
    let cloud = start();
    let blob = format!("/v1/blobs/{}", "0".repeat(64));
    let calls = [
        ("GET", "/v1/devices", "{}"),
        ("POST", "/v1/tokens", "{}"),
        ("PUT", "/v1/assignments", r#"{"model":"m","version":1,"device":null}"#),
        ("PUT", &blob, "x"),
        ("POST", "/v1/signers", r#"{"public_key":"","name":"x"}"#),
    ];
    let check = |role| {
        let auth = cloud.key(role);
        calls.map(|(method, path, body)| {
            cloud.call(Some(&auth), method, path, body.as_bytes()).0 != 403
        })
    };
    assert_eq!(check(Role::Viewer), [true, false, false, false, false]);
    assert_eq!(check(Role::Operator), [true, true, true, false, false]);
    assert_eq!(check(Role::Signer), [true, false, false, true, false]);
    assert_eq!(check(Role::Admin), [true; 5]);
}

#[test]
fn every_failure_has_the_same_shape() {
    let cloud = start();
    let huge = "x".repeat((512 << 10) + 1); // all of it is sent before its last byte is too much
    for (method, path, body, status, code) in [
        ("GET", "/v1/v2", "", 404, "not_found"),
        ("DELETE", "/v1/devices", "", 405, "method"),
        ("POST", "/v1/tokens", "no json", 422, "invalid_request"),
        ("POST", "/v1/tokens", r#"{"ttl_s":99999999}"#, 422, "invalid_request"),
        ("POST", "/v1/models", huge.as_str(), 413, "too_large"),
        ("GET", "/v1/audit?limit=x", "", 422, "invalid_request"),
        ("HEAD", "/v1/blobs/x", "", 422, ""),
        ("PUT", "/v1/assignments", r#"{"model":"m","version":1}"#, 422, "invalid_request"),
        ("PUT", "/v1/assignments", r#"{"model":"m","version":1,"device":null}"#, 404, "not_found"),
        ("PUT", "/v1/devices/d-0/denied", r#"{"denied":true}"#, 404, "not_found"),
    ] {
        let (actual, answer) =
            cloud.call(Some(&bearer(&cloud.admin)), method, path, body.as_bytes());
        assert_eq!(actual, status, "{method} {path}: {answer}");
        assert_eq!(answer["code"].as_str().unwrap_or_default(), code, "{method} {path}");
    }
}

#[test]
fn every_change_is_in_the_audit_log() {
    let cloud = start();
    cloud.trust_signer();
    cloud.token();
    let (_, body) = cloud.admin("GET", "/v1/audit?limit=2", &Value::Null);
    let actions: Vec<_> = body["audit"].as_array().unwrap().iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, ["token.create", "signer.trust"]);
    assert!(body["audit"][0]["actor"].as_str().unwrap().starts_with("admin ("));
}
