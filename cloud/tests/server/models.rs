//! From a push to an answer.

use bytes::Bytes;
use link::connection::Connection;
use link::frames::{self, LinkError};
use outrigger_cloud::serving::settings::AdmissionSettings;
use protocol::id::{ContentHash, Variant, Version};
use protocol::infer::InferRequest;
use protocol::manifest::{SignedManifest, SigningKey};
use protocol::problem::ProblemCode;
use protocol::transport::Parcel;
use protocol::wire;
use serde_json::{Value, json};
use std::time::Duration;

use crate::support::{
    MODEL, bearer, bundle, hello, infer, request, signing_key, start, start_gated, start_narrow,
};

#[test]
fn a_push_is_checked_from_all_sides() {
    let cloud = start();
    let edge = bundle(1, Variant::Edge, MODEL);
    let good = |answer: (u16, Value)| (answer.0, answer.1["added"].as_bool());
    let bad = |answer: (u16, Value)| (answer.0, answer.1["code"].as_str().unwrap().to_owned());
    let refused = |status: u16, code: &str| (status, code.to_owned());

    let path = format!("/v1/blobs/{}", ContentHash::of(b"announced"));
    let altered = cloud.call(Some(&bearer(&cloud.admin)), "PUT", &path, b"sent");
    assert_eq!(bad(altered), refused(422, "hash_mismatch"));
    assert_eq!(cloud.admin("HEAD", &path, &Value::Null).0, 404);

    let push = |bundle, key: &SigningKey| cloud.push_manifest(bundle, key);
    assert_eq!(bad(push(&edge, &signing_key())), refused(422, "untrusted_signer"));
    cloud.trust_signer();
    assert_eq!(bad(push(&edge, &signing_key())), refused(422, "missing_blobs"));
    cloud.push_files(&edge);
    assert_eq!(good(push(&edge, &signing_key())), (201, Some(true)));
    assert_eq!(good(push(&edge, &signing_key())), (200, Some(false)));

    let mut forged =
        SignedManifest::from_json(&signing_key().sign(&edge.manifest).to_json()).unwrap();
    forged.manifest = forged.manifest.replace("\"version\":1", "\"version\":2");
    let forged = cloud.call(Some(&bearer(&cloud.admin)), "POST", "/v1/models", &forged.to_json());
    assert_eq!(bad(forged), refused(422, "forged_signature"));

    let changed = bundle(1, Variant::Edge, "fake\n");
    assert_eq!(bad(cloud.push(&changed)), refused(409, "version_not_newer"));
    let broken = bundle(1, Variant::Cloud, "this is no model");
    assert_eq!(bad(cloud.push(&broken)), refused(422, "unusable_model"));
    let wrong = bundle(1, Variant::Cloud, &MODEL.replace("scale 2", "scale 3"));
    assert_eq!(bad(cloud.push(&wrong)), refused(422, "unusable_model"));
    assert_eq!(good(cloud.push(&bundle(1, Variant::Cloud, MODEL))), (201, Some(true)));
    let (_, list) = cloud.admin("GET", "/v1/models", &Value::Null);
    assert_eq!(list["models"].as_array().unwrap().len(), 2);
}

#[test]
fn an_assignment_reaches_the_device_at_once() {
    let cloud = start();
    let edge = bundle(1, Variant::Edge, MODEL);
    cloud.push(&bundle(1, Variant::Cloud, MODEL));
    cloud.push(&edge);
    let device = cloud.device();
    let connection = cloud.agent(&device);
    let (desired, mut control) = cloud.runtime.block_on(hello(&connection)).unwrap();
    assert!(desired.models.is_empty());
    let hash = ContentHash::of(&edge.files[0]);
    assert_eq!(blob(&cloud.runtime, &connection, hash, 0).unwrap_err(), ProblemCode::NotFound);

    let assigned = json!({ "model": "m", "version": 1, "device": device.id });
    assert_eq!(cloud.admin("PUT", "/v1/assignments", &assigned).0, 200);
    let pushed = frames::receive::<wire::DesiredState>(&mut control.recv);
    let pushed = cloud.runtime.block_on(pushed).unwrap();
    assert!(pushed.revision > desired.revision);
    let model = &pushed.models[0];
    assert_eq!((model.name.as_str(), model.version, model.cloud_variant), ("m", 1, true));
    let signed = SignedManifest::from_json(&model.signed_manifest).unwrap();
    assert_eq!(signed.verify(&[signing_key().public()]).unwrap(), edge.manifest);

    let blob = |hash, offset| blob(&cloud.runtime, &connection, hash, offset);
    assert_eq!(blob(hash, 0).unwrap(), edge.files[0]);
    assert_eq!(blob(hash, 5).unwrap(), edge.files[0].slice(5..));
    assert_eq!(blob(hash, 5000).unwrap_err(), ProblemCode::InvalidRequest);
    assert_eq!(blob(ContentHash::of(b"other"), 0).unwrap_err(), ProblemCode::NotFound);

    let model = wire::ReportedModel {
        name: "m".into(),
        active_version: 1,
        phase: "active".into(),
        ..Default::default()
    };
    let report = wire::ReportedState { models: vec![model], ..Default::default() };
    cloud.runtime.block_on(frames::send(&mut control.send, &report)).unwrap();
    control.send.finish().unwrap();
    let _ = cloud.runtime.block_on(control.recv.read_to_end(0)); // ends once the report was kept
    let (_, body) = cloud.admin("GET", "/v1/devices", &Value::Null);
    let device = &body["devices"][0];
    assert_eq!(device["reported"][0]["active_version"], 1);
    assert_eq!((&device["online"], &device["desired"][0]["version"]), (&json!(true), &json!(1)));
}

