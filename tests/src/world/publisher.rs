//! An operator with bad intentions, or one whose key was stolen: signs whatever bundle it is given,
//! without ever running the model, and publishes it by the admin API.

use super::{Api, Operator};
use anyhow::Context;
use prost::Message;
use protocol::id::{ContentHash, ModelName, Variant, Version};
use protocol::manifest::{FORMAT, FileRef, MODEL_FILE, Manifest, Probes, SigningKey, TensorSpec};
use protocol::tensor::{DataType, Tensor};
use protocol::wire::{Probe, ProbeSet};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const PROBES_FILE: &str = "probes.pb";
/// Numbers of one item.
const WIDTH: usize = 3;

/// A variant: an ONNX file that takes `x` and gives `y`, both `FP32 [-1,3]`, and what it should
/// answer to some probes.
pub struct Edge<'e> {
    /// The model's name.
    pub model: &'e str,
    /// Its version.
    pub version: u64,
    /// The ONNX file.
    pub onnx: Vec<u8>,
    /// Probes: `x`, and the expected `y`.
    pub probes: &'e [([f32; WIDTH], [f32; WIDTH])],
}

/// A variant with one input and one output.
#[derive(Debug, Clone)]
pub struct Single {
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// For devices or for the cloud.
    pub variant: Variant,
    /// The ONNX file.
    pub onnx: Vec<u8>,
    /// What it takes.
    pub input: TensorSpec,
    /// What it gives.
    pub output: TensorSpec,
    /// Inputs, and what it answers to them.
    pub probes: Vec<(Tensor, Tensor)>,
}

impl Single {
    fn manifest(&self, files: &[(&str, Vec<u8>)]) -> anyhow::Result<Manifest> {
        let (model, version) = (self.model.as_str(), self.version);
        let edge = Edge { model, version, onnx: Vec::new(), probes: &[] };
        let (inputs, outputs) = (vec![self.input.clone()], vec![self.output.clone()]);
        Ok(Manifest { variant: self.variant, inputs, outputs, ..manifest(&edge, files)? })
    }
}

/// Somebody who holds an operator's keys.
pub struct Publisher {
    api: Api,
    key: SigningKey,
}

impl Publisher {
    /// With the keys of an operator who is signed in.
    ///
    /// # Errors
    /// The operator's configuration cannot be read.
    pub fn with_keys_of(operator: &Operator) -> anyhow::Result<Self> {
        let path = operator.config_dir().join("signing.key");
        let text = std::fs::read(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim_ascii(), &mut seed)?;
        Ok(Self { api: Api::with_key_of(operator)?, key: SigningKey::from_seed(&seed) })
    }

    /// Uploads the files of a bundle and its signed manifest, as an edge variant; the bundle's hash.
    ///
    /// # Errors
    /// What the cloud answered.
    pub fn publish(&self, edge: &Edge<'_>) -> anyhow::Result<ContentHash> {
        self.publish_as(Variant::Edge, edge)
    }

    /// The same as this variant.
    ///
    /// # Errors
    /// What the cloud answered.
    pub fn publish_as(&self, variant: Variant, edge: &Edge<'_>) -> anyhow::Result<ContentHash> {
        let files = [(MODEL_FILE, edge.onnx.clone()), (PROBES_FILE, probe_file(edge.probes)?)];
        for (_, bytes) in &files {
            self.api.accepted("PUT", &format!("/v1/blobs/{}", ContentHash::of(bytes)), bytes)?;
        }
        let manifest = Manifest { variant, ..manifest(edge, &files)? };
        let signed = self.key.sign(&manifest);
        self.api.accepted("POST", "/v1/models", &signed.to_json())?;
        Ok(signed.bundle())
    }

    /// Uploads a bundle that was built in a folder, and its signed manifest.
    ///
    /// # Errors
    /// What the cloud answered.
    pub fn publish_folder(&self, manifest: &Manifest, folder: &Path) -> anyhow::Result<()> {
        for name in manifest.files.keys() {
            self.put_blob(&std::fs::read(folder.join(name))?)?;
        }
        let signed = self.key.sign(manifest);
        self.call("POST", "/v1/models", &signed.to_json()).map(drop)
    }

    /// Uploads a file, unless another bundle has brought it.
    fn put_blob(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let path = format!("/v1/blobs/{}", ContentHash::of(bytes));
        if self.call("HEAD", &path, b"").is_err() {
            self.call("PUT", &path, bytes)?;
        }
        Ok(())
    }

    /// The same for a variant of any shape.
    ///
    /// # Errors
    /// What the cloud answered.
    pub fn publish_single(&self, single: &Single) -> anyhow::Result<()> {
        let probe = |(input, output): &(Tensor, Tensor)| {
            Probe::new(std::slice::from_ref(input), std::slice::from_ref(output))
        };
        let probes = ProbeSet { probes: single.probes.iter().map(probe).collect() };
        let files = [(MODEL_FILE, single.onnx.clone()), (PROBES_FILE, probes.encode_to_vec())];
        for (_, bytes) in &files {
            self.put_blob(bytes)?;
        }
        let signed = self.key.sign(&single.manifest(&files)?);
        self.call("POST", "/v1/models", &signed.to_json()).map(drop)
    }

    /// What the cloud counts.
    ///
    /// # Errors
    /// What the cloud answered.
    pub fn stats(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.call("GET", "/v1/stats", b"")?)?)
    }

    fn call(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.api.accepted(method, path, body)?.body)?)
    }
}

fn probe_file(probes: &[([f32; WIDTH], [f32; WIDTH])]) -> anyhow::Result<Vec<u8>> {
    let tensor = |name: &str, values: &[f32]| Tensor::from_f32(name, vec![1, 3], values);
    let probe = |(x, y): &([f32; WIDTH], [f32; WIDTH])| {
        Ok::<_, anyhow::Error>(Probe::new(&[tensor("x", x)?], &[tensor("y", y)?]))
    };
    let probes = probes.iter().map(probe).collect::<Result<_, _>>()?;
    Ok(ProbeSet { probes }.encode_to_vec())
}

fn manifest(edge: &Edge<'_>, files: &[(&str, Vec<u8>)]) -> anyhow::Result<Manifest> {
    let spec =
        |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![-1, 3] };
    let file =
        |bytes: &[u8]| FileRef { sha256: ContentHash::of(bytes), size_bytes: bytes.len() as u64 };
    Ok(Manifest {
        format: FORMAT,
        model: edge.model.parse::<ModelName>()?,
        version: Version::new(edge.version).context("versions begin with 1")?,
        variant: Variant::Edge,
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        files: files.iter().map(|(name, bytes)| ((*name).into(), file(bytes))).collect(),
        preprocess: vec![],
        constants: vec![],
        state: vec![],
        postprocess: vec![],
        default_outputs: vec![],
        classes: None,
        calibration: None,
        thrift: None,
        probes: Probes { file: PROBES_FILE.into(), tolerance: 1e-4 },
        never_leaves_device: false,
        provenance: BTreeMap::new(),
    })
}
