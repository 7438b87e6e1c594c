//! Programs of a released version and of this one understand each other: what they said, byte by byte, is
//! read as what it meant, said again in the same bytes, and no field has changed its number or its kind.
//!
//! `released/VERSION/` is what a version was released with: one frame of each kind (`frames.txt`), and every
//! field of its messages (`fields.txt`). Nothing in there is ever changed; a release adds a folder.
#![allow(clippy::unwrap_used)] // helpers beside the tests
#![allow(clippy::needless_update)] // fields that come later were not in what was said then

use bytes::Bytes;
use outrigger_protocol::codec::{
    FRAME_HEADER_BYTES, FrameHeader, FrameKind, Framed, decode, encode,
};
use outrigger_protocol::wire;
use outrigger_protocol::wire::inference;
use prost_types::DescriptorProto;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn released() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/released")
}

/// The frames of a version, by the name of their kind.
fn frames(version: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(released().join(version).join("frames.txt")).unwrap();
    let pair = |line: &str| line.split_once(' ').map(|(kind, hex)| (kind.into(), hex.into()));
    text.lines().filter_map(pair).collect()
}

/// What the frames of 0.1 say.
struct V0_1(BTreeMap<String, String>);

impl V0_1 {
    /// Reads the frame of this message, and writes it anew.
    fn check<M: Framed + PartialEq + std::fmt::Debug>(&mut self, message: &M) {
        let kind = format!("{:?}", M::KIND);
        let golden = self.0.remove(&kind).unwrap_or_else(|| {
            panic!("no frame: {kind} {}", hex::encode(encode(message).unwrap()))
        });
        let bytes = Bytes::from(hex::decode(&golden).unwrap());
        let header = FrameHeader::decode(bytes[..FRAME_HEADER_BYTES].try_into().unwrap()).unwrap();
        let read: M = decode(header, bytes.slice(FRAME_HEADER_BYTES..)).unwrap();
        assert_eq!(read, *message, "{kind}");
        assert_eq!(hex::encode(encode(message).unwrap()), golden, "{kind}");
    }
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn request() -> inference::ModelInferRequest {
    let input = inference::model_infer_request::InferInputTensor {
        name: "image".into(),
        datatype: "FP32".into(),
        shape: vec![1, 2],
        ..Default::default()
    };
    inference::ModelInferRequest {
        model_name: "fashion".into(),
        model_version: "3".into(),
        id: "42".into(),
        inputs: vec![input],
        ..Default::default()
    }
}

#[test]
fn what_0_1_said_means_the_same_today() {
    let mut frames = V0_1(frames("0.1"));
    of_agents(&mut frames);
    of_certificates(&mut frames);
    of_inference(&mut frames);
    of_nodes(&mut frames);
    of_reports(&mut frames);
    assert!(frames.0.is_empty(), "frames that nobody looked at: {:?}", frames.0.keys());
}

fn of_agents(frames: &mut V0_1) {
    let model = wire::ReportedModel {
        name: "fashion".into(),
        active_version: 1,
        active_bundle: "ab".into(),
        target_version: 2,
        phase: "fetching".into(),
        reason: "slow".into(),
        checked: 7,
        disagreed: 0.5,
        alarms: 1,
        ..Default::default()
    };
    let reported = wire::ReportedState {
        models: vec![model],
        carrier_reason: "udp_silent".into(),
        measured: vec![wire::MeasurementReport {
            id: "m".into(),
            report: bytes("{}"),
            ..Default::default()
        }],
        ..Default::default()
    };
    frames.check(&reported);
    frames.check(&wire::Hello {
        agent_version: "0.1.0".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        reported: Some(reported),
        ..Default::default()
    });
    let transport = wire::InputTransport {
        input: "image".into(),
        transport: 2,
        extent_max: 1.5,
        ..Default::default()
    };
    frames.check(&wire::DesiredState {
        revision: 3,
        models: vec![wire::DesiredModel {
            name: "fashion".into(),
            version: 2,
            signed_manifest: bytes("signed"),
            cloud_variant: true,
            transports: vec![transport],
            ..Default::default()
        }],
        nodes: vec![wire::InferenceNode {
            id: "n-1".into(),
            address: "10.0.0.1:8443".into(),
            ..Default::default()
        }],
        nodes_only: true,
        measurements: vec![bytes("order")],
        ..Default::default()
    });
    frames.check(&wire::BlobRequest { sha256: "ab".into(), offset: 300, ..Default::default() });
    frames.check(&wire::BlobHeader { size_bytes: 500, offset: 300, ..Default::default() });
}

fn of_certificates(frames: &mut V0_1) {
    frames.check(&wire::EnrolRequest {
        token_id: "id".into(),
        token_secret: "secret".into(),
        csr: bytes("csr"),
        hostname: "box".into(),
        agent_version: "0.1.0".into(),
        ..Default::default()
    });
    frames.check(&wire::EnrolReply {
        device_id: "d-1".into(),
        certificates: vec![bytes("leaf"), bytes("ca")],
        signer_keys: vec![bytes("key")],
        ..Default::default()
    });
    frames.check(&wire::RenewRequest { agent_version: "0.1.0".into(), ..Default::default() });
    frames.check(&wire::TimeRequest { nonce: bytes("nonce"), ..Default::default() });
    let signature = bytes("signature");
    frames.check(&wire::SignedTime {
        unix_ms: 1_700_000_000_000,
        nonce: bytes("nonce"),
        signature,
        ..Default::default()
    });
}

fn of_inference(frames: &mut V0_1) {
    frames.check(&wire::InferOpen {
        request: Some(request()),
        tensor_sizes: vec![8],
        deadline_ms: 250,
        priority: 3,
        trace: Some(wire::TraceContext {
            trace_id: bytes("0123456789abcdef"),
            span_id: bytes("01234567"),
            flags: 3,
            state: "a=1".into(),
            ..Default::default()
        }),
        background: true,
        transports: vec![1],
        ..Default::default()
    });
    frames.check(&wire::InferReply {
        response: Some(inference::ModelInferResponse {
            model_name: "fashion".into(),
            model_version: "3".into(),
            id: "42".into(),
            ..Default::default()
        }),
        tensor_sizes: vec![40],
        confidence: Some(0.5),
        queue_us: 1,
        infer_us: 2,
        label: "Sandal".into(),
        wait_us: 300,
        ..Default::default()
    });
    frames.check(&wire::Pulse {});
    frames.check(&wire::NodeState { wait_us: 300, draining: true, ..Default::default() });
    let (message, hint) = ("full".into(), "wait".into());
    frames.check(&wire::Problem {
        code: 6,
        message,
        hint,
        retry_after_ms: 20,
        ..Default::default()
    });
}

fn of_nodes(frames: &mut V0_1) {
    frames.check(&wire::NodeHello {
        version: "0.1.0".into(),
        address: "10.0.0.1:8443".into(),
        epoch: bytes("epoch"),
        cursor: 7,
        ..Default::default()
    });
    frames.check(&wire::NodeUpdate {
        epoch: bytes("epoch"),
        cursor: 8,
        fresh: true,
        complete: true,
        keys: vec![wire::NodeKey {
            id: "k".into(),
            digest: bytes("digest"),
            role: "client".into(),
            name: "shop".into(),
            tenant: "default".into(),
            models: "*".into(),
            expires_at_s: Some(9),
            revoked: true,
            ..Default::default()
        }],
        tenants: vec![wire::NodeTenant {
            name: "default".into(),
            models: "*".into(),
            ..Default::default()
        }],
        devices: vec![wire::NodeDevice {
            id: "d-1".into(),
            key_hash: "ab".into(),
            tenant: "default".into(),
            denied: true,
            ..Default::default()
        }],
        assignments: vec![wire::NodeAssignment {
            model: "fashion".into(),
            device: "d-1".into(),
            version: 2,
            ..Default::default()
        }],
        models: vec![wire::NodeModel { signed_manifest: bytes("signed"), ..Default::default() }],
        policies: vec![wire::NodePolicy {
            model: "fashion".into(),
            policy: "all".into(),
            ..Default::default()
        }],
        signers: vec![wire::NodeSigner {
            public_key: bytes("key"),
            name: "me".into(),
            ..Default::default()
        }],
        ..Default::default()
    });
}

fn of_reports(frames: &mut V0_1) {
    frames.check(&wire::NodeReport {
        requests_under_way: 1,
        wait_us: 2,
        devices: 3,
        models: 4,
        models_missing: 5,
        draining: true,
        ready: true,
        ..Default::default()
    });
    frames.check(&wire::NodeUsage {
        batch: 9,
        sums: vec![wire::UsageSum {
            hour_s: 3600,
            tenant: "default".into(),
            caller: "key k".into(),
            model: "fashion".into(),
            requests: 1,
            refused: 2,
            compute_us: 3,
            bytes_in: 4,
            bytes_out: 5,
            ..Default::default()
        }],
        keys_used: vec![wire::KeyUse { id: "k".into(), at_s: 10, ..Default::default() }],
        ..Default::default()
    });
    frames.check(&wire::NodeUsageTaken { batch: 9, ..Default::default() });
}

#[test]
fn a_kind_of_frame_keeps_its_number() {
    for (kind, golden) in frames("0.1") {
        let number = hex::decode(&golden[..2]).unwrap()[0];
        let header = FrameHeader::decode([number, 0, 0, 0, 0]).unwrap();
        assert_eq!(format!("{:?}", header.kind), kind);
    }
    assert_eq!(FrameKind::Problem as u8, 0);
}

/// Every field of the messages of today: its name, and then what it must keep, its number, kind, label, and
/// the message or enumeration in it.
fn fields() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let set = protox::compile([folder.join("outrigger.proto")], [folder]).unwrap();
    let mut all = BTreeMap::new();
    for file in &set.file {
        for message in &file.message_type {
            collect(file.package(), message, &mut all);
        }
    }
    all
}

