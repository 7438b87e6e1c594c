//! Models on accelerators: chosen by proof, spread over all devices, and said so.

use models::fake::FakeBackend;
use models::providers::{Order, Provider};
use outrigger_cloud::serving::accelerators::Accelerators;
use protocol::id::Variant;

use crate::support::{Cloud, MODEL, bearer, bundle, start_accelerated};

fn on_two_gpus(lines: &str) -> (Cloud, FakeBackend) {
    let backend = FakeBackend::offering(&[Provider::Cuda]);
    let order = Order::parse(&["tensorrt", "cuda"]).unwrap();
    let cloud = start_accelerated(backend.clone(), Accelerators { order, gpus: vec![0, 1] });
    assert_eq!(cloud.push(&bundle(1, Variant::Cloud, &format!("{MODEL}\n{lines}"))).0, 201);
    (cloud, backend)
}

fn kind(cloud: &Cloud) -> serde_json::Value {
    let key = bearer(&cloud.admin);
    let (status, config) = cloud.call(Some(&key), "GET", "/v2/models/m/config", b"");
    assert_eq!(status, 200, "{config}");
    config["instance_group"][0].clone()
}

#[test]
fn each_device_has_a_session() {
    let (cloud, backend) = on_two_gpus("");
    let group = kind(&cloud);
    assert_eq!((&group["kind"], &group["count"]), (&"KIND_GPU".into(), &2.into()), "{group}");
    let loads = backend.loads();
    let [reference, proof, first, second] = loads.as_slice() else { panic!("{loads:?}") };
    assert_eq!((reference.provider, proof.provider), (Provider::Cpu, Provider::Cuda));
    for (session, device) in [(first, 0), (second, 1)] {
        assert_eq!((session.provider, session.device), (Provider::Cuda, device));
    }
}

#[test]
fn what_computes_something_else_is_not_used() {
    let (cloud, backend) = on_two_gpus("on cuda scale 3");
    assert_eq!(kind(&cloud)["kind"], "KIND_CPU");
    assert!(backend.loads().iter().skip(2).all(|session| session.provider == Provider::Cpu));
}
