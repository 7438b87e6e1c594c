//! Bad input at both doors of the agent: files that lie, numbers that are none, lists without end,
//! foreign hosts. Each has a typed error with a hint, is counted, costs a bounded amount of memory and
//! time, and the agent answers the next good request.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use image::{ExtendedColorType, ImageEncoder};
use outrigger_tests::bad::{
    Kind, ask_http, binary_body, bytes_input, check_input, frame, peak_kb, refusals,
};
use outrigger_tests::grpc::{self, GrpcClient};
use outrigger_tests::small_models::{SmallModel, wav, wav_that_claims};
use outrigger_tests::world::{Agent, AgentOptions, World};
use protocol::tensor::Tensor;
use protocol::wire::inference::InferParameter;
use serde_json::json;

fn fleet(models: &[SmallModel]) -> (World, Agent) {
    let world = World::start().unwrap();
    for model in models {
        model.ship(&world).unwrap();
    }
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    for model in models {
        agent.wait_active(model.name(), 1).unwrap();
    }
    (world, agent)
}

fn png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    encoder.write_image(pixels, width, height, ExtendedColorType::Rgb8).unwrap();
    file
}

fn jpeg(pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new(&mut file);
    encoder.write_image(pixels, 8, 8, ExtendedColorType::Rgb8).unwrap();
    file
}

/// A PNG file whose header claims another size than its data have.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut file = png(8, 8, &RED.repeat(64));
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let mut crc = flate2::Crc::new();
    crc.update(&file[12..29]);
    file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    file
}

const RED: [u8; 3] = [250, 10, 10];

fn one(name: &str, file: impl AsRef<[u8]>) -> Tensor {
    bytes_input(name, &[file]).unwrap()
}

fn red_is_red(agent: &Agent) {
    let good = one("image", jpeg(&RED.repeat(64)));
    let answer = ask_http(agent, "pictures", &[good], &json!({})).unwrap();
    let body = answer.json().unwrap();
    assert_eq!((answer.status, &body["parameters"]["label"]), (200, &json!("red")), "{body}");
}

#[test]
fn files_that_are_not_what_they_claim() {
    use Kind::{Invalid, TooLarge};
    use SmallModel::{Pictures, Sums, Texts};
    let (_world, agent) = fleet(&[Pictures, Sums, Texts]);
    let red = jpeg(&RED.repeat(64));
    let speech = wav(8000, &[0.5; 100]);
    let nan = Tensor::from_f32("audio", vec![1, 3], &[0.0, f32::NAN, 0.0]).unwrap();
    let pixels = Tensor::from_f32("image", vec![1, 3, 8, 8], &[f32::NAN; 192]).unwrap();
    let loud = Tensor::from_f32("image", vec![1, 3, 8, 8], &[f32::INFINITY; 192]).unwrap();
    let long = vec![b'a'; 300 << 10];
    let cases: Vec<(&str, Tensor, Kind, &str)> = vec![
        ("pictures", one("image", &red[..red.len() / 2]), Invalid, "truncated"),
        ("pictures", one("image", &red[..1]), Invalid, "neither a JPEG nor a PNG"),
        ("pictures", one("image", "GIF89a"), Invalid, "neither a JPEG nor a PNG"),
        ("pictures", one("image", b""), Invalid, "neither a JPEG nor a PNG"),
        ("pictures", one("image", bomb(60_000, 60_000)), TooLarge, "60000x60000"),
        ("pictures", one("image", bomb(8193, 8193)), TooLarge, "8193x8193"),
        ("pictures", one("image", bomb(8000, 8000)), Invalid, "PNG"),
        ("pictures", one("image", bomb(0, 8)), Invalid, "PNG"),
        ("pictures", pixels, Invalid, "NaN or infinity"),
        ("pictures", loud, Invalid, "NaN or infinity"),
        ("sums", one("audio", &speech[..60]), Invalid, "truncated"),
        ("sums", one("audio", wav_that_claims(8000, &[0; 16], u32::MAX)), Invalid, "4294967295"),
        ("sums", one("audio", wav_that_claims(8000, &[], 0)), Invalid, "empty"),
        ("sums", one("audio", wav(8000, &[f32::NAN])), Invalid, "NaN"),
        ("sums", one("audio", wav(4_000_000, &[0.0])), Invalid, "4000000 samples per second"),
        ("sums", nan, Invalid, "NaN"),
        ("texts", one("text", b"the \xff\xfe"), Invalid, "not UTF-8 from byte 4 on"),
        ("texts", one("text", &long), TooLarge, "307200 bytes of text"),
        ("texts", bytes_input("text", &vec![b"a"; 1025]).unwrap(), TooLarge, "1025 texts"),
    ];
    for (model, input, kind, text) in cases {
        check_input(&agent, model, &input, kind, text).unwrap_or_else(|e| panic!("{text}: {e:#}"));
        red_is_red(&agent);
    }
}

