//! The yardstick: onnxruntime.quantization, in every configuration that people are told to try.

use anyhow::Context;
use models::authoring::dataset::{Dataset, ModelData};
use protocol::tensor::DataType;
use serde::Deserialize;
use serde_json::json;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::python::Environment;

/// A configuration: its name, and the arguments that differ from the library's defaults. One with a method is static;
/// activations are `uint8` then. Weights are `int8` unless it says otherwise.
pub(super) type Config = (&'static str, &'static str);

pub(super) const CONVOLUTIONS: &[Config] = &[
    ("min-max", r#"{"method":"minmax","per_channel":true}"#),
    ("percentile", r#"{"method":"percentile","per_channel":true}"#),
    ("entropy", r#"{"method":"entropy","per_channel":true}"#),
    (
        "min-max, weighted only",
        r#"{"method":"minmax","per_channel":true,"op_types_to_quantize":["Conv","MatMul","Gemm"]}"#,
    ),
    (
        "percentile, weighted only",
        r#"{"method":"percentile","per_channel":true,"op_types_to_quantize":["Conv","MatMul","Gemm"]}"#,
    ),
    ("min-max, per tensor", r#"{"method":"minmax"}"#),
    ("dynamic", "{}"),
    ("dynamic, products only", r#"{"per_channel":true,"op_types_to_quantize":["MatMul","Gemm"]}"#),
];

pub(super) const TRANSFORMER: &[Config] = &[
    ("dynamic", "{}"),
    ("dynamic, per channel", r#"{"per_channel":true}"#),
    ("dynamic, products only", r#"{"per_channel":true,"op_types_to_quantize":["MatMul","Gemm"]}"#),
    ("dynamic, uint8 weights", r#"{"weight_type":"u8"}"#),
    ("min-max", r#"{"method":"minmax","per_channel":true}"#),
    ("percentile", r#"{"method":"percentile","per_channel":true}"#),
];

/// What one configuration made.
pub(super) struct Made {
    pub(super) name: &'static str,
    pub(super) onnx: PathBuf,
    pub(super) took: Took,
}

#[derive(Clone, Copy, Deserialize)]
pub(super) struct Took {
    pub(super) seconds: f64,
    pub(super) peak_mb: f64,
}

/// The yardstick for one model.
pub(super) struct Anchor<'a> {
    pub(super) python: &'a Environment,
    pub(super) onnx: &'a Path,
    pub(super) folder: &'a Path,
}

impl Anchor<'_> {
    /// Makes all configurations that work; the others are named with their reason.
    pub(super) fn make(&self, configs: &[Config]) -> anyhow::Result<Vec<Made>> {
        let mut made = Vec::new();
        for (index, &(name, arguments)) in configs.iter().enumerate() {
            let onnx = self.folder.join(format!("anchor-{index}.onnx"));
            let text = |path: &Path| path.to_string_lossy().into_owned();
            let paths = [self.onnx, self.folder, &onnx].map(text);
            let mut command = self.python.command("compress_anchor.py");
            command.args([&paths[0], &paths[1], arguments, &paths[2]]);
            // It leaves files where it is started.
            let run = crate::python::output(command.current_dir(self.folder));
            match run {
                Ok(output) => {
                    let line = output.lines().last().context("the anchor said nothing")?;
                    made.push(Made { name, onnx, took: serde_json::from_str(line)? });
                }
                Err(error) => {
                    let error = error.to_string();
                    println!("anchor {name}: {}", error.lines().last().unwrap_or_default());
                }
            }
        }
        Ok(made)
    }
}

/// Writes the inputs of some items for Python.
pub(super) fn write_items(
    folder: &Path,
    dataset: &Dataset,
    data: &ModelData<'_>,
    count: usize,
) -> anyhow::Result<()> {
    let mut file = File::create(folder.join("items.bin"))?;
    let (mut items, mut offset) = (Vec::new(), 0);
    for item in 0..count.min(dataset.len()) {
        let mut parts = Vec::new();
        for tensor in data.inputs(item * dataset.len() / count.min(dataset.len()))? {
            file.write_all(tensor.data())?;
            let dtype = match tensor.datatype() {
                DataType::Int64 => "int64",
                DataType::Fp32 => "float32",
                other => anyhow::bail!("an input of {other}"),
            };
            let bytes = tensor.data().len();
            parts.push(json!({
                "name": tensor.name(), "dtype": dtype, "shape": tensor.shape(), "offset": offset, "bytes": bytes,
            }));
            offset += bytes;
        }
        items.push(parts);
    }
    Ok(fs::write(folder.join("items.json"), serde_json::to_string(&items)?)?)
}
