//! Real models, one of each kind, through the real agent: photos as JPEG bytes become labels with
//! probabilities, sentences as UTF-8 become embeddings, and a sound in pieces becomes the same
//! probabilities of speech as the whole sound.

use crate::world::{Agent, AgentOptions, World};
use anyhow::{Context, ensure};
use std::path::Path;

mod photos;
mod sentences;
mod speech;

/// What is compared, and what came of it.
struct Proof {
    table: comfy_table::Table,
    failures: Vec<String>,
}

impl Proof {
    fn new(header: &[&str]) -> Self {
        Self { table: crate::people::new_table(header), failures: Vec::new() }
    }

    /// Notes a claim that does not hold.
    fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) -> &'static str {
        if holds {
            return "yes";
        }
        self.failures.push(what());
        "NO"
    }
}

/// Proves all three and prints a table for each.
///
/// # Errors
/// A model that is not there, a program that fails, or a claim that does not hold.
pub fn run(models: &Path, speech: Option<&Path>) -> anyhow::Result<()> {
    ensure!(models.is_dir(), "{} is no folder", models.display());
    let world = World::start()?;
    let folder = world.folder().join("models");
    photos::write(models, &folder.join("photos"))?;
    sentences::write(models, &folder.join("sentences"))?;
    speech::write(models, &folder.join("speech"))?;
    for name in ["photos", "sentences", "speech"] {
        eprintln!("shipping {name}");
        world.operator.run(&["model", "push", &folder.join(name).to_string_lossy()])?;
        world.operator.run(&["model", "assign", name, "--all"])?;
    }
    let agent = world.agent("device", &AgentOptions::default())?;
    for name in ["photos", "sentences", "speech"] {
        agent.wait_active(name, 1)?;
    }
    let proofs = [
        ("Photos, sent as JPEG files (EfficientNet-Lite0):", photos::prove(&agent, models)?),
        ("Sentences, sent as UTF-8 (MiniLM-L6-v2, int8):", sentences::prove(&agent, models)?),
        ("Sound, whole and in pieces of a sequence (Silero VAD):", speech::prove(&agent, speech)?),
    ];
    let mut failures = Vec::new();
    for (title, proof) in proofs {
        println!("{title}\n\n{}\n", proof.table);
        failures.extend(proof.failures);
    }
    let pss_mb = agent.process().pss_kb()? as f64 / 1000.0;
    println!("The agent with these three models takes {pss_mb:.0} MB of memory (PSS).");
    ensure!(failures.is_empty(), "not as it should be: {}", failures.join("; "));
    Ok(())
}

/// Copies the files of an authoring folder, and writes its recipe.
fn author(folder: &Path, recipe: &str, files: &[(&Path, &str)]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(RECIPE), recipe)?;
    for (from, name) in files {
        std::fs::copy(from, folder.join(name))
            .with_context(|| format!("{} is needed", from.display()))?;
    }
    Ok(())
}

const RECIPE: &str = models::authoring::RECIPE_FILE;

/// A request whose deadline leaves time for the largest model on a slow machine.
fn patient() -> serde_json::Value {
    serde_json::json!({ "timeout": 30_000_000 })
}

/// The outputs of a good answer, as raw bytes, by name.
fn outputs(
    agent: &Agent,
    model: &str,
    input: &protocol::tensor::Tensor,
    parameters: &serde_json::Value,
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut parameters = parameters.clone();
    parameters["binary_data_output"] = true.into();
    let answer = crate::bad::ask_http(agent, model, std::slice::from_ref(input), &parameters)?;
    let (body, mut raw) = answer.split()?;
    ensure!(answer.status == 200, "{model}: {body}");
    let mut outputs = Vec::new();
    for output in body["outputs"].as_array().context("no outputs")? {
        let size = output["parameters"]["binary_data_size"].as_u64().context("not binary")?;
        let (own, rest) = raw.split_at_checked(usize::try_from(size)?).context("too short")?;
        outputs.push((output["name"].as_str().unwrap_or_default().to_owned(), own.to_vec()));
        raw = rest;
    }
    Ok(outputs)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|c| f32::from_le_bytes(*c)).collect()
}

fn output(outputs: &[(String, Vec<u8>)], name: &str) -> anyhow::Result<Vec<u8>> {
    let found = outputs.iter().find(|(own, _)| own == name);
    Ok(found.with_context(|| format!("no output {name}"))?.1.clone())
}
