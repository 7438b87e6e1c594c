//! EfficientNet-Lite0 on photos as they come from a camera: JPEG files.

use super::{Proof, author, floats, output, outputs, patient};
use crate::bad::bytes_input;
use crate::world::Agent;
use anyhow::Context;
use protocol::tensor::{DataType, Tensor, TensorMeta};
use std::path::{Path, PathBuf};

const RECIPE: &str = include_str!("../../../models/tests/recipes/photos.toml");

/// Photos with the most probable label, and its probability in Python (Pillow and onnxruntime, whose
/// decoder and filter differ by a little).
const EXPECTED: [(&str, &str, f32); 6] = [
    ("cat-chelsea.jpg", "tiger cat", 0.391),
    ("coffee.jpg", "espresso", 0.942),
    ("camera-tripod.jpg", "tripod", 0.935),
    ("space-shuttle.jpg", "space shuttle", 0.444),
    ("rocket.jpg", "missile", 0.446),
    ("clock.jpg", "wall clock", 0.137),
];
const TOLERANCE: f32 = 0.02;

/// In the folder of the models, or beside it.
fn photos(models: &Path) -> anyhow::Result<PathBuf> {
    let places = [models.join("photos"), models.join("../photos")];
    let found = places.into_iter().find(|folder| folder.is_dir());
    found.context("a folder photos is needed in the folder of the models, or beside it")
}

pub(super) fn write(models: &Path, folder: &Path) -> anyhow::Result<()> {
    let photos = photos(models)?;
    let files = [
        (&*models.join("efficientnet-lite0.onnx"), "model.onnx"),
        (&*models.join("imagenet-labels.json"), "imagenet-labels.json"),
        (&*photos.join("coffee.jpg"), "coffee.jpg"),
        (&*photos.join("clock.jpg"), "clock.jpg"),
    ];
    author(folder, RECIPE, &files)
}

pub(super) fn prove(agent: &Agent, models: &Path) -> anyhow::Result<Proof> {
    let mut proof =
        Proof::new(&["photo", "label", "probability", "in Python", "then", "as expected"]);
    let photos = photos(models)?;
    for (photo, expected, probability) in EXPECTED {
        let path = photos.join(photo);
        let file = std::fs::read(&path).with_context(|| format!("{} is needed", path.display()))?;
        let answer = outputs(agent, "photos", &bytes_input("image", &[file])?, &patient())?;
        let labels = texts(output(&answer, "label")?)?;
        let shares = floats(&output(&answer, "probability")?);
        let near = (shares[0] - probability).abs() < TOLERANCE;
        let good = proof.claim(labels[0] == expected && near, || {
            format!("{photo} is {} ({:.3}), not {expected} ({probability})", labels[0], shares[0])
        });
        proof.table.add_row([
            photo.to_owned(),
            labels[0].clone(),
            format!("{:.3}", shares[0]),
            format!("{probability:.3}"),
            format!("{} {:.3}", labels[1], shares[1]),
            good.to_owned(),
        ]);
    }
    Ok(proof)
}

fn texts(bytes: Vec<u8>) -> anyhow::Result<Vec<String>> {
    let meta = TensorMeta::new("label", DataType::Bytes, vec![1, 5])?;
    let tensor = Tensor::new(meta, bytes.into())?;
    tensor.byte_elements().map(|b| Ok(String::from_utf8(b.to_vec())?)).collect()
}
