//! What is compressed: real models, each with data to calibrate and to choose with, and others to judge with.

use anyhow::Context;
use models::calibrate::random::Random;
use std::fs;
use std::path::{Path, PathBuf};

use super::Sources;
use super::anchor::{CONVOLUTIONS, Config, TRANSFORMER};
use crate::python::Environment;
use crate::world::fashion;

/// Photos whose crops calibrate; the others judge.
const CALIBRATING: [&str; 3] = ["camera-tripod.jpg", "cat-chelsea.jpg", "space-shuttle.jpg"];
const JUDGING: [&str; 3] = ["clock.jpg", "coffee.jpg", "rocket.jpg"];

/// A model and its data.
pub(in crate::bench) struct Subject {
    pub(in crate::bench) name: &'static str,
    pub(in crate::bench) onnx: PathBuf,
    /// To calibrate and to choose with.
    pub(in crate::bench) calibration: PathBuf,
    /// To judge with.
    pub(in crate::bench) evaluation: PathBuf,
    /// How much may be lost.
    pub(in crate::bench) target_drop: f64,
    /// What the anchor is tried with.
    pub(super) anchors: &'static [Config],
    /// For a model that reads.
    pub(in crate::bench) lines: Option<Lines>,
}

impl Subject {
    /// The class that separates its letters, for a model that reads.
    pub(super) fn blank(&self) -> Option<u32> {
        self.lines.as_ref().map(|lines| lines.blank)
    }
}

/// What a model that reads should read.
pub(in crate::bench) struct Lines {
    /// What is written on the lines that are judged.
    pub(in crate::bench) truth: Vec<String>,
    /// The class that separates letters.
    pub(in crate::bench) blank: u32,
}

/// How many items there are of each kind.
#[derive(Clone, Copy)]
pub(in crate::bench) struct Amount {
    /// To calibrate and to choose with.
    pub(in crate::bench) calibration: usize,
    /// To judge with.
    pub(in crate::bench) evaluation: usize,
}

/// Makes the data of every model that is there.
pub(in crate::bench) fn all(
    sources: &Sources,
    python: &Environment,
    folder: &Path,
    amount: Amount,
) -> anyhow::Result<Vec<Subject>> {
    let maker = Maker { sources, python, folder, amount };
    let mut subjects = vec![maker.fashion("fashion-edge"), maker.fashion("fashion-cloud")];
    for (name, side) in [("efficientnet-lite0", 224), ("efficientnet-lite2", 260)] {
        subjects.extend(maker.efficientnet(name, side)?);
    }
    subjects.extend(maker.minilm()?);
    subjects.extend(maker.silero()?);
    subjects.extend(maker.reader()?);
    subjects.extend(maker.detector()?);
    Ok(match &sources.only {
        Some(only) => subjects.into_iter().filter(|s| s.name.contains(only)).collect(),
        None => subjects,
    })
}

struct Maker<'m> {
    sources: &'m Sources,
    python: &'m Environment,
    folder: &'m Path,
    amount: Amount,
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}

