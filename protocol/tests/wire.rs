//! Golden bytes of the frames, round trips over generated messages, and hostile frames.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers beside the tests

use bytes::Bytes;
use outrigger_protocol::codec::{
    CodecError, FRAME_HEADER_BYTES, FrameHeader, FrameKind, decode, encode,
};
use outrigger_protocol::id::Version;
use outrigger_protocol::infer::{
    InferRequest, InferResponse, Placement, PlacementHint, Reason, Timing, Verdict,
};
use outrigger_protocol::question::What;
use outrigger_protocol::tensor::{DataType, Tensor, TensorMeta};
use outrigger_protocol::trace::TraceContext;
use outrigger_protocol::transport::{Allowance, Allowances, Parcel, Transport};
use outrigger_protocol::wire::{self, PendingReply, PendingRequest};
use proptest::prelude::*;
use prost::Message as _;

fn header_of(frame: &[u8]) -> Result<FrameHeader, CodecError> {
    FrameHeader::decode(frame[..FRAME_HEADER_BYTES].try_into().unwrap())
}

fn request(inputs: Vec<Tensor>) -> InferRequest {
    InferRequest {
        model: "fashion".parse().unwrap(),
        version: Some(Version::FIRST),
        id: "42".into(),
        inputs,
        outputs: vec!["logits".into()],
        deadline_ms: Some(250),
        priority: 7,
        hint: PlacementHint::Cloud,
        sequence: None,
    }
}

