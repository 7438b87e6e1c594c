//! What both variants of the demo pair say about the test images, as they are and changed.

use crate::fashion::{IMAGE_BYTES, Images};
use crate::network::Random;
use crate::world;
use anyhow::Context;
use models::backend::{Backend, Session, SessionOptions};
use models::confidence::{Top, top_classes};
use models::ort_backend::{OrtBackend, find_library};
use protocol::tensor::Tensor;

/// One image, answered by both.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    /// The edge's confidence.
    pub(super) score: f32,
    /// Whether the cloud says something else.
    pub(super) differs: bool,
    /// Whether the edge is wrong where the cloud is right.
    pub(super) wrong: bool,
}

/// How the images are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Darker,
    Brighter,
    Noise,
    Mix,
}

/// Kinds of clothing that are taken for each other: T-shirt, pullover, coat, shirt.
const HARD: [&str; 4] = ["T-shirt/top", "Pullover", "Coat", "Shirt"];

impl Change {
    pub(super) const ALL: [Self; 4] = [Self::Darker, Self::Brighter, Self::Noise, Self::Mix];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Darker => "darker: half of the light",
            Self::Brighter => "brighter: 60 of 255 added",
            Self::Noise => "noise: sigma 40 of 255",
            Self::Mix => "class mix: four kinds of tops",
        }
    }

    fn pixel(self, value: u8, random: &mut Random) -> f32 {
        let value = f32::from(value);
        let changed = match self {
            Self::None | Self::Mix => value,
            Self::Darker => value / 2.0,
            Self::Brighter => value + 60.0,
            Self::Noise => {
                // Box and Muller, 1958.
                let radius = (-2.0 * (1.0 - random.share()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * random.share()).cos();
                #[allow(clippy::cast_possible_truncation)] // a grey value
                let noise = (40.0 * normal) as f32;
                value + noise
            }
        };
        changed.clamp(0.0, 255.0).round() / 255.0
    }
}

fn session(variant: &str) -> anyhow::Result<Box<dyn Session>> {
    let backend = OrtBackend::open(&find_library(None)?)?;
    let onnx = world::fashion().join(format!("{variant}.onnx"));
    Ok(backend.load(&onnx, &SessionOptions::default())?)
}

fn say(session: &mut dyn Session, input: &Tensor) -> anyhow::Result<Top> {
    let outputs = session.run(std::slice::from_ref(input), &[])?;
    let tops = top_classes(outputs.first().context("no logits")?)?;
    tops.first().copied().context("no item")
}

/// The answers to all test images, or to those of the hard kinds.
pub(super) fn answers(change: Change) -> anyhow::Result<Vec<Answer>> {
    let images = Images::test()?;
    let (mut edge, mut cloud) = (session("edge")?, session("cloud")?);
    let labels: Vec<String> =
        serde_json::from_slice(&std::fs::read(world::fashion().join("labels.json"))?)?;
    let mut random = Random::new(28);
    let mut answers = Vec::new();
    for index in 0..images.len() {
        let label = images.label(index);
        if change == Change::Mix && !HARD.contains(&label) {
            continue;
        }
        let pixels: Vec<f32> =
            images.pixels(index).iter().map(|value| change.pixel(*value, &mut random)).collect();
        debug_assert_eq!(pixels.len(), IMAGE_BYTES);
        let input = Tensor::from_f32("image", vec![1, 1, 28, 28], &pixels)?;
        let (said, truth) = (say(edge.as_mut(), &input)?, say(cloud.as_mut(), &input)?);
        let is_right = |top: &Top| labels.get(top.class).is_some_and(|name| name == label);
        answers.push(Answer {
            score: said.confidence,
            differs: said.class != truth.class,
            wrong: !is_right(&said) && is_right(&truth),
        });
    }
    anyhow::ensure!(!answers.is_empty(), "no images of {HARD:?}");
    Ok(answers)
}
