use super::fake::{Fake, limited, served};
use crate::{Caller, router};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, Version};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use tower::ServiceExt;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

async fn send(router: &Router, request: Request<Body>) -> Answer {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

async fn get(router: &Router, path: &str) -> Answer {
    send(router, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn post(
    router: &Router,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(router, request.body(body.into()).unwrap()).await
}

const INFER: &str = "/v2/models/double/infer";

fn body(values: &[f32], output: &Value) -> String {
    let items = values.len() / 2;
    json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [items, 2], "data": values}],
        "outputs": [{"name": "y", "parameters": output}],
    })
    .to_string()
}

#[tokio::test]
async fn what_is_said_about_the_server_and_its_model() {
    let (_, router) = served(Caller::unlimited());
    let server = get(&router, "/v2").await.json();
    assert_eq!((&server["name"], &server["version"]), (&json!("fake"), &json!("1.2.3")));
    assert!(server["extensions"].as_array().unwrap().contains(&json!("statistics")));
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(&router, path).await.json(), json!({"live": true, "ready": true}));
    }
    for version in ["", "/versions/1"] {
        let model = format!("/v2/models/double{version}");
        let metadata = get(&router, &model).await.json();
        assert_eq!(metadata["inputs"][0]["shape"], json!([-1, 2]));
        let config = get(&router, &format!("{model}/config")).await.json();
        assert_eq!(
            (&config["max_batch_size"], &config["input"][0]["dims"]),
            (&json!(4096), &json!([2]))
        );
        let statistics = get(&router, &format!("{model}/stats")).await.json();
        assert_eq!(statistics["model_stats"][0]["inference_count"], 7);
        let ready = get(&router, &format!("{model}/ready")).await.json();
        assert_eq!(ready, json!({"name": "double", "ready": true}));
    }
    let all = get(&router, "/v2/models/stats").await.json();
    assert_eq!(all["model_stats"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn errors_have_the_standards_shape() {
    let (fake, router) = served(Caller::unlimited());
    let cases = [
        ("GET", "/v2/models/nothing", 404),
        ("GET", "/v2/models/double/versions/9", 404),
        ("GET", "/v2/models/double/versions/x/config", 404),
        ("GET", "/v2/models/a%2Fb/ready", 404),
        ("GET", "/v2/models/%ff/ready", 404),
        ("GET", "/v2/models/nothing/stats", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/cudasharedmemory/region/a/register", 404),
        ("GET", "/v2/trace/setting", 404),
        ("POST", "/v2/logging", 404),
        ("GET", INFER, 405),
        ("POST", INFER, 400),
        ("GET", "/", 404),
    ];
    for (method, path, status) in cases {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let answer = send(&router, request).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.json()["error"].is_string(), "{path}: {:?}", answer.body);
    }
    assert_eq!(fake.refused.load(SeqCst), 1, "refused inferences are counted");
    let full = post(&router, INFER, &[], body(&[-2.0, 0.0], &json!({}))).await;
    assert_eq!((full.status.as_u16(), &full.headers["retry-after"]), (503, &"2".parse().unwrap()));
}

#[tokio::test]
async fn answers_as_json_as_bytes_and_as_classes() {
    let (_, router) = served(Caller::unlimited());
    let plain = post(&router, INFER, &[], body(&[1.0, 2.0], &json!({}))).await.json();
    assert_eq!(plain["outputs"][0]["data"], json!([2.0, 4.0]));
    let binary = json!({"binary_data": true});
    let raw = post(&router, INFER, &[], body(&[1.0, 2.0], &binary)).await;
    let len: usize = raw.headers[protocol::oip::HEADER_LENGTH].to_str().unwrap().parse().unwrap();
    assert_eq!(raw.body[len..], [0, 0, 0, 64, 0, 0, 128, 64]);
    let classes = json!({"classification": 1});
    let top = post(&router, INFER, &[], body(&[1.0, 2.0, 4.0, 3.0], &classes)).await.json();
    let output = &top["outputs"][0];
    assert_eq!((&output["datatype"], &output["shape"]), (&json!("BYTES"), &json!([2, 1])));
    assert_eq!(output["data"], json!(["4.000000:1:right", "8.000000:0:left"]));
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_may_be_compressed_either_way() {
    let (_, router) = served(Caller::unlimited());
    let many: Vec<f32> = (0..2000).map(|i| i as f32 / 4.0).collect();
    let json = body(&many, &json!({}));
    for (encoding, packed) in [("gzip", gzip(json.as_bytes())), ("deflate", zlib(json.as_bytes()))]
    {
        let headers = [("content-encoding", encoding)];
        let answer = post(&router, INFER, &headers, packed).await.json();
        assert_eq!(answer["outputs"][0]["data"][3], 1.5, "{encoding}");
        let asked = post(&router, INFER, &[("accept-encoding", encoding)], json.clone()).await;
        assert_eq!(asked.headers["content-encoding"], encoding);
        assert!(asked.body.len() < json.len() / 2);
    }
    let plain = post(&router, INFER, &[], json).await;
    assert!(!plain.headers.contains_key("content-encoding"), "nobody asked");
}

#[tokio::test]
async fn bad_compression_is_a_typed_error() {
    let (_, router) = served(Caller::unlimited());
    let bomb = gzip(&vec![b' '; protocol::limits::HTTP_BODY_MAX_BYTES + 1]);
    assert!(bomb.len() < 1 << 20);
    let cases: [(&str, Vec<u8>, u16); 4] = [
        ("gzip", bomb, 413),
        ("gzip", b"not gzip".to_vec(), 400),
        ("deflate", zlib(b"{}")[..4].to_vec(), 400),
        ("br", b"{}".to_vec(), 400),
    ];
    for (encoding, body, status) in cases {
        let answer = post(&router, INFER, &[("content-encoding", encoding)], body).await;
        assert_eq!(answer.status, status, "{encoding}: {}", answer.json());
        assert!(answer.json()["error"].is_string());
    }
}

#[tokio::test]
async fn a_repository_lists_loads_and_unloads() {
    let (_, router) = served(Caller::unlimited().managing());
    let load = "/v2/repository/models/double/load";
    let unload = "/v2/repository/models/double/unload";
    let index = "/v2/repository/index";
    assert_eq!(post(&router, index, &[], "").await.json()[0]["state"], "READY");
    let options = r#"{"parameters":{"unload_dependents":false}}"#;
    assert_eq!(post(&router, unload, &[], options).await.status, 200);
    assert_eq!(get(&router, "/v2/health/ready").await.status, 503);
    assert_eq!(get(&router, "/v2/models/double/ready").await.status, 404);
    assert_eq!(post(&router, index, &[], r#"{"ready":true}"#).await.json(), json!([]));
    for parameter in [json!({"config": "{}"}), json!({"file:1/model.onnx": "AA=="})] {
        let body = json!({ "parameters": parameter }).to_string();
        let answer = post(&router, load, &[], body).await;
        assert_eq!(answer.status, 403);
        assert!(answer.json()["error"].as_str().unwrap().contains("signed"));
    }
    assert_eq!(post(&router, load, &[], "").await.status, 200);
    assert_eq!(get(&router, "/v2/health/ready").await.status, 200);
}

#[tokio::test]
async fn callers_do_what_they_may() {
    let (_, router) = served(limited());
    let models = ["/v2/models/other", "/v2/models/other/stats", "/v2/models/other/config"];
    for path in models {
        assert_eq!(get(&router, path).await.status, 403, "{path}");
    }
    assert_eq!(post(&router, "/v2/models/other/infer", &[], "{}").await.status, 403);
    let load = post(&router, "/v2/repository/models/double/load", &[], "").await;
    assert_eq!(load.status, 403);
    assert!(load.json()["error"].as_str().unwrap().contains("Unix socket"));
    let index = post(&router, "/v2/repository/index", &[], "").await.json();
    assert_eq!(index.as_array().unwrap().len(), 1);
    let stats = get(&router, "/v2/models/stats").await.json();
    assert_eq!(stats["model_stats"].as_array().unwrap().len(), 1);
    assert_eq!(post(&router, INFER, &[], body(&[1.0, 2.0], &json!({}))).await.status, 200);

    let nobody = router_without_caller();
    assert_eq!(get(&nobody, "/v2/models/double").await.status, 403, "closed where nobody said");
}

fn router_without_caller() -> Router {
    router(Arc::new(Fake::default()))
}

#[tokio::test]
async fn a_full_server_refuses_before_it_reads_a_body() {
    let (fake, router) = served(Caller::unlimited());
    fake.full.store(true, SeqCst);
    let endless = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, Infallible>>());
    let request = Request::post(INFER).version(Version::HTTP_2).header("content-length", "1000");
    let request = request.body(endless).unwrap();
    let answer = send(&router, request).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "2");
    assert_eq!(fake.announced.load(SeqCst), 1000);
}

#[tokio::test]
async fn patterns_bound_what_a_caller_sees() {
    let lists = |tenant: &str| ["d*".parse().unwrap(), tenant.parse().unwrap()];
    for (tenant, status, known) in [("*", 200, 1), ("double other", 200, 1), ("other", 403, 0)] {
        let (_, router) = served(Caller::matching(lists(tenant)));
        let answer = post(&router, INFER, &[], body(&[1.0, 2.0], &json!({}))).await;
        assert_eq!(answer.status, status, "{tenant}");
        let index = post(&router, "/v2/repository/index", &[], "").await.json();
        assert_eq!(index.as_array().unwrap().len(), known, "{tenant}");
    }
}