fn blob(
    runtime: &tokio::runtime::Runtime,
    connection: &Connection,
    hash: ContentHash,
    offset: u64,
) -> Result<Bytes, ProblemCode> {
    let request = wire::BlobRequest { sha256: hash.to_string(), offset, ..Default::default() };
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await?;
        frames::send(&mut send, &request).await?;
        let header: wire::BlobHeader = frames::receive(&mut recv).await?;
        let size = header.size_bytes - header.offset;
        Ok(frames::receive_raw(&mut recv, &[size]).await?.remove(0))
    };
    runtime.block_on(exchange).map_err(|error: LinkError| error.into_problem().code)
}

#[test]
fn a_request_is_answered_by_exactly_its_version() {
    let cloud = start();
    cloud.push(&bundle(1, Variant::Cloud, MODEL));
    let connection = cloud.agent(&cloud.device_with_model());
    let ask = |request: &InferRequest, version, deadline_ms| {
        cloud.runtime.block_on(infer(&connection, request, version, deadline_ms))
    };
    let (reply, outputs) = ask(&request(&[0.0, 4.0, 0.0]), 1, 5000).unwrap();
    assert_eq!(outputs[0].to_f32().unwrap(), [0.0, 8.0, 0.0]);
    assert_eq!(reply.label, "b");
    assert!(reply.confidence > Some(0.99), "{:?}", reply.confidence);

    let mut wrong = request(&[0.0; 3]);
    wrong.outputs = vec!["nothing".into()];
    for (request, version, expected) in
        [(&request(&[0.0; 3]), 2, ProblemCode::NotFound), (&wrong, 1, ProblemCode::InvalidRequest)]
    {
        let problem = ask(request, version, 5000).unwrap_err().into_problem();
        assert_eq!(problem.code, expected, "{problem}");
    }
    let mut other = request(&[0.0; 3]);
    other.model = "other".parse().unwrap();
    let problem = ask(&other, 1, 5000).unwrap_err().into_problem();
    assert_eq!(problem.code, ProblemCode::Unauthorised, "only what is assigned: {problem}");
    let bounded = json!({ "models": ["x*"] });
    assert_eq!(cloud.admin("PUT", "/v1/tenants/default", &bounded).0, 200);
    let problem = ask(&request(&[0.0; 3]), 1, 5000).unwrap_err().into_problem();
    assert_eq!(problem.code, ProblemCode::Unauthorised, "only what the tenant may: {problem}");
    let counts = cloud.server.cloud().events.counts();
    assert_eq!((counts.requests, counts.requests_answered), (5, 1));
}

#[test]
fn a_late_or_cancelled_request_gives_its_place_back() {
    let (cloud, gate) = start_gated();
    // The push itself runs the probes, once per bundle: let them through at a later time.
    let opener = gate.clone();
    let pushed = std::thread::scope(|scope| {
        scope.spawn(move || {
            opener.wait_for(1);
            opener.open();
        });
        cloud.push(&bundle(1, Variant::Cloud, &format!("{MODEL}\ndelay_ms 300")))
    });
    assert_eq!(pushed.0, 201);
    let connection = cloud.agent(&cloud.device_with_model());
    let late = cloud.runtime.block_on(infer(&connection, &request(&[0.0; 3]), 1, 50));
    assert_eq!(late.unwrap_err().into_problem().code, ProblemCode::DeadlineExceeded);

    cloud.runtime.block_on(async {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let request = request(&[0.0; 3]);
        let open = wire::infer_open(&request, &Parcel::raw(&request.inputs), Version::FIRST, 5000);
        frames::send_last(&mut send, &open, request.inputs.iter().map(|i| i.data().clone()))
            .await
            .unwrap();
        let events = &cloud.server.cloud().events;
        until(|| events.counts().requests == 2).await;
        recv.stop(ProblemCode::None);
        send.reset(ProblemCode::None);
        until(|| events.counts().requests_cancelled == 1).await;
    });
    assert_eq!(cloud.server.cloud().in_flight.count(), 0);
}