/// Many small files that unpack to large ones cost the time that the request has, not more.
#[test]
fn a_hundred_bombs_end_at_the_deadline() {
    let (_world, agent) = fleet(&[SmallModel::Pictures]);
    let dark = png(3000, 3000, &vec![0; 27_000_000]);
    let files = bytes_input("image", &vec![dark; 100]).unwrap();
    let late = ask_http(&agent, "pictures", &[files], &json!({"timeout": 300_000})).unwrap();
    assert_eq!((late.status, &late.json().unwrap()["code"]), (504, &json!("deadline_exceeded")));
    assert_eq!(refusals(&agent, "deadline_exceeded").unwrap(), 1);
    // All hundred would take this test's patience many times.
    let good = one("image", jpeg(&RED.repeat(64)));
    let parameters = json!({"timeout": 20_000_000});
    assert_eq!(ask_http(&agent, "pictures", &[good], &parameters).unwrap().status, 200);
}

#[test]
fn what_json_cannot_carry_is_said_and_travels_as_bytes() {
    let (_world, agent) = fleet(&[SmallModel::Plain]);
    let input = Tensor::from_f32("x", vec![1, 2], &[f32::NAN, 1.0]).unwrap();
    let before = refusals(&agent, "invalid").unwrap();
    let inputs = std::slice::from_ref(&input);
    let json_answer = ask_http(&agent, "plain", inputs, &json!({})).unwrap();
    Kind::Invalid.check_http(&json_answer, "ask for it as binary").unwrap();
    let literal = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[NaN,1]}]}"#;
    let mut client = agent.client().unwrap();
    let refused = client.post("/v2/models/plain/infer", &[], literal.as_bytes()).unwrap();
    assert_eq!(
        (refused.status, &refused.json().unwrap()["code"]),
        (400, &json!("invalid_request"))
    );
    assert_eq!(refusals(&agent, "invalid").unwrap() - before, 2);

    let outputs = json!([{"name": "y", "parameters": {"binary_data": true}}]);
    let (len, body) = binary_body(inputs, &json!({}), &outputs);
    let headers = [("Inference-Header-Content-Length", &*len.to_string())];
    let binary = client.post("/v2/models/plain/infer", &headers, &body).unwrap();
    let (answer, raw) = binary.split().unwrap();
    assert_eq!((binary.status, raw), (200, &input.data()[..]), "{answer}");
    assert!(answer["parameters"]["confidence"].is_null(), "no classes, no confidence");
    let grpc = GrpcClient::connect(agent.grpc_address()).unwrap();
    let answer = grpc.infer(&grpc::request("plain", inputs)).unwrap().inference().unwrap();
    assert_eq!(answer.raw_output_contents, [input.data().clone()]);
}