impl Maker<'_> {
    fn is_wanted(&self, name: &str) -> bool {
        self.sources.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// A model of the folder with the models, if it is there.
    fn model(&self, name: &str, file: &str) -> Option<PathBuf> {
        let path = self.sources.models.as_ref().map(|folder| folder.join(file));
        let path = path.filter(|path| path.is_file() && self.is_wanted(name));
        if path.is_none() && self.is_wanted(name) {
            println!("SKIPPED: {name}: --models DIR names no folder with {file}");
        }
        path
    }

    fn ocr(&self, name: &str, file: &str) -> Option<PathBuf> {
        let path = self.sources.ocr.as_ref().map(|folder| folder.join(file));
        let path = path.filter(|path| path.is_file() && self.is_wanted(name));
        if path.is_none() && self.is_wanted(name) {
            println!("SKIPPED: {name}: its model is not there");
        }
        path
    }

    fn folders(&self, name: &str) -> anyhow::Result<[PathBuf; 2]> {
        let folders = ["calibration", "evaluation"].map(|part| self.folder.join(name).join(part));
        folders.iter().try_for_each(fs::create_dir_all)?;
        Ok(folders)
    }

    fn fashion(&self, name: &'static str) -> Subject {
        let file = if name.ends_with("edge") { "edge.onnx" } else { "cloud.onnx" };
        Subject {
            name,
            onnx: fashion().join(file),
            calibration: fashion(),
            evaluation: fashion().join("test.toml"),
            target_drop: 0.005,
            anchors: CONVOLUTIONS,
            lines: None,
        }
    }

    fn efficientnet(&self, name: &'static str, side: u32) -> anyhow::Result<Option<Subject>> {
        let Some(onnx) = self.model(name, &format!("{name}.onnx")) else { return Ok(None) };
        let beside = onnx.parent().map(|folder| folder.join("../photos")).unwrap_or_default();
        let inside = onnx.with_file_name("photos");
        let photos = if inside.is_dir() { inside } else { beside };
        let [calibration, evaluation] = self.folders(name)?;
        let steps = "{ step = \"normalize\", mean = [127.0], std = [128.0] }";
        for (folder, count, files) in [
            (&calibration, self.amount.calibration, CALIBRATING),
            (&evaluation, self.amount.evaluation, JUDGING),
        ] {
            if is_made(folder) {
                continue;
            }
            let (side, count) = (side.to_string(), count.to_string());
            let files = files.map(|file| photos.join(file).to_string_lossy().into_owned());
            let mut arguments = vec!["crops", &side, &count, text(folder)?];
            arguments.extend(files.iter().map(String::as_str));
            self.python.run("compress_data.py", &arguments)?;
            describe(folder, "image", "jpg", steps)?;
        }
        let anchors = CONVOLUTIONS;
        let target_drop = 0.01;
        Ok(Some(Subject { name, onnx, calibration, evaluation, target_drop, anchors, lines: None }))
    }

    fn minilm(&self) -> anyhow::Result<Option<Subject>> {
        let name = "minilm";
        let Some(onnx) = self.model(name, "minilm-l6-v2.onnx") else { return Ok(None) };
        let Some(file) = &self.sources.lines else {
            println!("SKIPPED: {name}: the lines are not there");
            return Ok(None);
        };
        let rated = fs::read(file)?;
        let rated = String::from_utf8_lossy(&rated);
        let mut lines: Vec<&str> =
            rated.lines().filter_map(|line| line.split('\t').nth(2)).collect();
        Random::new(20_261_126).shuffle(&mut lines);
        let [calibration, evaluation] = self.folders(name)?;
        let mut left = &lines[..];
        for (folder, count) in
            [(&calibration, self.amount.calibration), (&evaluation, self.amount.evaluation)]
        {
            let (some, rest) = left.split_at(count.min(left.len()));
            left = rest;
            fs::write(folder.join("lines.txt"), some.join("\n"))?;
            let tokenizer = onnx.with_file_name("minilm-l6-v2-tokenizer.json");
            fs::copy(&tokenizer, folder.join("tokenizer.json"))
                .with_context(|| format!("{} is needed", tokenizer.display()))?;
            fs::write(folder.join("data.toml"), SENTENCES)?;
        }
        let anchors = TRANSFORMER;
        Ok(Some(Subject {
            name,
            onnx,
            calibration,
            evaluation,
            target_drop: 0.01,
            anchors,
            lines: None,
        }))
    }

    /// Frames of sounds: tones that glide and pulse, and noise. Its state is that of a stream's beginning.
    fn silero(&self) -> anyhow::Result<Option<Subject>> {
        let name = "silero-vad";
        let Some(onnx) = self.model(name, "silero-vad-16k.onnx") else { return Ok(None) };
        let folders = self.folders(name)?;
        let mut random = Random::new(16_000);
        for (folder, count) in folders.iter().zip([self.amount.calibration, self.amount.evaluation])
        {
            let frames: Vec<u8> =
                (0..count).flat_map(|_| frame(&mut random)).flat_map(f32::to_le_bytes).collect();
            fs::write(folder.join("frames.f32"), frames)?;
            let zeros = vec!["0.0"; 256].join(", ");
            fs::write(folder.join("data.toml"), FRAMES.replace("ZEROS", &zeros))?;
        }
        let [calibration, evaluation] = folders;
        Ok(Some(Subject {
            name,
            onnx,
            calibration,
            evaluation,
            target_drop: 0.005,
            anchors: TRANSFORMER,
            lines: None,
        }))
    }

    fn reader(&self) -> anyhow::Result<Option<Subject>> {
        let name = "ocr-recogniser";
        let Some(onnx) = self.ocr(name, "ch_PP-OCRv4_rec_infer.onnx") else { return Ok(None) };
        let [calibration, evaluation] = self.folders(name)?;
        let steps = "{ step = \"normalize\", mean = [127.5], std = [127.5] }";
        self.rendered("lines", &[&calibration, &evaluation], steps)?;
        let truth = fs::read_to_string(evaluation.join("truth.txt"))?;
        let truth = truth.lines().map(str::to_owned).collect();
        let anchors = CONVOLUTIONS;
        // Of what the float model expects: it is surer of its lines than it is right (83 % of them are).
        let (target_drop, lines) = (0.015, Some(Lines { truth, blank: 0 }));
        Ok(Some(Subject { name, onnx, calibration, evaluation, target_drop, anchors, lines }))
    }

    fn detector(&self) -> anyhow::Result<Option<Subject>> {
        let name = "ocr-detector";
        let Some(onnx) = self.ocr(name, "ch_PP-OCRv4_det_infer.onnx") else { return Ok(None) };
        let [calibration, evaluation] = self.folders(name)?;
        let steps = "{ step = \"normalize\", mean = [123.675, 116.28, 103.53], \
                     std = [58.395, 57.12, 57.375] }";
        self.rendered("pages", &[&calibration, &evaluation], steps)?;
        let anchors = CONVOLUTIONS;
        let target_drop = 0.01;
        Ok(Some(Subject { name, onnx, calibration, evaluation, target_drop, anchors, lines: None }))
    }

    fn rendered(&self, kind: &str, folders: &[&PathBuf], steps: &str) -> anyhow::Result<()> {
        // A page takes as long as dozens of lines.
        let share = if kind == "pages" { 4 } else { 1 };
        // Whole lines decide there, so that it takes many of them to choose.
        let more = if kind == "lines" { 2 } else { 1 };
        let counts = [self.amount.calibration * more, self.amount.evaluation];
        for (seed, (folder, count)) in folders.iter().zip(counts).enumerate() {
            if is_made(folder) {
                continue;
            }
            let (count, seed) = ((count / share).max(12).to_string(), seed.to_string());
            self.python.run("compress_data.py", &[kind, &count, &seed, text(folder)?])?;
            describe(folder, "x", "png", steps)?;
        }
        Ok(())
    }
}

