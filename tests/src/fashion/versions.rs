//! Versions of the demo's pair, good or wrong in one way each, made out of its own ONNX files.
//!
//! What is wrong with them shows on devices only: all have the calibration of the good one, as if nobody had looked again,
//! and those that can answer at all answer their probes as these say. `outrigger model push` would calibrate them anew, so
//! they are signed unseen ([`Publisher`]).

use super::IMAGE_BYTES;
use crate::world::{Publisher, copy_of_fashion};
use anyhow::Context;
use models::authoring::{Author, RECIPE_FILE};
use models::backend::Backend;
use models::onnx::attribute::{Attributes, node};
use models::onnx::proto::{FunctionProto, NodeProto, OperatorSetIdProto};
use models::onnx::{Graph, Model, tensor};
use models::ort_backend::{OrtBackend, find_library};
use protocol::id::{ContentHash, Variant, Version};
use protocol::manifest::{FileRef, MODEL_FILE, Manifest};
use std::fs;
use std::path::{Path, PathBuf};

/// What the model takes and gives.
const INPUT: &str = "image";
const LOGITS: &str = "logits";
/// How many classes it knows.
const CLASSES: usize = 10;
/// A domain of our own for functions.
const OWN: &str = "own";
/// Functions that call each other in a line of this length overflow the stack of whoever loads them.
const DEPTH: usize = 1200;
/// Half of the demo's images are brighter than this, on average.
const BRIGHT: f32 = 0.28;

/// What is wrong with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// Loading it overflows the stack.
    Crashes,
    /// It computes every answer so many times.
    Slow(i64),
    /// What it saw as the first of these classes is the second to it, and it is sure of that.
    Mistakes(usize, usize),
    /// Images brighter than most of those that it was probed with have no logits but NaN.
    NotNumbers,
}

/// A maker of versions.
pub struct Versions {
    folder: tempfile::TempDir,
    backend: OrtBackend,
    edge: Manifest,
    cloud: Manifest,
}

impl Versions {
    /// Calibrates the demo's pair.
    ///
    /// # Errors
    /// There is no ONNX Runtime, or a file cannot be written.
    pub fn of_demo() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("versions-").tempdir()?;
        let backend = OrtBackend::open(&find_library(None)?)?;
        let author = Author::open(&copy_of_fashion(&folder.path().join("demo"))?)?;
        let build = |variant: Variant| {
            author.build(variant, Version::FIRST, &backend, &folder.path().join(variant.as_str()))
        };
        let (edge, cloud) = (build(Variant::Edge)?, build(Variant::Cloud)?);
        Ok(Self { folder, backend, edge, cloud })
    }

    /// Publishes the demo's pair as this version, its edge variant with a flaw.
    ///
    /// # Errors
    /// What the cloud answered.
    pub fn publish(&self, publisher: &Publisher, version: u64, flaw: Flaw) -> anyhow::Result<()> {
        let version = Version::new(version).context("versions begin with 1")?;
        let cloud = Manifest { version, ..self.cloud.clone() };
        publisher.publish_folder(&cloud, &self.folder.path().join("cloud"))?;
        let (edge, folder) = self.build(version, flaw)?;
        publisher.publish_folder(&edge, &folder)
    }

    fn build(&self, version: Version, flaw: Flaw) -> anyhow::Result<(Manifest, PathBuf)> {
        let own = self.folder.path().join(version.to_string());
        let source = copy_of_fashion(&own)?;
        let onnx = source.join("edge.onnx");
        let recipe = source.join(RECIPE_FILE);
        let text = fs::read_to_string(&recipe)?;
        let uncalibrated = text.split("[calibration]").next().unwrap_or(&text);
        fs::write(&recipe, uncalibrated)?;
        if flaw == Flaw::NotNumbers {
            leave_out_bright(&source.join("data/calibration-images.u8"))?;
        }
        let flawed = flawed(&onnx, flaw)?;
        if flaw != Flaw::Crashes {
            flawed.write(&onnx)?;
        }
        let out = own.join("bundle");
        let mut manifest = measured(&source, version, &self.backend, &out)?;
        if flaw == Flaw::Crashes {
            let file = out.join(MODEL_FILE);
            flawed.write(&file)?;
            let bytes = fs::read(&file)?;
            let whole = FileRef { sha256: ContentHash::of(&bytes), size_bytes: bytes.len() as u64 };
            manifest.files.insert(MODEL_FILE.to_owned(), whole);
        }
        Ok((Manifest { calibration: self.edge.calibration.clone(), ..manifest }, out))
    }
}

fn measured(
    source: &Path,
    version: Version,
    backend: &dyn Backend,
    out: &Path,
) -> anyhow::Result<Manifest> {
    Ok(Author::open(source)?.build(Variant::Edge, version, backend, out)?)
}

