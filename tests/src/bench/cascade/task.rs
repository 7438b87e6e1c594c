//! Tasks: what both models of a pair say to labelled items.

use anyhow::{Context, ensure};
use flate2::read::GzDecoder;
use indicatif::{ProgressBar, ProgressStyle};
use models::authoring::Author;
use models::authoring::dataset::Dataset;
use models::calibrate::Example;
use models::ort_backend::{OrtBackend, find_library};
use protocol::id::Version;
use std::io::Read;
use std::path::Path;

use crate::fashion::IMAGE_BYTES;
use crate::world;

/// A task with what was said; the models are run once.
pub(super) struct Task {
    pub(super) name: String,
    /// First those for calibration.
    pub(super) examples: Vec<Example>,
    /// How many are for calibration; the rest is the test set.
    pub(super) for_calibration: usize,
    /// What a deferral sends, on average.
    pub(super) item_bytes: f64,
    /// The risk of the table of rules.
    pub(super) risk: f64,
    /// The risks of the table of bounds.
    pub(super) risks: [f64; 4],
}

/// Risks for a task that is easy enough for them.
const RISKS: [f64; 4] = [0.005, 0.01, 0.02, 0.05];

impl Task {
    pub(super) fn calibration(&self) -> &[Example] {
        &self.examples[..self.for_calibration]
    }

    pub(super) fn test(&self) -> &[Example] {
        &self.examples[self.for_calibration..]
    }
}

/// The pair of an authoring folder on labelled data: the first half calibrates, the second tests.
pub(super) fn of_pair(pair: &Path, data: &Path) -> anyhow::Result<Task> {
    let author = Author::open(pair)?;
    let data = Dataset::open(data)?;
    ensure!(data.labels().is_some(), "{} has no labels", data.path().display());
    let backend = OrtBackend::open(&find_library(None)?)?;
    let name = author.name().to_string();
    let bar = ProgressBar::new(data.len() as u64);
    bar.set_style(ProgressStyle::with_template("{msg}: {pos}/{len} items, {eta} to go")?);
    bar.set_message(name.clone());
    let mut tell = |done| bar.set_position(done as u64);
    let (examples, _) = author.examples(&data, Version::FIRST, &backend, &mut tell)?;
    bar.finish_and_clear();
    let item_bytes = data.item_bytes()?;
    let for_calibration = examples.len() / 2;
    Ok(Task { name, for_calibration, examples, item_bytes, risk: 0.01, risks: RISKS })
}

/// The demo pair on the 20,000 images of Fashion-MNIST that it was not trained on: 10,000 of the
/// training images to calibrate, the 10,000 test images to test. In short only some of each.
pub(super) fn fashion(downloaded: &Path, short: bool) -> anyhow::Result<Task> {
    let each = if short { 3000 } else { 10_000 };
    let held_out: Vec<u8> = std::fs::read(world::fashion().join("data/held-out.u16le"))?;
    let held_out = held_out.chunks_exact(2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let train = Idx::read(downloaded, "train")?;
    let test = Idx::read(downloaded, "t10k")?;
    let mut pool = Idx { images: Vec::new(), labels: Vec::new() };
    // Calibration and validation images in turn: the first 5,000 are somewhat easier.
    let held_out: Vec<usize> = held_out.collect();
    let (first, second) = held_out.split_at(held_out.len() / 2);
    for index in first.iter().zip(second).flat_map(|(a, b)| [*a, *b]).take(each) {
        pool.push(&train, index);
    }
    (0..each).for_each(|index| pool.push(&test, index));
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("images.u8"), &pool.images)?;
    std::fs::write(folder.path().join("labels.u8"), &pool.labels)?;
    std::fs::write(folder.path().join("data.toml"), DATA)?;
    let task = of_pair(&world::fashion(), folder.path())?;
    Ok(Task { for_calibration: each, ..task })
}

const DATA: &str = "labels = { file = \"labels.u8\", datatype = \"UINT8\" }\n\
    [[inputs]]\ninput = \"image\"\nfile = \"images.u8\"\ndatatype = \"UINT8\"\nitem_shape = [28, 28]\n";

/// Images and labels in MNIST's format.
struct Idx {
    images: Vec<u8>,
    labels: Vec<u8>,
}

impl Idx {
    fn read(folder: &Path, part: &str) -> anyhow::Result<Self> {
        let unpack = |file: String, head: usize| {
            let path = folder.join(file);
            let packed = std::fs::File::open(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let mut bytes = Vec::new();
            GzDecoder::new(packed).read_to_end(&mut bytes)?;
            ensure!(bytes.len() > head, "{} is too short", path.display());
            Ok(bytes.split_off(head))
        };
        let images = unpack(format!("{part}-images-idx3-ubyte.gz"), 16)?;
        let labels = unpack(format!("{part}-labels-idx1-ubyte.gz"), 8)?;
        ensure!(images.len() == labels.len() * IMAGE_BYTES, "images and labels do not match");
        Ok(Self { images, labels })
    }

    fn push(&mut self, from: &Self, index: usize) {
        let at = index * IMAGE_BYTES;
        self.images.extend_from_slice(&from.images[at..at + IMAGE_BYTES]);
        self.labels.push(from.labels[index]);
    }
}
