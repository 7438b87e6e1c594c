//! Silero VAD on sound: a whole WAV file, and the same samples in pieces as a microphone gives them,
//! with the state kept by the agent.

use super::{Proof, author, floats, output, outputs, patient};
use crate::bad::bytes_input;
use crate::grpc::{self, GrpcClient};
use crate::small_models::wav;
use crate::world::Agent;
use anyhow::{Context, ensure};
use protocol::tensor::Tensor;
use protocol::wire::inference::InferParameter;
use protocol::wire::inference::infer_parameter::ParameterChoice;
use serde_json::json;
use sound::vowel;
use std::path::Path;

#[path = "../../../models/tests/support/speech.rs"]
mod sound;

const RECIPE: &str = include_str!("../../../models/tests/recipes/speech.toml");
const RATE_HZ: u32 = 16_000;
const FRAME: usize = 512;
/// Samples of a piece, and of every other piece; frames begin and end anywhere.
const PIECES: [usize; 2] = [777, 1600];

pub(super) fn write(models: &Path, folder: &Path) -> anyhow::Result<()> {
    author(folder, RECIPE, &[(&models.join("silero-vad-16k.onnx"), "model.onnx")])?;
    Ok(std::fs::write(folder.join("tone.wav"), wav(RATE_HZ, &vowel(RATE_HZ)))?)
}

/// A sound and whether there is speech in it.
struct Sound {
    name: String,
    file: Vec<u8>,
    speech: bool,
}

pub(super) fn prove(agent: &Agent, speech: Option<&Path>) -> anyhow::Result<Proof> {
    let mut sounds = vec![
        sound("a vowel between silences", &vowel(RATE_HZ), true),
        sound("noise", &noise(), false),
        sound("a tone of 440 Hz", &tone(), false),
    ];
    if let Some(path) = speech {
        let file = std::fs::read(path).with_context(|| format!("{} is needed", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sounds.push(Sound { name, file, speech: true });
    }
    let header =
        ["sound", "frames", "with speech", "highest", "HTTP pieces", "gRPC pieces", "as expected"];
    let mut proof = Proof::new(&header);
    for sound in sounds {
        let whole = answer(agent, &bytes_input("audio", &[&sound.file])?, &patient())?;
        let voiced = whole.iter().filter(|p| **p > 0.5).count();
        let highest = whole.iter().copied().fold(0.0, f32::max);
        let samples = samples_at(&sound.file)?;
        let over_http = over_http(agent, &samples)? == whole;
        let over_grpc = over_grpc(agent, &samples)? == whole;
        let same = |equal| if equal { "the same bits" } else { "DIFFERENT" };
        let good = over_http && over_grpc && (voiced > 0) == sound.speech;
        let good = proof.claim(good, || format!("the speech in {}", sound.name));
        proof.table.add_row([
            sound.name,
            whole.len().to_string(),
            voiced.to_string(),
            format!("{highest:.3}"),
            same(over_http).to_owned(),
            same(over_grpc).to_owned(),
            good.to_owned(),
        ]);
    }
    Ok(proof)
}

fn sound(name: &str, samples: &[f32], speech: bool) -> Sound {
    Sound { name: name.to_owned(), file: wav(RATE_HZ, samples), speech }
}

/// Two seconds from a generator of Numerical Recipes.
#[allow(clippy::cast_possible_truncation)] // a tenth of 1 rounds well
fn noise() -> Vec<f32> {
    let mut bits = 1u32;
    let next = |_| {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(bits) / f64::from(u32::MAX) * 0.2 - 0.1) as f32
    };
    (0..2 * RATE_HZ).map(next).collect()
}

fn tone() -> Vec<f32> {
    let step = std::f32::consts::TAU * 440.0 / RATE_HZ as f32;
    (0..2 * RATE_HZ).map(|i| 0.3 * (step * i as f32).sin()).collect()
}

/// The samples that the pipeline makes of a file at the model's rate.
fn samples_at(file: &[u8]) -> anyhow::Result<Vec<f32>> {
    let sound = models::preprocess::audio::wav::read(file)?;
    let samples =
        models::preprocess::audio::resample::resample(sound.samples, sound.rate_hz, RATE_HZ)?;
    ensure!(samples.len() > FRAME, "the sound is too short");
    Ok(samples)
}

/// Pieces, and whether each is the first and the last.
fn pieces(samples: &[f32]) -> Vec<(Tensor, bool, bool)> {
    let (mut rest, mut pieces) = (samples, Vec::new());
    while !rest.is_empty() {
        let size = PIECES[pieces.len() % PIECES.len()].min(rest.len());
        let (piece, after) = rest.split_at(size);
        let shape = vec![1, i64::try_from(size).unwrap_or(i64::MAX)];
        if let Ok(tensor) = Tensor::from_f32("audio", shape, piece) {
            pieces.push((tensor, pieces.is_empty(), after.is_empty()));
        }
        rest = after;
    }
    pieces
}

fn answer(
    agent: &Agent,
    input: &Tensor,
    parameters: &serde_json::Value,
) -> anyhow::Result<Vec<f32>> {
    Ok(floats(&output(&outputs(agent, "speech", input, parameters)?, "output")?))
}

fn over_http(agent: &Agent, samples: &[f32]) -> anyhow::Result<Vec<f32>> {
    let mut all = Vec::new();
    for (piece, start, end) in pieces(samples) {
        let sequence = json!({"sequence_id": 1, "sequence_start": start, "sequence_end": end});
        all.extend(answer(agent, &piece, &sequence)?);
    }
    Ok(all)
}

fn over_grpc(agent: &Agent, samples: &[f32]) -> anyhow::Result<Vec<f32>> {
    let client = GrpcClient::connect(agent.grpc_address())?;
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let mut all = Vec::new();
    for (piece, start, end) in pieces(samples) {
        let mut request = grpc::request("speech", &[piece]);
        request.parameters = [
            ("sequence_id".into(), parameter(ParameterChoice::StringParam("microphone".into()))),
            ("sequence_start".into(), parameter(ParameterChoice::BoolParam(start))),
            ("sequence_end".into(), parameter(ParameterChoice::BoolParam(end))),
        ]
        .into();
        let answer = client.infer(&request)?.inference()?;
        let index = answer.outputs.iter().position(|o| o.name == "output").context("no output")?;
        all.extend(floats(&answer.raw_output_contents[index]));
    }
    Ok(all)
}