#[test]
fn golden_frames() {
    let image = Tensor::from_f32("image", vec![1, 2], &[0.5, 1.0]).unwrap();
    let frames = [
        encode(&wire::infer_open(
            &request(vec![image.clone()]),
            &Parcel::raw(&[image]),
            Version::FIRST,
            250,
        )),
        encode(&wire::BlobRequest { sha256: "ab".into(), offset: 300, ..Default::default() }),
        encode(&wire::Problem {
            code: 6,
            message: "full".into(),
            retry_after_ms: 20,
            ..Default::default()
        }),
        encode(&wire::Hello { agent_version: "0.1.0".into(), ..Default::default() }),
    ];
    let text: Vec<String> = frames.into_iter().map(|f| hex::encode(f.unwrap())).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn golden_frames_of_nodes() {
    let nodes = vec![wire::InferenceNode { id: "n-1".into(), address: "10.0.0.1:8443".into() }];
    let frames = [
        encode(&wire::DesiredState { revision: 3, nodes, nodes_only: true, ..Default::default() }),
        encode(&wire::Pulse {}),
        encode(&wire::NodeState { wait_us: 300, draining: true, patience_ms: 180_000 }),
        encode(&wire::NodeHello { version: "0.1.0".into(), cursor: 7, ..Default::default() }),
        encode(&wire::NodeReport { requests_under_way: 2, ..Default::default() }),
        encode(&wire::NodeUsageTaken { batch: 9 }),
    ];
    let text: Vec<String> = frames.into_iter().map(|f| hex::encode(f.unwrap())).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn golden_frames_of_telemetry() {
    let sha256 = Bytes::from_static(&[7; 32]);
    let segment =
        wire::TelemetrySegment { segment: 3, size_bytes: 300, sha256, ..Default::default() };
    let want = wire::TelemetryWant { segment: 3, offset: 200 };
    let analytics_key = Bytes::from_static(b"{}");
    let frames = [
        encode(&wire::DesiredState {
            revision: 3,
            analytics_key,
            takes_telemetry: true,
            ..Default::default()
        }),
        encode(&wire::TelemetryOffer { segments: vec![segment] }),
        encode(&wire::TelemetryWanted { wants: vec![want], taken: vec![1], ..Default::default() }),
        encode(&wire::TelemetryTaken { taken: vec![3], refused: vec![4], retry_after_ms: 20 }),
    ];
    let text: Vec<String> = frames.into_iter().map(|f| hex::encode(f.unwrap())).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn without_nodes_the_desired_state_is_what_older_programs_send_and_read() {
    let older = encode(&wire::DesiredState { revision: 3, ..Default::default() }).unwrap();
    assert_eq!(hex::encode(&older), "03020000000803");
    let read: wire::DesiredState =
        decode(header_of(&older).unwrap(), older.freeze().slice(5..)).unwrap();
    assert!(read.nodes.is_empty() && !read.nodes_only);
}

#[test]
fn golden_frames_of_the_repository() {
    let name = "timestamp.json".to_owned();
    let frames = [
        encode(&wire::MetadataRequest { name }),
        encode(&wire::MetadataHeader { found: true, size_bytes: 300 }),
        encode(&wire::MetadataHeader::default()),
    ];
    let text = frames.map(|frame| hex::encode(frame.unwrap()));
    assert_eq!(
        text,
        ["14100000000a0e74696d657374616d702e6a736f6e", "1505000000080110ac02", "1500000000"]
    );
}

#[test]
fn golden_frames_of_roll_outs() {
    let watch = Some(wire::Watch { models: vec!["m".into()], every_s: 5, calls_per_check: 20 });
    let evidence = wire::ModelEvidence {
        name: "m".into(),
        version: 2,
        life: 3,
        requests: 300,
        errors: 1,
        deferred: 2,
        checked: 3,
        disagreed: 1,
        judged: 298,
        confidence_micros: 290_000_000,
        runs: vec![0, 298],
        not_numbers: 1,
        crashes: 1,
        provider: "cpu".into(),
    };
    let inventory = Some(wire::Inventory {
        cpu_features: vec!["avx2".into()],
        cores: 2,
        memory_bytes: 300,
        ..Default::default()
    });
    let frames = [
        encode(&wire::DesiredState { revision: 3, watch, ..Default::default() }),
        encode(&wire::ReportedState { inventory, ..Default::default() }),
        encode(&wire::Evidence { models: vec![evidence] }),
    ];
    let text = frames.map(|frame| hex::encode(frame.unwrap()));
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn golden_frames_of_questions() {
    let questions = vec![What::Logs { lines: 20, since_s: 60 }.to_wire("q-1")];
    let text = "a line\n".to_owned();
    let frames = [
        encode(&wire::DesiredState { revision: 3, questions, ..Default::default() }),
        encode(&wire::DeviceAnswer { id: "q-1".into(), text, left_out: 7, ..Default::default() }),
        encode(&wire::DeviceAnswer {
            id: "q-1".into(),
            refused: "forbidden".into(),
            why: "no".into(),
            ..Default::default()
        }),
    ];
    let text = frames.map(|frame| hex::encode(frame.unwrap()));
    assert_eq!(
        text,
        [
            "03130000000803620f0a03712d3112046c6f67731814203c",
            "1c100000000a03712d31120761206c696e650a1807",
            "1c140000000a03712d312209666f7262696464656e2a026e6f",
        ]
    );
}

#[test]
fn peers_ride_along_and_older_programs_see_nothing_of_them() {
    let address = "10.0.0.2:8444".to_owned();
    let peer = wire::Peer { device: "d-2".into(), address: address.clone() };
    let desired = wire::DesiredState { revision: 3, peers: vec![peer], ..Default::default() };
    let offer = wire::PeerOffer { site: "hall".into(), address };
    let reported = wire::ReportedState { peer: Some(offer), ..Default::default() };
    let text = [encode(&desired), encode(&reported)].map(|frame| hex::encode(frame.unwrap()));
    let address = "120d31302e302e302e323a38343434";
    assert_eq!(text[0], format!("031800000008034a140a03642d32{address}"));
    assert_eq!(text[1], format!("021700000022150a0468616c6c{address}"));
}

#[test]
fn a_trace_and_background_ride_along_and_older_programs_see_nothing_of_them() {
    let plain = wire::infer_open(&request(Vec::new()), &Parcel::default(), Version::FIRST, 250);
    let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = TraceContext::from_headers([&parent[..]], [&b"a=1"[..]]).unwrap();
    let traced =
        wire::InferOpen { trace: Some(trace.to_wire()), background: true, ..plain.clone() };
    let frame = encode(&traced).unwrap().freeze();
    insta::assert_snapshot!(hex::encode(&frame));
    let pending = PendingRequest::from_open(traced.clone()).unwrap();
    assert_eq!((&pending.trace, pending.background), (&Some(trace), true));
    // What is behind the fields of old is skipped by whoever does not know it.
    let older = encode(&plain).unwrap();
    assert_eq!(frame[5..older.len()], older[5..]);
    let read = OlderOpen::decode(frame.slice(5..)).unwrap();
    assert_eq!((read.deadline_ms, read.priority), (250, 7));
    let garbled = wire::TraceContext { span_id: Bytes::from_static(b"short"), ..trace_of(&traced) };
    let garbled = wire::InferOpen { trace: Some(garbled), ..traced };
    assert_eq!(PendingRequest::from_open(garbled).unwrap().trace, None, "no reason to refuse");
}

fn floats() -> Tensor {
    Tensor::from_f32("image", vec![1, 16], &[0.0, 0.5, 1.0, 0.25].repeat(4)).unwrap()
}

/// A request that travels in this form, and what follows its header.
fn packed(transport: Transport) -> (wire::InferOpen, Vec<Bytes>) {
    let allowed = Allowances::from([("image".into(), Allowance { transport, extent_max: 1.0 })]);
    let parcel = Parcel::packed(&[floats()], &allowed);
    let open = wire::infer_open(&request(vec![floats()]), &parcel, Version::FIRST, 250);
    (open, parcel.pieces().collect())
}

#[test]
fn packed_inputs_arrive_as_what_they_were_and_raw_ones_say_nothing_new() {
    let (raw, _) = packed(Transport::Raw);
    let plain =
        wire::infer_open(&request(vec![floats()]), &Parcel::raw(&[floats()]), Version::FIRST, 250);
    assert_eq!(raw, plain);
    let mut frames = Vec::new();
    for transport in [Transport::Float16, Transport::Int8] {
        let (open, pieces) = packed(transport);
        frames.push(hex::encode(encode(&open).unwrap()));
        let pending = PendingRequest::from_open(open).unwrap();
        assert!(pending.is_packed());
        assert_eq!((pending.tensor_sizes[0] as usize, pending.held_bytes()), (pieces[0].len(), 64));
        let arrived = pending.with_data(pieces).unwrap().inputs.remove(0);
        let (sent, got) = (floats().to_f32().unwrap(), arrived.to_f32().unwrap());
        assert!(sent.iter().zip(&got).all(|(a, b)| (a - b).abs() < 0.002), "{transport}: {got:?}");
    }
    insta::assert_snapshot!(frames.join("\n"));
}

#[test]
fn what_a_device_is_told_of_transports_is_skipped_by_older_ones() {
    let allowed = Allowances::from([(
        "image".into(),
        Allowance { transport: Transport::Int8, extent_max: 1.5 },
    )]);
    let mut told = wire::input_transports(&allowed);
    assert_eq!(wire::allowances(&told), allowed);
    let model = wire::DesiredModel { name: "m".into(), version: 3, ..Default::default() };
    let older = model.encode_to_vec();
    let newer = wire::DesiredModel { transports: told.clone(), ..model }.encode_to_vec();
    assert_eq!(newer[..older.len()], older);
    assert_eq!(hex::encode(&newer[older.len()..]), "2a0e0a05696d61676510021d0000c03f");
    // A form that comes later than this build.
    told.push(wire::InputTransport { input: "y".into(), transport: 9, extent_max: 1.0 });
    assert_eq!(wire::allowances(&told), allowed);
}

#[test]
fn forms_that_do_not_fit_are_refused_before_a_byte_is_read() {
    let (open, _) = packed(Transport::Int8);
    let refused = |open: wire::InferOpen| PendingRequest::from_open(open).unwrap_err().to_string();
    let check = |open: wire::InferOpen, words: &str| {
        let said = refused(open);
        assert!(said.contains(words), "{said}");
    };
    check(wire::InferOpen { transports: vec![9], ..open.clone() }, "form (9) that is unknown here");
    check(wire::InferOpen { transports: vec![1, 1], ..open.clone() }, "2 forms for 1 inputs");
    check(
        wire::InferOpen { transports: vec![1], ..open.clone() },
        "32 bytes as float16 but carries 24",
    );
    check(wire::InferOpen { transports: vec![], ..open.clone() }, "needs 64 bytes but carries 24");
    let bytes = Tensor::from_byte_strings("image", vec![1], &[b"x"]).unwrap();
    let parcel = Parcel::raw(std::slice::from_ref(&bytes));
    let text = wire::infer_open(&request(vec![bytes]), &parcel, Version::FIRST, 250);
    check(wire::InferOpen { transports: vec![2], ..text }, "only FP32 travels as int8");
    // Sixteen times 16 MiB of halves are little to send and too much to hold.
    let mut many = packed(Transport::Int8).0;
    let request = many.request.as_mut().unwrap();
    request.inputs[0].shape = vec![1, 4 << 20];
    request.inputs = vec![request.inputs[0].clone(); 6];
    many.tensor_sizes = vec![(4 << 20) + 8; 6];
    many.transports = vec![2; 6];
    check(many, "at most 67108864 are served");
}

fn trace_of(open: &wire::InferOpen) -> wire::TraceContext {
    open.trace.clone().unwrap()
}

/// The header of a request as programs knew it before there were traces.
#[derive(Clone, PartialEq, prost::Message)]
struct OlderOpen {
    #[prost(uint32, tag = "3")]
    deadline_ms: u32,
    #[prost(uint32, tag = "4")]
    priority: u32,
}

#[test]
fn lengths_are_bounded_by_kind() {
    for kind in [FrameKind::Hello, FrameKind::InferOpen, FrameKind::EnrolRequest] {
        let mut bytes = [kind as u8, 0, 0, 0, 0];
        bytes[1..].copy_from_slice(&kind.max_bytes().to_le_bytes());
        assert!(FrameHeader::decode(bytes).is_ok());
        bytes[1..].copy_from_slice(&(kind.max_bytes() + 1).to_le_bytes());
        assert!(matches!(FrameHeader::decode(bytes), Err(CodecError::TooLong { .. })));
    }
    let huge = wire::Problem { message: "x".repeat(70_000), ..Default::default() };
    assert!(matches!(encode(&huge), Err(CodecError::TooLong { .. })));
}

#[test]
fn a_frame_out_of_place_is_named() {
    let frame = encode(&wire::BlobHeader { size_bytes: 1, ..Default::default() }).unwrap().freeze();
    let error = decode::<wire::Hello>(header_of(&frame).unwrap(), frame.slice(5..)).unwrap_err();
    assert_eq!(error.to_string(), "expected a Hello frame, got BlobHeader");
}

fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
    let tensor = (0usize..14, prop::collection::vec(0i64..5, 0..4)).prop_map(|(kind, shape)| {
        let names = ["BOOL", "UINT8", "INT64", "FP16", "FP32", "FP64", "BYTES"];
        let datatype: DataType = names[kind % names.len()].parse().unwrap();
        let meta = TensorMeta::new("t", datatype, shape).unwrap();
        let len = meta.size_bytes().unwrap_or(meta.elements() * 4); // empty strings for BYTES
        Tensor::new(meta, vec![0; len as usize].into()).unwrap()
    });
    prop::collection::vec(tensor, 1..4)
}

fn response(outputs: Vec<Tensor>) -> InferResponse {
    let verdict = Verdict {
        placement: Placement::Cloud,
        reason: Reason::Requested,
        plan: None,
        version: Version::FIRST,
        confidence: Some(0.5),
        risk: None,
        label: None,
        timing: Timing::default(),
        attempts: 1,
        saved_bytes: 0,
    };
    InferResponse { model: "m".parse().unwrap(), id: "1".into(), outputs, verdict }
}

proptest! {
    #[test]
    fn requests_round_trip(inputs in tensors(), deadline_ms in 0u32..600_000) {
        let mut sent = request(inputs);
        sent.deadline_ms = Some(deadline_ms);
        let frame = encode(&wire::infer_open(&sent, &Parcel::raw(&sent.inputs), Version::FIRST, deadline_ms)).unwrap().freeze();
        let open = decode(header_of(&frame).unwrap(), frame.slice(5..)).unwrap();
        let pending = PendingRequest::from_open(open).unwrap();
        let data = sent.inputs.iter().map(|t| t.data().clone()).collect();
        prop_assert_eq!(pending.with_data(data).unwrap(), sent);
    }

    #[test]
    fn replies_round_trip(outputs in tensors()) {
        let reply = wire::infer_reply(&response(outputs.clone()));
        let frame = encode(&reply).unwrap().freeze();
        let reply = decode(header_of(&frame).unwrap(), frame.slice(5..)).unwrap();
        let pending = PendingReply::from_reply(reply).unwrap();
        let data = outputs.iter().map(|t| t.data().clone()).collect();
        prop_assert_eq!(pending.with_data(data).unwrap(), outputs);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 5..200)) {
        if let Ok(header) = header_of(&bytes) {
            let body = Bytes::from(bytes[5..].to_vec());
            if let Ok(open) = decode::<wire::InferOpen>(header, body.clone()) {
                let _ = PendingRequest::from_open(open);
            }
            if let Ok(reply) = decode::<wire::InferReply>(header, body) {
                let _ = PendingReply::from_reply(reply);
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_a_header_is_refused_or_changes_the_request(position in 0usize..60, bit in 0u8..8) {
        let image = Tensor::from_f32("image", vec![1, 2], &[0.5, 1.0]).unwrap();
        let frame = encode(&wire::infer_open(&request(vec![image.clone()]), &Parcel::raw(&[image]), Version::FIRST, 250)).unwrap();
        let mut body = frame[5..].to_vec();
        let position = position % body.len();
        body[position] ^= 1 << bit;
        let header = FrameHeader { kind: FrameKind::InferOpen, len: body.len() as u32 };
        if let Ok(open) = decode::<wire::InferOpen>(header, body.into())
            && let Ok(pending) = PendingRequest::from_open(open) {
            prop_assert!(pending.tensor_sizes.iter().sum::<u64>() <= 64 << 20);
        }
    }
}
