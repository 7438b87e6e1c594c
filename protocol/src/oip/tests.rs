mod describe;
mod grpc;

use super::*;
use crate::id::Version;
use crate::infer::{First, InferResponse, Placement, PlacementHint, Plan, Reason, Timing, Verdict};
use crate::problem::ProblemCode;
use crate::tensor::{DataType, Tensor, TensorMeta};
use bytes::Bytes;

fn parse(
    json: &str,
    raw: &[u8],
    json_len: Option<usize>,
) -> Result<ParsedRequest, crate::problem::Problem> {
    let body = Bytes::from([json.as_bytes(), raw].concat());
    parse_request("m".parse().unwrap(), None, json_len, &body)
}

fn check(json: &str) -> String {
    match parse(json, b"", None) {
        Ok(p) => format!("{:?} {:?}", p.request.inputs, p.form),
        Err(e) => format!("{}: {e}", e.code.as_str()),
    }
}

fn input(datatype: &str, shape: &str, data: &str) -> String {
    format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#
    )
}

#[test]
fn json_data_nested_or_flat() {
    for data in ["[[1,2.5],[3,4]]", "[1,2.5,3,4]", "[1,[2.5],[3,[4]]]"] {
        let p = parse(&input("FP32", "[2,2]", data), b"", None).unwrap();
        assert_eq!(p.request.inputs[0].to_f32().unwrap(), [1.0, 2.5, 3.0, 4.0]);
    }
}

