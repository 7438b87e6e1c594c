//! The second task, of another kind: is a rated line from a film review good or bad? The edge is a hashed
//! linear model, the cloud MiniLM with a linear head; both are fitted here, on lines that nothing else
//! sees.

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use models::authoring::Author;
use models::bundle::Bundle;
use models::calibrate::Example;
use models::calibrate::random::Random;
use models::model::{LoadedModel, ModelOptions};
use models::ort_backend::{OrtBackend, find_library};
use models::worker::Job;
use protocol::id::{Variant, Version};
use protocol::tensor::Tensor;
use std::path::Path;

use super::linear::{Features, Linear, Training, dense, hashed};
use super::task::Task;

const RECIPE: &str = include_str!("../../../../models/tests/recipes/sentences.toml");
const MODEL: &str = "minilm-l6-v2-int8.onnx";
const TOKENIZER: &str = "minilm-l6-v2-tokenizer.json";
const EDGE: Training = Training { width: 1 << 14, epochs: 20, rate: 0.3, decay: 1e-4 };
const HEAD: Training = Training { width: 384, epochs: 40, rate: 0.1, decay: 1e-5 };

/// Every fourth answer of the edge is wrong: smaller risks would defer nearly everything.
const RISKS: [f64; 4] = [0.05, 0.1, 0.15, 0.2];

/// The task, from the file of lines and the folder with the models. Half of the lines train; of the
/// rest half calibrates and half tests. In short only some lines.
pub(super) fn task(file: &Path, models: &Path, short: bool) -> anyhow::Result<Task> {
    let mut lines = read(file)?;
    Random::new(20_261_126).shuffle(&mut lines);
    if short {
        lines.truncate(3000);
    }
    let vectors = embed(&lines, models)?;
    let (trained, rest) = lines.split_at(lines.len() / 2);
    let (known, unknown) = vectors.split_at(trained.len());
    let items = |features: Vec<Features>| -> Vec<(Features, bool)> {
        features.into_iter().zip(trained).map(|(f, line)| (f, line.good)).collect()
    };
    let words = trained.iter().map(|line| hashed(&line.text, EDGE.width)).collect();
    let edge = Linear::train(&items(words), EDGE);
    let head = Linear::train(&items(known.iter().map(|v| dense(v)).collect()), HEAD);
    let example = |(line, vector): (&Line, &Vec<f32>)| {
        let score = edge.score(&hashed(&line.text, EDGE.width));
        let cloud = usize::from(head.score(&dense(vector)) > 0.0);
        Example {
            logits: vec![0.0, f64::from(score)],
            sequence: None,
            truth: usize::from(line.good),
            cloud,
        }
    };
    let examples: Vec<Example> = rest.iter().zip(unknown).map(example).collect();
    let bytes: usize = rest.iter().map(|line| line.text.len()).sum();
    Ok(Task {
        name: "movie lines".to_owned(),
        for_calibration: examples.len() / 2,
        risk: 0.1,
        risks: RISKS,
        item_bytes: bytes as f64 / examples.len().max(1) as f64,
        examples,
    })
}

struct Line {
    text: String,
    good: bool,
}

/// `number, mean rating, text`, by tabs; lines that are rated neither good nor bad are left out.
fn read(file: &Path) -> anyhow::Result<Vec<Line>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let line = |line: &str| {
        let mut fields = line.trim_end().splitn(3, '\t');
        let (_, rating, text) = (fields.next()?, fields.next()?, fields.next()?);
        let rating: f64 = rating.parse().ok()?;
        (rating != 0.0).then(|| Line { text: text.to_owned(), good: rating > 0.0 })
    };
    Ok(text.lines().filter_map(line).collect())
}

/// MiniLM's embedding of each line, by the same pipelines as on a device.
fn embed(lines: &[Line], models: &Path) -> anyhow::Result<Vec<Vec<f32>>> {
    let folder = tempfile::tempdir()?;
    let put = |from: &str, to: &str| {
        std::fs::copy(models.join(from), folder.path().join(to))
            .with_context(|| format!("{} is needed", models.join(from).display()))
    };
    put(MODEL, "model.onnx")?;
    put(TOKENIZER, "tokenizer.json")?;
    std::fs::write(folder.path().join(models::authoring::RECIPE_FILE), RECIPE)?;
    std::fs::write(folder.path().join("sentences.txt"), "A probe.\n")?;
    let backend = OrtBackend::open(&find_library(None)?)?;
    let out = folder.path().join("bundle");
    let author = Author::open(folder.path())?;
    let manifest = author.build(Variant::Edge, Version::FIRST, &backend, &out)?;
    let bundle = Bundle::open(&out, manifest)?;
    let model = LoadedModel::load(&backend, bundle, &ModelOptions::default())?;
    let bar = ProgressBar::new(lines.len() as u64);
    bar.set_style(ProgressStyle::with_template("movie lines: {pos}/{len}, {eta} to go")?);
    let ask = |line: &Line| {
        let text = Tensor::from_byte_strings("text", vec![1], &[&line.text])?;
        let answer = model.submit(Job { inputs: vec![text], ..Job::default() })?.wait()?;
        bar.inc(1);
        answer.outputs.first().and_then(Tensor::to_f32).context("no embedding")
    };
    let vectors = lines.iter().map(ask).collect();
    bar.finish_and_clear();
    vectors
}
