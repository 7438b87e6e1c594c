//! The calls of a sign-in, as far as they go without a provider: `cloud/src/sign_in/tests.rs` has one.

use models::fake::FakeBackend;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, TcpListener};

use crate::support::{Cloud, bearer, start, start_as};

const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT: &str = "http://127.0.0.1:9/callback";

fn begin(cloud: &Cloud, redirect: &str, challenge: &str) -> (u16, Value) {
    let body = json!({ "redirect_uri": redirect, "code_challenge": challenge }).to_string();
    cloud.call(None, "POST", "/v1/sign-in", body.as_bytes())
}

fn finish(cloud: &Cloud, state: &str) -> (u16, Value) {
    let body = json!({ "code": "c", "state": state, "code_verifier": VERIFIER,
                       "redirect_uri": REDIRECT });
    cloud.call(None, "POST", "/v1/sign-in/finish", body.to_string().as_bytes())
}

/// A cloud whose provider is away.
fn start_with_provider() -> Cloud {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    start_as(FakeBackend::default(), |settings| {
        settings.oidc.issuer = format!("http://{nobody}");
        settings.oidc.client_id = "outrigger".into();
        settings.oidc.roles = vec!["viewer=*".parse().unwrap()];
    })
}

#[test]
fn a_cloud_without_a_provider_says_so() {
    let cloud = start();
    for (status, body) in [begin(&cloud, REDIRECT, CHALLENGE), finish(&cloud, "x")] {
        assert_eq!((status, body["code"].as_str()), (404, Some("not_found")), "{body}");
        assert!(body["hint"].as_str().unwrap().contains("[oidc]"), "{body}");
    }
    let (status, body) = cloud.call(Some(&bearer(&cloud.admin)), "DELETE", "/v1/sign-in", b"");
    assert_eq!((status, body["code"].as_str()), (409, Some("not_a_sign_in")));
    assert_eq!(cloud.call(None, "DELETE", "/v1/sign-in", b"").0, 401);
    assert_eq!(cloud.admin("GET", "/v1/whoami", &Value::Null).0, 200, "the key goes on");
}

#[test]
fn a_provider_that_is_away_is_said_and_keys_go_on() {
    let cloud = start_with_provider();
    for (redirect, challenge) in
        [("http://evil.example:9/callback", CHALLENGE), (REDIRECT, "short"), ("", "")]
    {
        let (status, body) = begin(&cloud, redirect, challenge);
        assert_eq!((status, body["code"].as_str()), (422, Some("invalid_request")), "{body}");
    }
    let (status, body) = begin(&cloud, REDIRECT, CHALLENGE);
    assert_eq!((status, body["code"].as_str()), (502, Some("provider_failed")), "{body}");
    let (_, stats) = cloud.admin("GET", "/v1/stats", &Value::Null);
    assert_eq!(
        (&stats["counts"]["sign_ins_failed"], &stats["counts"]["sign_ins_refused"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn who_ends_sign_ins_that_nobody_began_has_to_wait_and_keys_do_not() {
    let cloud = start_with_provider();
    for _ in 0..20 {
        let (status, body) = finish(&cloud, "AAAA");
        assert_eq!((status, body["code"].as_str()), (401, Some("unauthorised")), "{body}");
        assert!(body["hint"].as_str().unwrap().contains("--oidc"), "{body}");
    }
    let refused = (0..3).map(|_| finish(&cloud, "AAAA").0);
    assert!(refused.into_iter().any(|status| status == 429));
    assert_eq!(cloud.call(None, "GET", "/v1/devices", b"").0, 401, "wrong keys are counted apart");
    let (_, stats) = cloud.admin("GET", "/v1/stats", &Value::Null);
    assert!(stats["counts"]["sign_ins_refused"].as_u64().unwrap() >= 20);
}
