//! What is asked: one small and one large request, each of a model that is made here and goes to
//! cloud and devices as any model does, the same for both.

use super::in_process;
use crate::onnx;
use crate::world::World;
use anyhow::Context;
use protocol::tensor::Tensor;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A model with one request to it and the right answer.
pub(in crate::bench) struct Subject {
    pub(in crate::bench) model: &'static str,
    pub(in crate::bench) what: &'static str,
    pub(in crate::bench) onnx: PathBuf,
    pub(in crate::bench) input: Tensor,
    pub(in crate::bench) output: &'static str,
    pub(in crate::bench) expected: Arc<Vec<f32>>,
    /// Whether requests can share a run: its first dimension is one of items.
    pub(in crate::bench) batches: bool,
    /// How many callers ask at once, one after the other.
    pub(in crate::bench) in_flight: &'static [usize],
}

impl Subject {
    /// 64 numbers in, so that next to nothing is computed.
    fn small(folder: &Path) -> anyhow::Result<Self> {
        let onnx = write(folder, "mlp", &onnx::perceptron(1))?;
        let input = Tensor::from_f32("x", vec![1, 64], &wave(64))?;
        let expected = in_process::answer(&onnx, &input)?;
        let (what, in_flight) = ("256 B", [1, 32].as_slice());
        Ok(Self {
            model: "mlp",
            what,
            onnx,
            input,
            output: "y",
            expected,
            batches: true,
            in_flight,
        })
    }

    /// A picture of floats in, 602,112 B, for a model that works for some milliseconds.
    fn large(folder: &Path) -> anyhow::Result<Self> {
        let onnx = write(folder, "cnn", &onnx::efficient_net_lite())?;
        let input = Tensor::from_f32("image", vec![1, 3, 224, 224], &wave(3 * 224 * 224))?;
        let expected = in_process::answer(&onnx, &input)?;
        let (what, in_flight) = ("600 kB", [1, 8, 32].as_slice());
        Ok(Self {
            model: "cnn",
            what,
            onnx,
            input,
            output: "logits",
            expected,
            batches: false,
            in_flight,
        })
    }

    /// Makes both models.
    pub(in crate::bench) fn both(world: &World) -> anyhow::Result<[Self; 2]> {
        Ok([Self::small(world.folder())?, Self::large(world.folder())?])
    }

    /// Brings its model to the cloud and to every device.
    pub(in crate::bench) fn ship(&self, world: &World) -> anyhow::Result<()> {
        let folder = self.onnx.parent().context("a folder")?;
        world.operator.run(&["model", "push", &folder.to_string_lossy()])?;
        world.operator.run(&["model", "assign", self.model, "--all"])?;
        Ok(())
    }

    /// The JSON of a request over HTTP, with the tensor behind it.
    pub(in crate::bench) fn http_body(&self) -> (usize, Vec<u8>) {
        let input = &self.input;
        let head = json!({
            "parameters": { "timeout": 60_000_000 },
            "inputs": [{
                "name": input.name(), "datatype": input.datatype(), "shape": input.shape(),
                "parameters": { "binary_data_size": input.data().len() },
            }],
            "outputs": [{ "name": self.output, "parameters": { "binary_data": true } }],
        });
        let mut body = head.to_string().into_bytes();
        let json_len = body.len();
        body.extend_from_slice(input.data());
        (json_len, body)
    }
}

/// Numbers that are neither all alike nor random.
#[allow(clippy::cast_precision_loss)]
fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// Writes an authoring folder; the path of its ONNX file.
fn write(folder: &Path, name: &str, onnx: &[u8]) -> anyhow::Result<PathBuf> {
    let folder = folder.join("models").join(name);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join("model.onnx");
    std::fs::write(&path, onnx)?;
    let (input, count, shape) = match name {
        "mlp" => ("x", 64, "[64]"),
        _ => ("image", 3 * 224 * 224, "[3, 224, 224]"),
    };
    let items: Vec<u8> = wave(2 * count).iter().flat_map(|v| v.to_le_bytes()).collect();
    std::fs::write(folder.join("items.f32"), items)?;
    let recipe = format!(
        "name = \"{name}\"\n[variants.edge]\nonnx = \"model.onnx\"\n[variants.cloud]\n\
         onnx = \"model.onnx\"\n[probes]\ntolerance = 1e-3\n\
         [[probes.inputs]]\ninput = \"{input}\"\nfile = \"items.f32\"\ndatatype = \"FP32\"\n\
         item_shape = {shape}\n"
    );
    std::fs::write(folder.join("model.toml"), recipe)?;
    Ok(path)
}
