//! MiniLM on sentences as they are: UTF-8.

use super::{Proof, author, floats, output, outputs, patient};
use crate::bad::bytes_input;
use crate::python::Environment;
use crate::world::Agent;
use std::path::Path;

const RECIPE: &str = include_str!("../../../models/tests/recipes/sentences.toml");

/// Each line with one that means nearly the same.
const PAIRS: [[&str; 2]; 4] = [
    ["A light float lashed to a larger hull keeps it upright.", "An outrigger stabilises a canoe."],
    ["The stock market fell sharply on Tuesday.", "Share prices dropped a lot this week."],
    ["How do I reset my password?", "I forgot my login and cannot sign in."],
    ["It rained all day in Lisbon.", "Lisbon had wet weather from morning to night."],
];

const PACKAGES: [&str; 3] = ["onnxruntime==1.31.1", "tokenizers==0.22.1", "numpy"];
/// The same library on the same machine rounds the same sums in another order.
const TOLERANCE: f32 = 1e-3;

pub(super) fn write(models: &Path, folder: &Path) -> anyhow::Result<()> {
    let files = [
        (&*models.join("minilm-l6-v2-int8.onnx"), "model.onnx"),
        (&*models.join("minilm-l6-v2-tokenizer.json"), "tokenizer.json"),
    ];
    author(folder, RECIPE, &files)?;
    Ok(std::fs::write(folder.join("sentences.txt"), PAIRS.as_flattened().join("\n"))?)
}

pub(super) fn prove(agent: &Agent, models: &Path) -> anyhow::Result<Proof> {
    let embed = |line: &&str| {
        let answer = outputs(agent, "sentences", &bytes_input("text", &[line])?, &patient())?;
        Ok(floats(&output(&answer, "embedding")?))
    };
    let vectors: Vec<Vec<f32>> =
        PAIRS.as_flattened().iter().map(embed).collect::<anyhow::Result<_>>()?;
    let python = reference(models)?;
    let cosine = |a: usize, b: usize| -> f32 {
        vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum()
    };
    let header =
        ["sentence", "to its like", "to the nearest other", "apart from Python", "as expected"];
    let mut proof = Proof::new(&header);
    for (i, line) in PAIRS.as_flattened().iter().enumerate() {
        let like = i ^ 1;
        let others = (0..vectors.len()).filter(|other| *other != i && *other != like);
        let nearest = others.map(|other| cosine(i, other)).fold(f32::MIN, f32::max);
        let apart = python.as_ref().map(|python| difference(&python[i], &vectors[i]));
        let good = cosine(i, like) > nearest && apart.is_none_or(|apart| apart < TOLERANCE);
        let good = proof.claim(good, || format!("the embedding of {line:?}"));
        proof.table.add_row([
            (*line).to_owned(),
            format!("{:.3}", cosine(i, like)),
            format!("{nearest:.3}"),
            apart.map_or("not compared".into(), |apart| format!("{apart:.1e}")),
            good.to_owned(),
        ]);
    }
    Ok(proof)
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The same embeddings by Python, where its packages can be had.
fn reference(models: &Path) -> anyhow::Result<Option<Vec<Vec<f32>>>> {
    let Some(environment) = Environment::with(&PACKAGES)? else { return Ok(None) };
    let model = models.join("minilm-l6-v2-int8.onnx").to_string_lossy().into_owned();
    let tokenizer = models.join("minilm-l6-v2-tokenizer.json").to_string_lossy().into_owned();
    let arguments = [&[model.as_str(), &tokenizer][..], PAIRS.as_flattened()].concat();
    Ok(Some(serde_json::from_str(&environment.run("embed.py", &arguments)?)?))
}
