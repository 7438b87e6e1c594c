//! Three real models, one of each kind, from what an application has to what it wants. They are too
//! large for the project: without the folder that `OUTRIGGER_BENCH_MODELS` names, nothing is tested
//! here. `tests/pipelines.rs` tests the same on small models, always.
//!
//! Photos are looked for in `photos/` beside that folder. The expected numbers come from Python:
//! `onnxruntime` 1.32 with `tokenizers`, `numpy` and Pillow doing what the pipelines do here.

#![cfg(all(feature = "image", feature = "text", feature = "audio"))]
#![allow(clippy::unwrap_used)] // also in the helpers of tests

use outrigger_models::stream::StreamState;
use outrigger_models::worker::Job;
use protocol::tensor::Tensor;

mod support;
use support::speech::vowel;
use support::{Shop, ask, bench_models, bytes, names, texts, wav};

const PHOTOS: &str = include_str!("recipes/photos.toml");

const SENTENCES: &str = include_str!("recipes/sentences.toml");

const SPEECH: &str = include_str!("recipes/speech.toml");

const LINES: [&str; 5] = [
    "A light float lashed to a larger hull keeps the other upright.",
    "An outrigger stabilises a canoe.",
    "Stock markets fell sharply on Tuesday.",
    "Größe, naïve café — 東京 and emoji 🚣",
    "x",
];

/// How the embedding of the first line begins.
const FIRST: [f32; 8] =
    [0.000_259, 0.068_531, -0.051_806, 0.075_179, -0.008_316, -0.032_541, 0.006_872, 0.012_787];

/// Frames of [`vowel`] with their probability of speech.
const VOWEL: [(usize, f32); 9] = [
    (0, 0.001_67),
    (10, 0.005_048),
    (30, 0.003_643),
    (33, 0.856_993),
    (40, 0.589_349),
    (45, 0.275_273),
    (60, 0.059_311),
    (70, 0.002_534),
    (93, 0.001_463),
];

#[test]
fn photos_get_labels_with_probabilities() {
    let Some(models) = bench_models() else { return };
    let photos = models.join("../photos");
    if !photos.is_dir() {
        println!("skipped: no photos beside the models");
        return;
    }
    let shop = Shop::new(PHOTOS);
    shop.copy(&models.join("efficientnet-lite0.onnx"), "model.onnx");
    shop.copy(&models.join("imagenet-labels.json"), "imagenet-labels.json");
    for photo in ["coffee.jpg", "clock.jpg"] {
        shop.copy(&photos.join(photo), photo);
    }
    let model = shop.load().unwrap();
    for (photo, expected, probability) in [
        ("cat-chelsea.jpg", "tiger cat", 0.391),
        ("coffee.jpg", "espresso", 0.942),
        ("camera-tripod.jpg", "tripod", 0.935),
        ("space-shuttle.jpg", "space shuttle", 0.444),
        ("rocket.jpg", "missile", 0.446),
        ("clock.jpg", "wall clock", 0.137),
    ] {
        let file = std::fs::read(photos.join(photo)).unwrap();
        let answer = ask(&model, bytes("image", &[file]), &[]).unwrap();
        assert_eq!(names(&answer), ["label", "probability"]);
        let (labels, shares) = (texts(&answer.outputs[0]), answer.outputs[1].to_f32().unwrap());
        println!("{photo}: {} {:.3}, {} {:.3}", labels[0], shares[0], labels[1], shares[1]);
        assert_eq!((labels[0].as_str(), answer.outputs[0].shape()), (expected, &[1i64, 5][..]));
        assert!((shares[0] - probability).abs() < 0.02, "{photo}: {shares:?}");
        assert_eq!((answer.label.as_deref(), answer.confidence), (Some(expected), Some(shares[0])));
    }
}

#[test]
fn sentences_get_embeddings() {
    let Some(models) = bench_models() else { return };
    let shop = Shop::new(SENTENCES);
    shop.copy(&models.join("minilm-l6-v2-int8.onnx"), "model.onnx");
    shop.copy(&models.join("minilm-l6-v2-tokenizer.json"), "tokenizer.json");
    shop.write("sentences.txt", LINES.join("\n"));
    let model = shop.load().unwrap();
    let long = "all work and no play makes a long sentence ".repeat(60);
    let lines: Vec<&str> = LINES.into_iter().chain([long.as_str()]).collect();
    let embed = |line: &&str| {
        let answer = ask(&model, bytes("text", &[line]), &[]).unwrap();
        assert_eq!((names(&answer), answer.outputs[0].shape()), (vec!["embedding"], &[1, 384][..]));
        answer.outputs[0].to_f32().unwrap()
    };
    let vectors: Vec<Vec<f32>> = lines.iter().map(embed).collect();
    for (value, expected) in vectors[0].iter().zip(FIRST) {
        assert!((value - expected).abs() < 0.01, "{:?}", &vectors[0][..8]); // int8 differs by CPU
    }
    let cosine = |a: usize, b: usize| -> f32 {
        vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum()
    };
    assert!((cosine(0, 0) - 1.0).abs() < 1e-5);
    assert!(cosine(0, 1) > 0.4 && cosine(0, 2) < 0.2, "{} {}", cosine(0, 1), cosine(0, 2));
    let batch = ask(&model, bytes("text", &lines[..2]), &["embedding", "last_hidden_state"]);
    assert_eq!(batch.unwrap().outputs[0].shape(), [2, 384]);
}

#[test]
fn speech_is_found_in_a_file_and_in_a_stream() {
    let Some(models) = bench_models() else { return };
    let shop = Shop::new(SPEECH);
    shop.copy(&models.join("silero-vad-16k.onnx"), "model.onnx");
    shop.write("tone.wav", wav(16_000, &vowel(16_000)));
    let model = shop.load().unwrap();
    let file = wav(16_000, &vowel(16_000));
    let whole = ask(&model, bytes("audio", &[&file]), &[]).unwrap();
    assert_eq!(names(&whole), ["output"]);
    println!("{} frames in {} us", whole.outputs[0].shape()[0], whole.infer_us);
    let whole = whole.outputs[0].to_f32().unwrap();

    // The same samples in pieces of odd lengths, as a microphone gives them.
    let reader = hound::WavReader::new(file.as_slice()).unwrap();
    let samples: Vec<f32> =
        reader.into_samples::<i16>().map(|s| f32::from(s.unwrap()) / 32_768.0).collect();
    let (mut state, mut streamed) = (StreamState::default(), Vec::new());
    for piece in samples.chunks(777) {
        let piece = Tensor::from_f32("audio", vec![1, piece.len() as i64], piece).unwrap();
        let job = Job { inputs: vec![piece], ..Job::default() };
        let answer = model.submit_stream(job, state.into()).unwrap().wait().unwrap();
        streamed.extend(answer.outputs[0].to_f32().unwrap());
        state = answer.stream.unwrap();
    }
    assert_eq!(streamed.len(), samples.len() / 512);
    assert_eq!(whole.len(), samples.len().div_ceil(512));
    for (i, (a, b)) in whole.iter().zip(&streamed).enumerate() {
        assert!((a - b).abs() < 1e-6, "frame {i}: {a} {b}");
    }
    for (frame, expected) in VOWEL {
        assert!((whole[frame] - expected).abs() < 1e-3, "frame {frame}: {}", whole[frame]);
    }
}
