//! What it saves and costs that inputs travel packed: the demo's test images as floats, asked of the cloud
//! variant as they are and as they would arrive in each form; and how long packing takes beside that.

use super::{BenchReport, Goal, Row, rounded};
use crate::fashion::{IMAGE_BYTES, Images};
use crate::statistics::median;
use crate::world;
use anyhow::Context;
use models::authoring::Author;
use models::authoring::dataset::Dataset;
use models::calibrate::Example;
use models::ort_backend::{OrtBackend, find_library};
use protocol::id::Version;
use protocol::tensor::Tensor;
use protocol::transport::Transport;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

const FORMS: [Transport; 3] = [Transport::Raw, Transport::Float16, Transport::Int8];
/// A payload whose packing is timed: an image of 224 x 224 in three colours.
const TIMED_FLOATS: usize = 3 * 224 * 224;
/// Of the float tensors' accuracy, as a share of the images.
const DROP_MAX: f64 = 0.002;
const DATA: &str = "labels = { file = \"labels.u8\", datatype = \"UINT8\" }\n\
    [[inputs]]\ninput = \"image\"\nfile = \"images.f32\"\ndatatype = \"FP32\"\nitem_shape = [1, 28, 28]\n";

/// Measures.
///
/// # Errors
/// No ONNX Runtime, or a model that fails.
pub fn run(short: bool) -> anyhow::Result<BenchReport> {
    let (images, times) = if short { (200, 5) } else { (usize::MAX, 50) };
    let floats = floats(images)?;
    let (mut rows, mut goals) = (Vec::new(), Vec::new());
    let mut raw: Option<Vec<Example>> = None;
    for form in FORMS {
        let (arrived, bytes) = carry(form, &floats)?;
        let said = ask(&arrived)?;
        let raw = raw.get_or_insert_with(|| said.clone());
        let share = |right: usize| right as f64 / said.len() as f64;
        let right = |said: &[Example]| share(said.iter().filter(|e| e.cloud == e.truth).count());
        let changed = raw.iter().zip(&said).filter(|(a, b)| a.cloud != b.cloud).count();
        let (pack, unpack) = times_of(form, times)?;
        rows.push(Row(vec![
            ("form", json!(form.as_str())),
            ("bytes", json!(bytes)),
            ("answers", json!(said.len())),
            ("right_percent", json!(rounded(right(&said) * 100.0))),
            ("answers_changed", json!(changed)),
            ("pack_600_kb_ms", json!(rounded(pack.as_secs_f64() * 1e3))),
            ("unpack_600_kb_ms", json!(rounded(unpack.as_secs_f64() * 1e3))),
        ]));
        if form == Transport::Int8 {
            let name = "accuracy lost by int8, share of the images";
            goals.push(Goal::at_most(name, DROP_MAX, right(raw) - right(&said)));
        }
    }
    Ok(BenchReport { name: "thrift", rows, goals })
}

/// Test images as the models take them.
fn floats(most: usize) -> anyhow::Result<Vec<Tensor>> {
    let images = Images::test()?;
    let float = |index: usize| {
        let floats: Vec<f32> = images.pixels(index).iter().map(|p| f32::from(*p) / 255.0).collect();
        Ok(Tensor::from_f32("image", vec![1, 1, 28, 28], &floats)?)
    };
    (0..images.len().min(most)).map(float).collect()
}

/// There, in this form: what arrives, and the bytes of one.
fn carry(form: Transport, floats: &[Tensor]) -> anyhow::Result<(Vec<u8>, usize)> {
    let (mut arrived, mut bytes) = (Vec::with_capacity(floats.len() * IMAGE_BYTES * 4), 0);
    for tensor in floats {
        let packed = form.pack(tensor, f32::MAX).context("an image cannot be packed")?;
        bytes = packed.len();
        arrived.extend_from_slice(&form.unpack(tensor.meta(), &packed)?);
    }
    Ok((arrived, bytes))
}

/// What the pair says to images of floats.
fn ask(images: &[u8]) -> anyhow::Result<Vec<Example>> {
    let folder = tempfile::tempdir()?;
    let count = images.len() / (IMAGE_BYTES * 4);
    let labels = std::fs::read(world::fashion().join("data/test-labels.u8"))?;
    write(folder.path(), "images.f32", images)?;
    write(folder.path(), "labels.u8", &labels[..count])?;
    write(folder.path(), "data.toml", DATA.as_bytes())?;
    let data = Dataset::open(folder.path())?;
    let backend = OrtBackend::open(&find_library(None)?)?;
    let author = Author::open(&world::fashion())?;
    Ok(author.examples(&data, Version::FIRST, &backend, &mut |_| {})?.0)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(std::fs::write(folder.join(name), bytes)?)
}

/// How long packing and unpacking take.
fn times_of(form: Transport, times: usize) -> anyhow::Result<(Duration, Duration)> {
    let floats: Vec<f32> = (0..TIMED_FLOATS).map(|i| (i % 251) as f32 / 250.0).collect();
    let tensor = Tensor::from_f32("image", vec![1, 3, 224, 224], &floats)?;
    let (mut pack, mut unpack) = (Vec::new(), Vec::new());
    for _ in 0..times {
        let began = Instant::now();
        let packed = form.pack(&tensor, f32::MAX).context("it cannot be packed")?;
        pack.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        form.unpack(tensor.meta(), &packed)?;
        unpack.push(began.elapsed().as_secs_f64());
    }
    Ok((Duration::from_secs_f64(median(&pack)), Duration::from_secs_f64(median(&unpack))))
}