fn collect(within: &str, message: &DescriptorProto, all: &mut BTreeMap<String, String>) {
    let name = format!("{within}.{}", message.name());
    for field in &message.field {
        let (kind, label) = (field.r#type(), field.label());
        let kept = format!("{} {kind:?} {label:?} {}", field.number(), field.type_name());
        all.insert(format!("{name}.{}", field.name()), kept.trim_end().to_owned());
    }
    message.nested_type.iter().for_each(|nested| collect(&name, nested, all));
}

#[test]
fn no_released_field_has_changed_its_number_or_kind() {
    let today = fields();
    for version in std::fs::read_dir(released()).unwrap().flatten() {
        let text = std::fs::read_to_string(version.path().join("fields.txt")).unwrap();
        let then: BTreeMap<_, _> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        assert!(then.len() > 150, "of {version:?}; today there are: {today:#?}");
        for (name, kept) in &then {
            assert_eq!(today.get(*name).map(String::as_str), Some(*kept), "{name} of {version:?}");
        }
        // A number of then means nothing else now.
        let number = |name: &str, kept: &str| {
            let message = name.rsplit_once('.').map(|(message, _)| message.to_owned());
            (message, kept.split(' ').next().map(str::to_owned))
        };
        let taken: BTreeSet<_> = then.iter().map(|(name, kept)| number(name, kept)).collect();
        let new = today.iter().filter(|(name, _)| !then.contains_key(name.as_str()));
        for (name, kept) in new {
            assert!(!taken.contains(&number(name, kept)), "{name} takes a number of {version:?}");
        }
    }
}