#[test]
fn lists_and_parameters_are_limited() {
    let (_world, agent) = fleet(&[SmallModel::Plain]);
    let before = refusals(&agent, "invalid").unwrap();
    let mut client = agent.client().unwrap();
    let mut post =
        |body: &str| client.post("/v2/models/plain/infer", &[], body.as_bytes()).unwrap();
    let input = r#"{"name":"x","datatype":"FP32","shape":[1,2],"data":[0,0]}"#;
    let many = format!("{{\"inputs\":[{}]}}", vec![input; 10_000].join(","));
    Kind::TooLarge.check_http(&post(&many), "10000 tensors").unwrap();
    let unknown = format!("{{\"parameters\":{{\"colour\":1}},\"inputs\":[{input}]}}");
    Kind::Invalid.check_http(&post(&unknown), "unknown request parameter \"colour\"").unwrap();
    let nested = format!("{{\"parameters\":{{\"timeout\":[[1]]}},\"inputs\":[{input}]}}");
    assert_eq!(post(&nested).status, 400);
    let shape = format!("[{}]", ["1"; 9].join(","));
    let deep = format!("{{\"inputs\":[{}]}}", input.replace("[1,2]", &shape));
    assert_eq!(post(&deep).status, 400);
    assert_eq!(refusals(&agent, "invalid").unwrap() - before, 4);

    let grpc = GrpcClient::connect(agent.grpc_address()).unwrap();
    let tensor = Tensor::from_f32("x", vec![1, 2], &[0.0, 0.0]).unwrap();
    let many = grpc.infer(&grpc::request("plain", &vec![tensor.clone(); 10_000])).unwrap();
    Kind::TooLarge.check_grpc(&many, "tensors in one message").unwrap();
    let mut unknown = grpc::request("plain", std::slice::from_ref(&tensor));
    unknown.parameters.insert("colour".into(), InferParameter::default());
    let unknown = grpc.infer(&unknown).unwrap();
    Kind::Invalid.check_grpc(&unknown, "unknown request parameter \"colour\"").unwrap();
    let garbage = grpc.send(&[], frame(b"\xff\xff\xff"), true).unwrap();
    Kind::Invalid.check_grpc(&garbage, "inference.proto").unwrap();
    let large = grpc.send(&[], frame(&vec![0; 66 << 20]), true).unwrap();
    Kind::TooLarge.check_grpc(&large, "send fewer items").unwrap();
    assert_eq!(refusals(&agent, "invalid").unwrap() - before, 8, "each is counted");
    assert_eq!(grpc.infer(&grpc::request("plain", &[tensor])).unwrap().status, 0, "it lives");
}

/// Bodies whose decoded form would be many times their length.
#[test]
fn what_grows_when_it_is_read_is_not_read() {
    let (_world, agent) = fleet(&[SmallModel::Plain]);
    let id = agent.process().id();
    let tensor = Tensor::from_f32("x", vec![1, 2], &[0.0, 0.0]).unwrap();
    let grpc = GrpcClient::connect(agent.grpc_address()).unwrap();
    let (before, limit_kb) = (peak_kb(id).unwrap(), 400 << 10);
    // 60 MiB of empty inputs; decoded, each would take some 200 bytes.
    let inputs = grpc.send(&[], frame(&b"\x2a\x00".repeat(30 << 20)), true).unwrap();
    Kind::TooLarge.check_grpc(&inputs, "tensors in one message").unwrap();
    let empty = r#"{"name":"","datatype":"","shape":[]}"#;
    let lists = [
        format!("{{\"inputs\":[{}]}}", vec![empty; 2 << 20].join(",")),
        format!("{{\"parameters\":{{\"a\":[{}]}},\"inputs\":[]}}", vec!["[]"; 20 << 20].join(",")),
        format!("{{\"inputs\":[{{\"shape\":[{}]}}]}}", vec!["1"; 40 << 20].join(",")),
    ];
    for list in lists {
        let mut client = agent.client().unwrap();
        let answer = client.post("/v2/models/plain/infer", &[], list.as_bytes()).unwrap();
        assert!([400, 413].contains(&answer.status), "{}", answer.status);
    }
    let grown = peak_kb(id).unwrap() - before;
    println!("the peak grew by {grown} kB");
    assert!(grown < limit_kb, "{grown} kB");
    assert_eq!(grpc.infer(&grpc::request("plain", &[tensor])).unwrap().status, 0, "it lives");
}

#[test]
fn foreign_hosts_and_web_pages_at_both_doors() {
    let (_world, agent) = fleet(&[SmallModel::Plain]);
    let tensor = Tensor::from_f32("x", vec![1, 2], &[0.0, 0.0]).unwrap();
    let message = prost::Message::encode_to_vec(&grpc::request("plain", &[tensor]));
    let grpc = GrpcClient::connect(agent.grpc_address()).unwrap();
    let before = refusals(&agent, "forbidden").unwrap();
    for (headers, text) in [
        ([(":authority", "evil.example")], "the Host is not this machine"),
        ([("origin", "http://localhost:8000")], "web pages"),
    ] {
        let refused = grpc.send(&headers, frame(&message), true).unwrap();
        Kind::Forbidden.check_grpc(&refused, text).unwrap();
    }
    for (header, text) in [
        (("Host", "evil.example:8000"), "the Host is not this machine"),
        (("Origin", "null"), "web pages"),
    ] {
        let refused = agent.client().unwrap().send("GET", "/v2", &[header], &[]).unwrap();
        Kind::Forbidden.check_http(&refused, text).unwrap();
    }
    assert_eq!(refusals(&agent, "forbidden").unwrap() - before, 4);
    assert_eq!(grpc.send(&[], frame(&message), true).unwrap().status, 0, "it lives");
}
