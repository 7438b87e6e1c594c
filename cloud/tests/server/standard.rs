//! The Open Inference Protocol over HTTPS, and who may call it.

use fleet::access::Role;
use protocol::id::Variant;
use serde_json::{Value, json};

use crate::support::{Cloud, MODEL, bearer, bundle, start};

const INFER: &str = "/v2/models/m/infer";

fn question() -> Vec<u8> {
    let input =
        json!({ "name": "x", "datatype": "FP32", "shape": [1, 3], "data": [0.0, 4.0, 0.0] });
    json!({ "inputs": [input], "parameters": { "timeout": 5_000_000 } }).to_string().into_bytes()
}

fn serving() -> Cloud {
    let cloud = start();
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, MODEL)).0, 201);
    cloud
}

fn asked(cloud: &Cloud, auth: &str, path: &str) -> (u16, Value) {
    cloud.call(Some(auth), "POST", path, &question())
}

#[test]
fn a_key_of_a_client_asks_and_does_nothing_else() {
    let cloud = serving();
    let client = cloud.key(Role::Client);
    let (status, answer) = asked(&cloud, &client, INFER);
    assert_eq!((status, &answer["model_version"]), (200, &json!("1")), "{answer}");
    assert_eq!(answer["outputs"][0]["data"], json!([0.0, 8.0, 0.0]));
    assert_eq!(answer["parameters"]["placement"], "cloud");
    let get = |auth: &str, path: &str| cloud.call(Some(auth), "GET", path, b"").0;
    for path in ["/v2", "/v2/health/ready", "/v2/models/m", "/v2/models/m/config"] {
        assert_eq!(get(&client, path), 200, "{path}");
    }
    for path in ["/v1/devices", "/v1/keys", "/v1/usage", "/v1/models"] {
        assert_eq!(get(&client, path), 403, "{path}");
    }
    let unload = "/v2/repository/models/m/unload";
    assert_eq!(cloud.call(Some(&client), "POST", unload, b"").0, 403);
    let (status, refused) = asked(&cloud, &cloud.key(Role::Viewer), INFER);
    assert_eq!(status, 403, "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("viewer"), "{refused}");
}

#[test]
fn without_a_good_key_nothing_but_liveness_answers() {
    let cloud = serving();
    let (id, good) = cloud.key_with(&json!({ "name": "c", "role": "client" }));
    let (_, other) = cloud.key_with(&json!({ "name": "o", "role": "client", "models": ["n*"] }));
    let wrong = format!("Bearer {id}.{}", "0".repeat(64));
    let calls = |auth: Option<&str>| cloud.call(auth, "POST", INFER, &question());
    for (auth, expected) in
        [(None, 401), (Some(wrong.as_str()), 401), (Some(good.as_str()), 200), (Some(&other), 403)]
    {
        let (status, answer) = calls(auth);
        assert_eq!(status, expected, "{auth:?} {answer}");
        assert_eq!(answer["error"].is_string(), expected != 200, "the standard's shape: {answer}");
    }
    let index = |auth| cloud.call(Some(auth), "POST", "/v2/repository/index", b"").1;
    assert_eq!(index(&good).as_array().unwrap().len(), 1);
    assert_eq!(index(&other), json!([]), "what may not be asked is not seen");

    let path = format!("/v1/keys/{id}");
    assert_eq!(cloud.admin("DELETE", &path, &Value::Null).0, 200);
    assert_eq!(calls(Some(&good)).0, 401, "at once");
    assert_eq!(cloud.admin("DELETE", &path, &Value::Null).0, 404);
    let counts = cloud.server.cloud().events.counts();
    assert_eq!(counts.api_unauthorised, 3);
}

#[test]
fn a_key_ends_by_itself_and_is_shown_once() {
    let cloud = serving();
    let wanted = json!({ "name": "short", "role": "client", "expires_in_s": 1 });
    let (id, auth) = cloud.key_with(&wanted);
    let expired = || asked(&cloud, &auth, INFER).0 == 401;
    while !expired() {
        std::thread::yield_now();
    }
    let (_, answer) = asked(&cloud, &auth, INFER);
    assert!(answer["error"].as_str().unwrap().contains("expired"), "{answer}");
    let (_, list) = cloud.admin("GET", "/v1/keys", &Value::Null);
    let secret = auth.split('.').nth(1).unwrap();
    assert!(!list.to_string().contains(secret));
    let key = list["keys"].as_array().unwrap().iter().find(|key| key["id"] == json!(id)).unwrap();
    assert_eq!(key["state"], "expired");
    let (_, audit) = cloud.admin("GET", "/v1/audit?limit=1", &Value::Null);
    assert_eq!(audit["audit"][0]["action"], "key.create");
    let admin = format!("/v1/keys/{}", cloud.admin.id);
    let (status, answer) = cloud.admin("DELETE", &admin, &Value::Null);
    assert_eq!((status, answer["code"].as_str()), (409, Some("last_admin")));
}

#[test]
fn keys_that_make_no_sense_are_refused() {
    let cloud = start();
    for (wanted, status) in [
        (json!({ "name": "", "role": "client" }), 422),
        (json!({ "name": "x", "role": "root" }), 422),
        (json!({ "name": "x", "role": "client", "models": [] }), 422),
        (json!({ "name": "x", "role": "client", "models": ["a/b"] }), 422),
        (json!({ "name": "x", "role": "client", "tenant": "nobody" }), 404),
        (json!({ "name": "x", "role": "client", "expires_in_s": 0 }), 422),
    ] {
        let (actual, answer) = cloud.admin("POST", "/v1/keys", &wanted);
        assert_eq!(actual, status, "{wanted} {answer}");
    }
    let operator = cloud.key(Role::Operator);
    let wanted = json!({ "name": "x", "role": "admin" }).to_string();
    assert_eq!(cloud.call(Some(&operator), "POST", "/v1/keys", wanted.as_bytes()).0, 403);
}

#[test]
fn too_many_failures_are_cut_short_and_good_keys_are_served() {
    let cloud = serving();
    let wrong = format!("Bearer {}.{}", cloud.admin.id, "0".repeat(64));
    let statuses: Vec<_> = (0..40).map(|_| asked(&cloud, &wrong, INFER).0).collect();
    assert!(statuses[..20].iter().all(|status| *status == 401), "{statuses:?}");
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(asked(&cloud, &bearer(&cloud.admin), INFER).0, 200);
    let counts = cloud.server.cloud().events.counts();
    assert_eq!(counts.api_unauthorised + counts.api_throttled, 40);
}

#[test]
fn versions_stand_side_by_side_as_the_policy_says() {
    let cloud = serving();
    let triple = MODEL.replace("scale 2", "scale 3");
    let probes_of_double = bundle(2, Variant::Cloud, &triple);
    assert_eq!(cloud.push(&probes_of_double).0, 422, "it does not answer its probes");
    assert_eq!(cloud.push(&bundle(2, Variant::Cloud, &format!("{MODEL}\n"))).0, 201);
    let auth = cloud.key(Role::Operator);
    let answered = |path: &str| {
        let (status, answer) = asked(&cloud, &auth, path);
        (status, answer["model_version"].as_str().map(str::to_owned))
    };
    let by = |version: &str| (200, Some(version.to_owned()));
    let set = |policy: &str| {
        let body = json!({ "policy": policy });
        cloud.admin("PUT", "/v1/models/m/policy", &body).0
    };
    let (first, second) = ("/v2/models/m/versions/1/infer", "/v2/models/m/versions/2/infer");
    assert_eq!(answered(INFER), by("2"), "the newest answers as soon as it was pushed");
    assert_eq!((answered(first).0, answered(second)), (404, by("2")));
    assert_eq!(set("all"), 200);
    assert_eq!((answered(first), answered(second)), (by("1"), by("2")));
    let (_, metadata) = cloud.call(Some(&auth), "GET", "/v2/models/m", b"");
    assert_eq!(metadata["versions"], json!(["1", "2"]));
    assert_eq!(set("1"), 200);
    assert_eq!((answered(INFER), answered(second).0), (by("1"), 404));
    let (_, config) = cloud.call(Some(&auth), "GET", "/v2/models/m/config", b"");
    assert_eq!(config["version_policy"], json!({ "specific": { "versions": [1] } }));
    let (_, index) = cloud.call(Some(&auth), "POST", "/v2/repository/index", b"");
    assert_eq!((&index[0]["state"], &index[1]["state"]), (&json!("READY"), &json!("UNAVAILABLE")));
    assert_eq!((set("newest"), set("latest 0")), (422, 422));
    let absent = json!({ "policy": "all" });
    assert_eq!(cloud.admin("PUT", "/v1/models/none/policy", &absent).0, 404);
}

#[test]
fn an_unloaded_model_answers_nobody_until_it_is_loaded() {
    let cloud = serving();
    let auth = cloud.key(Role::Operator);
    let change = |what: &str| {
        cloud.call(Some(&auth), "POST", &format!("/v2/repository/models/m/{what}"), b"").0
    };
    let loaded = || cloud.server.cloud().serving.counts().1;
    assert_eq!((asked(&cloud, &auth, INFER).0, loaded()), (200, 1));
    assert_eq!((change("unload"), asked(&cloud, &auth, INFER).0, loaded()), (200, 404, 0));
    assert_eq!((change("load"), asked(&cloud, &auth, INFER).0, loaded()), (200, 200, 1));
    let (_, audit) = cloud.admin("GET", "/v1/audit?limit=2", &Value::Null);
    let actions: Vec<_> = audit["audit"].as_array().unwrap().iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, ["model.load", "model.unload"]);
}