#[test]
fn bad_bodies_say_what_is_wrong() {
    let report = [
        check("{"),
        check("{}"),
        check(r#"{"inputs":[]}"#),
        check(&input("FP31", "[1]", "[1]")),
        check(&input("FP32", "[2]", "[1]")),
        check(&input("FP32", "[2]", "[1,2,3]")),
        check(&input("FP32", "[-1]", "[1]")),
        check(&input("FP32", "[1]", "[\"one\"]")),
        check(&input("UINT8", "[1]", "[256]")),
        check(&input("INT64", "[1]", "[1.5]")),
        check(&input("FP16", "[1]", "[1]")),
        check(&input("FP32", "[99999999999]", "[1]")),
        check(r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#),
        check(
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":{"shared_memory_region":"r"}}]}"#,
        ),
        check(
            r#"{"parameters":{"placement":"moon"},"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}"#,
        ),
        check(
            r#"{"parameters":{"nonsense":7},"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]}]}"#,
        ),
        check(&format!(r#"{{"id":"{}","inputs":[]}}"#, "i".repeat(129))),
        check(&"[".repeat(10_000)),
    ];
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn binary_inputs_are_slices_of_the_body() {
    let json = r#"{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}},{"name":"b","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
    let p = parse(json, &[0, 0, 128, 63, 7, 8], Some(json.len())).unwrap();
    assert_eq!(p.request.inputs[0].to_f32().unwrap(), [1.0]);
    assert_eq!(p.request.inputs[1].data().as_ref(), [7, 8]);
    assert!(p.form.is_binary("y") && !p.form.is_binary("z"));

    for raw_len in [0, 5, 7] {
        let error = parse(json, &vec![0; raw_len], Some(json.len())).unwrap_err();
        assert_eq!(error.code, ProblemCode::InvalidRequest);
    }
    assert!(parse(json, b"", Some(json.len() + 1)).is_err());
}

#[test]
fn options_are_understood() {
    let json = r#"{"id":"7","parameters":{"timeout":1500,"priority":3,"placement":"edge","binary_data_output":true},"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["ü"]}]}"#;
    let p = parse(json, b"", None).unwrap();
    assert_eq!((p.request.deadline_ms, p.request.priority), (Some(2), 3));
    assert_eq!((p.request.hint, p.request.id.as_str()), (PlacementHint::Edge, "7"));
    assert!(p.form.is_binary("anything"));
}

pub(super) fn response(value: f32) -> InferResponse {
    InferResponse {
        model: "m".parse().unwrap(),
        id: "7".into(),
        outputs: vec![Tensor::from_f32("y", vec![1, 2], &[value, 0.1]).unwrap()],
        verdict: Verdict {
            placement: Placement::EdgeDegraded,
            reason: Reason::CloudLate,
            plan: Some(Plan { first: First::Edge, reason: Reason::Cheapest }),
            version: Version::FIRST,
            confidence: Some(0.5),
            risk: None,
            label: Some("Bag".into()),
            timing: Timing { queue_us: 1, infer_us: 2, network_us: 3 },
            attempts: 1,
            saved_bytes: 0,
        },
    }
}

#[test]
fn answers_as_json_and_as_binary() {
    let json = render_response(&response(1.0), &OutputForm::default()).unwrap();
    assert_eq!(json.json_len, None);
    insta::assert_snapshot!(std::str::from_utf8(&json.body).unwrap());

    let form = parse(
        r#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","datatype":"UINT8","shape":[1],"data":[1]}]}"#,
        b"",
        None,
    );
    let binary = render_response(&response(1.0), &form.unwrap().form).unwrap();
    let (head, tail) = binary.body.split_at(binary.json_len.unwrap());
    assert_eq!(tail, [0, 0, 128, 63, 205, 204, 204, 61]);
    assert!(std::str::from_utf8(head).unwrap().contains("\"binary_data_size\":8"));
}

#[test]
fn nan_is_refused_as_json_with_a_hint() {
    let error = render_response(&response(f32::NAN), &OutputForm::default()).unwrap_err();
    assert!(error.hint.contains("binary"), "{error}");
}

#[test]
fn integers_and_texts_come_back() {
    let meta = TensorMeta::new("n", DataType::Int64, vec![2]).unwrap();
    let data: Vec<u8> = [-1i64, i64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect();
    let ints = Tensor::new(meta, data.into()).unwrap();
    assert_eq!(data::render(&ints).unwrap().to_string(), "[-1,9223372036854775807]");
    let texts = Tensor::from_byte_strings("t", vec![1], &["ü".as_bytes()]).unwrap();
    assert_eq!(data::render(&texts).unwrap().to_string(), "[\"ü\"]");
}

#[test]
fn classes_in_place_of_outputs() {
    let json = r#"{"inputs":[{"name":"x","datatype":"UINT8","shape":[1],"data":[1]}],"outputs":[{"name":"y","parameters":{"classification":2}},{"name":"z","parameters":{"classification":0}}]}"#;
    let form = parse(json, b"", None).unwrap().form;
    assert_eq!((form.classes("y"), form.classes("z"), form.wants_classes()), (Some(2), None, true));
}

#[test]
fn repository_bodies() {
    assert_eq!(index_wants_ready_only(b""), Ok(false));
    assert_eq!(index_wants_ready_only(br#"{"ready":true}"#), Ok(true));
    assert_eq!(check_parameters(br#"{"parameters":{"unload_dependents":false}}"#), Ok(()));
    for (body, code) in [
        (r#"{"parameters":{"config":"{}"}}"#, ProblemCode::Unauthorised),
        (r#"{"parameters":{"file:1/model.onnx":"AAAA"}}"#, ProblemCode::Unauthorised),
        (r#"{"parameters":{"else":1}}"#, ProblemCode::InvalidRequest),
        ("[", ProblemCode::InvalidRequest),
    ] {
        assert_eq!(check_parameters(body.as_bytes()).unwrap_err().code, code, "{body}");
    }
}

#[test]
fn every_float_is_read_back_as_it_was() {
    let mut bits = 1u32;
    for _ in 0..20_000 {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223); // Numerical Recipes
        let value = f32::from_bits(bits);
        #[allow(clippy::cast_possible_truncation)] // what a client does with the JSON number
        let read = data::shortest(value) as f32;
        assert!(read == value || value.is_nan() && read.is_nan(), "{value:e}");
    }
    assert_eq!(data::shortest(0.1).to_string(), "0.1");
}
