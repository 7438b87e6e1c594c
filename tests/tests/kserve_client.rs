//! KServe's own Python clients, REST and gRPC.
#![allow(clippy::unwrap_used)]

use outrigger_tests::foreign::check;

#[test]
fn over_http_and_grpc() {
    let packages = ["kserve==0.21.0", "onnxruntime==1.31.1", "numpy"];
    check(&packages, "kserve_client.py", |agent| {
        [agent.address().to_string(), agent.grpc_address().to_string()]
    })
    .unwrap();
}
