use super::super::grpc::*;
use super::response;
use crate::id::Version;
use crate::infer::PlacementHint;
use crate::problem::{Problem, ProblemCode};
use crate::wire::inference::infer_parameter::ParameterChoice;
use crate::wire::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::wire::inference::{InferParameter, InferTensorContents, ModelInferRequest};
use bytes::Bytes;
use std::time::Duration;

const DATATYPES: [&str; 14] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "BF16", "FP32", "FP64", "BYTES",
];

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

fn input(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        contents,
        ..Default::default()
    }
}

fn request(inputs: Vec<InferInputTensor>, raw: &[&'static [u8]]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        inputs,
        raw_input_contents: raw.iter().map(|r| Bytes::from_static(r)).collect(),
        ..Default::default()
    }
}

fn data(message: ModelInferRequest) -> Result<Vec<u8>, Problem> {
    parse_request(message, None).map(|p| p.request.inputs[0].data().to_vec())
}

#[test]
fn raw_contents_are_not_copied() {
    let raw = Bytes::from(vec![0, 0, 128, 63]);
    let mut message = request(vec![input("FP32", &[1], None)], &[]);
    message.raw_input_contents = vec![raw.clone()];
    let parsed = parse_request(message, None).unwrap();
    assert_eq!(parsed.request.inputs[0].data().as_ptr(), raw.as_ptr());
}

#[test]
fn typed_contents_become_bytes() {
    let contents = InferTensorContents {
        bool_contents: vec![true, false],
        int_contents: vec![-1, 2],
        int64_contents: vec![-1, 2],
        uint_contents: vec![1, 255],
        uint64_contents: vec![1, 2],
        fp32_contents: vec![1.0, 2.0],
        fp64_contents: vec![1.0, 2.0],
        bytes_contents: vec![Bytes::from_static(b"ab"), Bytes::new()],
    };
    let report: Vec<String> = DATATYPES
        .into_iter()
        .map(|datatype| {
            let message = request(vec![input(datatype, &[2], Some(contents.clone()))], &[]);
            match data(message) {
                Ok(bytes) => format!("{datatype}: {}", hex::encode(bytes)),
                Err(problem) => format!("{datatype}: {problem}"),
            }
        })
        .collect();
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn bad_messages_say_what_is_wrong() {
    let ints = |values: &[u32]| {
        Some(InferTensorContents { uint_contents: values.to_vec(), ..Default::default() })
    };
    let mut region = input("FP32", &[1], None);
    region
        .parameters
        .insert("shared_memory_region".into(), parameter(ParameterChoice::StringParam("r".into())));
    let mut unknown = request(vec![input("UINT8", &[1], ints(&[1]))], &[]);
    unknown.parameters.insert("nonsense".into(), parameter(ParameterChoice::Int64Param(7)));
    let mut nameless = request(vec![], &[]);
    nameless.model_name.clear();
    let cases = [
        request(vec![], &[]),
        request(vec![input("UINT8", &[1], None)], &[]),
        request(vec![input("UINT8", &[1], None)], &[b"a", b"b"]),
        request(vec![input("UINT8", &[1], ints(&[1]))], &[b"a"]),
        request(vec![input("UINT8", &[2], None)], &[b"a"]),
        request(vec![input("UINT8", &[2], ints(&[1]))], &[]),
        request(vec![input("UINT8", &[1], ints(&[256]))], &[]),
        request(vec![input("FP32", &[99_999_999_999], ints(&[]))], &[]),
        request(vec![region], &[b"abcd"]),
        request(vec![input("UINT8", &[1], None); 10_000], &[]),
        unknown,
        nameless,
    ];
    let report = cases.map(|message| match data(message) {
        Ok(bytes) => format!("{bytes:?}"),
        Err(e) => format!("{}: {e}", e.code.as_str()),
    });
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn options_are_the_same_as_over_http() {
    let mut message = request(vec![input("UINT8", &[1], None)], &[b"a"]);
    message.model_version = "3".into();
    message.id = "7".into();
    for (key, choice) in [
        ("timeout", ParameterChoice::Int64Param(1500)),
        ("priority", ParameterChoice::Uint64Param(300)),
        ("placement", ParameterChoice::StringParam("edge".into())),
    ] {
        message.parameters.insert(key.into(), parameter(choice));
    }
    let mut output = InferRequestedOutputTensor { name: "y".into(), ..Default::default() };
    output.parameters.insert("classification".into(), parameter(ParameterChoice::Int64Param(2)));
    message.outputs.push(output);
    let parsed = parse_request(message.clone(), None).unwrap();
    assert_eq!((parsed.request.deadline_ms, parsed.request.priority), (Some(2), 255));
    assert_eq!((parsed.request.hint, parsed.form.classes("y")), (PlacementHint::Edge, Some(2)));
    assert_eq!(parsed.request.version.map(Version::get), Some(3));
    let sooner = parse_request(message, Some(Duration::from_micros(1900))).unwrap();
    assert_eq!(sooner.request.deadline_ms, Some(1), "the earlier of the two");
}

#[test]
fn timeouts_of_calls() {
    for (text, expected) in [
        ("1H", Some(3_600_000)),
        ("2M", Some(120_000)),
        ("5S", Some(5000)),
        ("99999999m", Some(99_999_999)),
        ("1500u", Some(1)),
        ("5000000n", Some(5)),
        ("100000000m", None),
        ("m", None),
        ("", None),
        ("-1S", None),
        ("5ü", None),
        ("5s", None),
    ] {
        let parsed = parse_timeout(text).map(|d| d.as_millis());
        assert_eq!(parsed, expected, "{text}");
    }
}

#[test]
fn answers_carry_their_verdict_and_raw_outputs() {
    let message = render_response(response(1.0));
    assert_eq!(message.raw_output_contents, [vec![0, 0, 128, 63, 205, 204, 204, 61]]);
    insta::assert_debug_snapshot!((&message.parameters, &message.outputs));
    let problem = Problem::new(ProblemCode::Overloaded, "full");
    let failed = stream_response("9".into(), true, Err(problem));
    assert_eq!(failed.error_message, "full");
    let inside = failed.infer_response.unwrap();
    assert_eq!((inside.id.as_str(), inside.parameters.len()), ("9", 1));
}