fn leave_out_bright(images: &Path) -> anyhow::Result<()> {
    let all = fs::read(images)?;
    let mean = |image: &[u8]| image.iter().map(|byte| f32::from(*byte)).sum::<f32>();
    let limit = BRIGHT * 255.0 * IMAGE_BYTES as f32;
    let dark = all.chunks(IMAGE_BYTES).filter(|image| mean(image) < 0.99 * limit);
    Ok(fs::write(images, dark.collect::<Vec<_>>().concat())?)
}

fn flawed(onnx: &Path, flaw: Flaw) -> anyhow::Result<Model> {
    let mut model = Model::read(onnx)?;
    match flaw {
        Flaw::None => {}
        Flaw::Crashes => crashes(&mut model)?,
        Flaw::Slow(times) => slow(model.graph_mut(), times)?,
        Flaw::Mistakes(one, other) => mistakes(model.graph_mut(), one, other)?,
        Flaw::NotNumbers => not_numbers(model.graph_mut())?,
    }
    Ok(model)
}

/// Puts nodes between the logits as they were, `before`, and as they are given out.
fn behind_logits(graph: &mut Graph, nodes: Vec<NodeProto>) -> anyhow::Result<()> {
    let maker = graph.maker(LOGITS).context("the demo's model gives logits")?;
    graph.edit(maker, |node| node.output = vec!["before".to_owned()])?;
    for node in nodes {
        graph.insert(node)?;
    }
    Ok(())
}

fn crashes(model: &mut Model) -> anyhow::Result<()> {
    let opset = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.to_owned()),
        version: Some(version),
    };
    let call = |depth: usize, from: &str, to: &str| match depth {
        0 => node("Identity", &[from], &[to]),
        _ => {
            NodeProto { domain: Some(OWN.to_owned()), ..node(&format!("F{depth}"), &[from], &[to]) }
        }
    };
    let function = |depth: usize| FunctionProto {
        name: Some(format!("F{depth}")),
        domain: Some(OWN.to_owned()),
        input: vec!["a".to_owned()],
        output: vec!["b".to_owned()],
        node: vec![call(depth - 1, "a", "b")],
        opset_import: vec![opset("", 17), opset(OWN, 1)],
        ..FunctionProto::default()
    };
    let head = model.head_mut();
    head.functions.extend((1..=DEPTH).map(function));
    head.opset_import.push(opset(OWN, 1));
    behind_logits(model.graph_mut(), vec![call(DEPTH, "before", LOGITS)])
}

/// The batch goes through the network in so many copies; the answers of the first are given out.
fn slow(graph: &mut Graph, times: i64) -> anyhow::Result<()> {
    let copies = vec![INPUT; usize::try_from(times)?];
    let copied = node("Concat", &copies, &["copies"]).with_int("axis", 0);
    graph.insert_after(INPUT, [copied], "copies")?;
    for (name, value) in [("zero", 0_i64), ("one", 1)] {
        graph.set_weight(tensor::new(name, &[1], &[value]));
    }
    behind_logits(
        graph,
        vec![
            node("Shape", &[INPUT], &["shape"]),
            node("Slice", &["shape", "zero", "one"], &["items"]),
            node("Slice", &["before", "zero", "items", "zero"], &[LOGITS]),
        ],
    )
}

fn mistakes(graph: &mut Graph, one: usize, other: usize) -> anyhow::Result<()> {
    let mut swapped: Vec<i64> = (0..).take(CLASSES).collect();
    swapped.swap(one, other);
    let mut lost = [0.0_f32; CLASSES];
    lost[one] = -20.0;
    graph.set_weight(tensor::new("swap", &[CLASSES as i64], &swapped));
    graph.set_weight(tensor::new("lost", &[1, CLASSES as i64], &lost));
    behind_logits(
        graph,
        vec![
            node("Gather", &["before", "swap"], &["swapped"]).with_int("axis", 1),
            node("Max", &["before", "swapped"], &["larger"]),
            node("Add", &["larger", "lost"], &[LOGITS]),
        ],
    )
}

fn not_numbers(graph: &mut Graph) -> anyhow::Result<()> {
    graph.set_weight(tensor::new("limit", &[1], &[BRIGHT]));
    graph.set_weight(tensor::new("nothing", &[1], &[0.0_f32]));
    graph.set_weight(tensor::new("last", &[1], &[1_i64]));
    let mean = node("ReduceMean", &[INPUT], &["mean"]).with_ints("axes", &[1, 2, 3]);
    behind_logits(
        graph,
        vec![
            mean.with_int("keepdims", 0),
            node("Sub", &["limit", "mean"], &["room"]),
            node("Sqrt", &["room"], &["root"]),
            node("Mul", &["root", "nothing"], &["zero_or_nan"]),
            node("Unsqueeze", &["zero_or_nan", "last"], &["column"]),
            node("Add", &["before", "column"], &[LOGITS]),
        ],
    )
}
