//! A build without a kind of pipeline refuses the bundles that need it, and says so.

#![cfg(not(any(feature = "image", feature = "text", feature = "audio")))]
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_models::runner::Pipelines;
use protocol::manifest::Manifest;
use serde_json::json;

fn refusal(steps: &serde_json::Value) -> String {
    let hash = "0".repeat(64);
    let file = json!({ "sha256": hash, "size_bytes": 1 });
    let tensor = json!({ "name": "x", "datatype": "FP32", "shape": [-1, -1] });
    let manifest = json!({
        "format": 1, "model": "m", "version": 1, "variant": "edge",
        "inputs": [tensor], "outputs": [{ "name": "y", "datatype": "FP32", "shape": [-1] }],
        "files": { "model.onnx": file, "probes.pb": file, "tokenizer.json": file },
        "preprocess": [{ "input": "x", "steps": steps }],
        "probes": { "file": "probes.pb", "tolerance": 0.0 },
    });
    let manifest = Manifest::from_json(manifest.to_string().as_bytes()).unwrap();
    Pipelines::new(&manifest, &Default::default(), &[]).unwrap_err().to_string()
}

#[test]
fn bundles_that_need_what_was_left_out_are_refused() {
    for (steps, feature) in [
        (json!([{ "step": "decode", "color": "rgb" }]), "image"),
        (json!([{ "step": "tokenize", "file": "tokenizer.json", "max_tokens": 4 }]), "text"),
        (json!([{ "step": "frame", "size": 4, "context": 0 }]), "audio"),
    ] {
        let refusal = refusal(&steps);
        assert!(refusal.contains(&format!("without the feature {feature:?}")), "{refusal}");
        assert!(refusal.contains("install one that was built with it"), "{refusal}");
    }
}