/// Whether a folder's data are there already: the description is written last.
fn is_made(folder: &Path) -> bool {
    folder.join("data.toml").is_file()
}

/// Writes the `data.toml` of a folder of pictures.
fn describe(folder: &Path, input: &str, extension: &str, steps: &str) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut files: Vec<String> = entries.filter(|name| name.ends_with(extension)).collect();
    files.sort();
    let description = format!(
        "[[inputs]]\ninput = \"picture\"\nfiles = {files:?}\n\n[[preprocess]]\ninput = \"picture\"\n\
         targets = {{ values = \"{input}\" }}\nsteps = [{{ step = \"decode\", color = \"rgb\" }}, \
         {steps}, {{ step = \"layout\", order = \"nchw\" }}]\n"
    );
    Ok(fs::write(folder.join("data.toml"), description)?)
}

const SENTENCES: &str = r#"[[inputs]]
input = "text"
lines = "lines.txt"

[[preprocess]]
input = "text"
targets = { ids = "input_ids", mask = "attention_mask", types = "token_type_ids" }
steps = [{ step = "tokenize", file = "tokenizer.json", max_tokens = 256 }]
"#;

const FRAMES: &str = r#"constants = [
    { input = "sr", values = [16000] },
    { input = "state", shape = [2, 1, 128], values = [ZEROS] },
]

[[inputs]]
input = "input"
file = "frames.f32"
datatype = "FP32"
item_shape = [576]
"#;

/// 576 samples at 16 kHz.
#[allow(clippy::cast_possible_truncation)] // samples
fn frame(random: &mut Random) -> Vec<f32> {
    let mut chance = || random.share();
    let (pitch, glide, loud) = (80.0 + 300.0 * chance(), chance() - 0.5, chance().powi(2));
    let (pulse, noise) = (2.0 + 6.0 * chance(), chance() * 0.1);
    let sample = |index: u16| {
        let t = f64::from(index) / 16_000.0;
        let phase = std::f64::consts::TAU * pitch * t * (1.0 + glide * t);
        let voice: f64 = (1..=8u8).map(|n| (phase * f64::from(n)).sin() / f64::from(n)).sum();
        let envelope = 0.6 + 0.4 * (std::f64::consts::TAU * pulse * t).sin();
        (loud * envelope * voice * 0.5 + noise * (chance() - 0.5)) as f32
    };
    (0..576).map(sample).collect()
}