#[test]
fn tenants_bound_their_keys_and_usage_is_metered() {
    let cloud = serving();
    let tenant =
        |models: Value| cloud.admin("PUT", "/v1/tenants/shop", &json!({ "models": models })).0;
    assert_eq!(tenant(json!(["m"])), 200);
    let wanted = json!({ "name": "shop", "role": "client", "tenant": "shop" });
    let (id, auth) = cloud.key_with(&wanted);
    assert_eq!(asked(&cloud, &auth, INFER).0, 200);
    assert_eq!(cloud.call(Some(&auth), "POST", INFER, b"no json").0, 400);
    assert_eq!(tenant(json!(["other"])), 200);
    assert_eq!(asked(&cloud, &auth, INFER).0, 403, "at once");
    let usage = |by: &str| {
        let (status, body) = cloud.admin("GET", &format!("/v1/usage?by={by}"), &Value::Null);
        assert_eq!(status, 200, "{body}");
        body["usage"].as_array().unwrap().clone()
    };
    let of = |lines: Vec<Value>, of: &str| lines.into_iter().find(|l| l["of"] == of).unwrap();
    let line = of(usage("tenant"), "shop");
    let number = |key: &str| line[key].as_u64().unwrap();
    assert_eq!((number("requests"), number("refused")), (2, 1), "{line}");
    assert_eq!((number("bytes_in"), number("bytes_out")), (12, 12), "{line}");
    assert_eq!(of(usage("key"), &format!("key {id}"))["requests"], 2);
    assert_eq!(of(usage("model"), "m")["requests"], 2);
    assert_eq!(cloud.admin("GET", "/v1/usage?by=colour", &Value::Null).0, 422);
    assert_eq!(cloud.admin("GET", "/v1/usage?from=2&to=1", &Value::Null).0, 422);
}
