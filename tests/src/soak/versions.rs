//! A model of which there are many versions, each with other weights: an answer is right only if it
//! is what that very version says.

use crate::http::HttpClient;
use crate::onnx::perceptron;
use crate::world::World;
use anyhow::{Context, ensure};
use models::backend::{Backend, SessionOptions};
use models::ort_backend::{OrtBackend, find_library};
use protocol::tensor::Tensor;
use serde_json::json;
use std::path::PathBuf;

/// Its name.
pub(super) const MODEL: &str = "changing";

/// One authoring folder and one right answer for each version, from 1.
pub(super) struct Versions {
    folders: Vec<PathBuf>,
    answers: Vec<Vec<u8>>,
    json_len: String,
    body: Vec<u8>,
}

impl Versions {
    /// Makes as many.
    pub(super) fn make(world: &World, count: u64) -> anyhow::Result<Self> {
        let values: Vec<f32> = (0..64u8).map(f32::from).collect();
        let input = Tensor::from_f32("x", vec![1, 64], &values)?;
        let backend = OrtBackend::open(&find_library(None)?)?;
        let (mut folders, mut answers) = (Vec::new(), Vec::new());
        for version in 1..=count {
            let folder = world.folder().join(format!("{MODEL}-{version}"));
            std::fs::create_dir_all(&folder)?;
            let onnx = folder.join("model.onnx");
            std::fs::write(&onnx, perceptron(version))?;
            std::fs::write(folder.join("items.f32"), input.data())?;
            std::fs::write(folder.join("model.toml"), RECIPE)?;
            let outputs = backend.load(&onnx, &SessionOptions::default())?;
            let outputs = { outputs }.run(std::slice::from_ref(&input), &[])?;
            answers.push(outputs.first().context("no output")?.data().to_vec());
            folders.push(folder);
        }
        let head = json!({
            "inputs": [{
                "name": "x", "datatype": "FP32", "shape": [1, 64],
                "parameters": { "binary_data_size": input.data().len() },
            }],
            "parameters": { "binary_data_output": true, "timeout": 30_000_000 },
        });
        let mut body = head.to_string().into_bytes();
        let json_len = body.len().to_string();
        body.extend_from_slice(input.data());
        Ok(Self { folders, answers, json_len, body })
    }

    /// Pushes a version and assigns it to every device.
    pub(super) fn ship(&self, world: &World, version: u64) -> anyhow::Result<()> {
        let folder = &self.folders[usize::try_from(version)? - 1];
        world.operator.run(&["model", "push", &folder.to_string_lossy()])?;
        world.operator.run(&["model", "assign", MODEL, "--all"])?;
        Ok(())
    }

    /// Asks whichever version answers now.
    pub(super) fn ask(&self, client: &mut HttpClient) -> anyhow::Result<()> {
        let headers = [("Inference-Header-Content-Length", self.json_len.as_str())];
        let answer = client.post(&format!("/v2/models/{MODEL}/infer"), &headers, &self.body)?;
        ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
        let (said, raw) = answer.split()?;
        let version: usize = said["model_version"].as_str().context("no version")?.parse()?;
        let right = self.answers.get(version - 1).context("a version that was never pushed")?;
        ensure!(raw == right, "this is not what version {version} says");
        Ok(())
    }
}

const RECIPE: &str = r#"name = "changing"
[variants.edge]
onnx = "model.onnx"
[probes]
tolerance = 1e-3
[[probes.inputs]]
input = "x"
file = "items.f32"
datatype = "FP32"
item_shape = [64]
"#;