/// A deferral whose agent has answered by itself costs the cloud no run: the reset of its stream
/// finds it in the queue of the model.
#[test]
fn a_cancelled_request_never_runs() {
    let (cloud, gate) = start_narrow(AdmissionSettings::default());
    gate.open(); // for the probes
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, MODEL)).0, 201);
    let connection = cloud.agent(&cloud.device_with_model());
    let ask = || {
        let connection = connection.clone();
        async move { infer(&connection, &request(&[0.0; 3]), 1, 60_000).await.unwrap() }
    };
    cloud.runtime.block_on(ask()); // it is loaded
    let before = gate.arrivals();
    gate.close();
    let running = cloud.runtime.spawn(ask());
    gate.wait_for(before + 1);
    cloud.runtime.block_on(async {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let request = request(&[0.0; 3]);
        let open =
            wire::infer_open(&request, &Parcel::raw(&request.inputs), Version::FIRST, 60_000);
        let raw = request.inputs.iter().map(|i| i.data().clone());
        frames::send_last(&mut send, &open, raw).await.unwrap();
        let events = &cloud.server.cloud().events;
        until(|| events.counts().requests == 3).await;
        recv.stop(ProblemCode::None);
        send.reset(ProblemCode::None);
        until(|| events.counts().requests_cancelled == 1).await;
    });
    gate.open();
    cloud.runtime.block_on(running).unwrap();
    cloud.runtime.block_on(ask()); // behind it: when this is answered, it was passed over
    assert_eq!(gate.arrivals(), before + 2);
}

/// What a device sends packed is unpacked before it reaches the model, and what cannot have been packed
/// is refused with its reason.
#[test]
fn packed_inputs_reach_the_model_as_numbers() {
    let (cloud, gate) = start_gated();
    gate.open();
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, MODEL)).0, 201);
    let connection = cloud.agent(&cloud.device_with_model());
    let halves = |bits: [u16; 3]| Bytes::from(bits.map(u16::to_le_bytes).concat());
    let ask = |transport: wire::Transport, sent: Bytes| {
        let connection = connection.clone();
        cloud.runtime.block_on(async move {
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            let request = request(&[0.0; 3]);
            let raw = Parcel::raw(&request.inputs);
            let open = wire::InferOpen {
                tensor_sizes: vec![sent.len() as u64],
                transports: vec![transport.into()],
                ..wire::infer_open(&request, &raw, Version::FIRST, 5000)
            };
            let _ = frames::send_last(&mut send, &open, [sent]).await;
            let reply: wire::InferReply = frames::receive(&mut recv).await?;
            let pending = wire::PendingReply::from_reply(reply).unwrap();
            let data = frames::receive_raw(&mut recv, &pending.tensor_sizes).await?;
            Ok::<_, LinkError>(pending.with_data(data).unwrap()[0].to_f32().unwrap())
        })
    };
    let [one, two, nan] = [0x3c00, 0x4000, 0x7e00];
    let logits = ask(wire::Transport::Float16, halves([one, two, one])).unwrap();
    assert_eq!(logits, [2.0, 4.0, 2.0]);
    let item = |scale: f32| [&[0; 4][..], &scale.to_le_bytes(), &[1, 2, 0]].concat().into();
    assert_eq!(ask(wire::Transport::Int8, item(0.5)).unwrap(), [1.0, 2.0, 0.0]);
    for (transport, sent, words) in [
        (
            wire::Transport::Float16,
            halves([one, nan, one]),
            "element 1 of input \"x\" is no number",
        ),
        (
            wire::Transport::Float16,
            Bytes::from_static(&[0; 5]),
            "needs 6 bytes as float16 but carries 5",
        ),
        (wire::Transport::Int8, item(f32::INFINITY), "has an offset or a scale that is no number"),
    ] {
        let problem = ask(transport, sent).unwrap_err().into_problem();
        assert_eq!(problem.code, ProblemCode::Protocol);
        assert!(problem.to_string().contains(words), "{problem}");
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn a_stopping_server_answers_what_is_in_flight() {
    let (cloud, gate) = start_gated();
    gate.open();
    let slow = format!("{MODEL}\ndelay_ms 200");
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, &slow)).0, 201);
    let connection = cloud.agent(&cloud.device_with_model());
    let before = gate.arrived(); // at load
    let running = {
        let connection = connection.clone();
        cloud
            .runtime
            .spawn(async move { infer(&connection, &request(&[1.0, 0.0, 0.0]), 1, 5000).await })
    };
    gate.wait_for(before + 1);
    let listening = cloud.folder.path().join("listening");
    cloud.runtime.block_on(cloud.server.stop());
    let (reply, _) = cloud.runtime.block_on(running).unwrap().unwrap();
    assert_eq!(reply.label, "a");
    let ended = cloud.runtime.block_on(connection.closed());
    assert!(ended.to_string().contains("stopping"), "{ended}");
    assert!(!listening.exists());
}
