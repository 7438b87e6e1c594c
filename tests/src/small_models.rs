//! Models of a few nodes with pipelines of every kind, as authoring folders that `outrigger model push`
//! takes: what they compute can be said in a line, so a test knows what must come out.

use crate::world::World;
use anyhow::Context;
use onnx::{FLOAT, INT64, model, node, value};
use std::path::Path;

#[path = "../../models/tests/support/onnx.rs"]
#[allow(dead_code, clippy::unwrap_used)] // written for tests, and shared with those of `models`
mod onnx;

/// A small model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmallModel {
    /// `pictures`: JPEG, PNG or pixels as `image`; the mean of each colour is its logit, and the
    /// classes are `red`, `green` and `blue`.
    Pictures,
    /// `texts`: UTF-8 as `text`; each of at most four tokens as its number, `[n,tokens,1]`.
    Texts,
    /// `sums`: WAV files or samples at 8 kHz as `audio`; frames of 4 samples and 1 of context, each
    /// with the sum of all frames up to it. Its state is that sum.
    Sums,
    /// `total`: `x` `FP32` `[1,2]`; `y` is the sum of all `x` of the sequence so far.
    Total,
    /// `plain`: `x` `FP32` `[n,2]` as `y`.
    Plain,
}

const PICTURES: &str = r#"
name = "pictures"
[[preprocess]]
input = "image"
steps = [
    { step = "decode", color = "rgb" },
    { step = "resize", width = 8, height = 8 },
    { step = "normalize", mean = [0.0], std = [32.0] },
    { step = "layout", order = "nchw" },
]
[classes]
logits = "logits"
labels = "labels.json"
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-4
inputs = [{ input = "image", file = "pixels.u8", datatype = "UINT8", item_shape = [8, 8, 3] }]
"#;

const TEXTS: &str = r#"
name = "texts"
[[preprocess]]
input = "text"
targets = { ids = "ids" }
steps = [{ step = "tokenize", file = "tokenizer.json", max_tokens = 4 }]
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-6
inputs = [{ input = "text", lines = "lines.txt" }]
"#;

const TOKENIZER: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": { "type": "Lowercase" }, "pre_tokenizer": { "type": "Whitespace" },
    "post_processor": null, "decoder": null,
    "model": { "type": "WordLevel", "unk_token": "[UNK]", "vocab": { "[UNK]": 1, "the": 2, "cat": 3 } }
}"#;

const SUMS: &str = r#"
name = "sums"
[[preprocess]]
input = "audio"
targets = { values = "x" }
steps = [
    { step = "decode-wav" },
    { step = "resample", rate_hz = 8000 },
    { step = "frame", size = 4, context = 1 },
]
[[state]]
output = "sum"
input = "before"
shape = [1, 1]
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-6
inputs = [{ input = "audio", files = ["a.wav"] }]
"#;

const TOTAL: &str = r#"
name = "total"
[[state]]
output = "after"
input = "before"
shape = [1, 2]
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-6
inputs = [{ input = "x", file = "x.f32", datatype = "FP32", item_shape = [2] }]
"#;

const PLAIN: &str = r#"
name = "plain"
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-6
inputs = [{ input = "x", file = "x.f32", datatype = "FP32", item_shape = [2] }]
"#;

impl SmallModel {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pictures => "pictures",
            Self::Texts => "texts",
            Self::Sums => "sums",
            Self::Total => "total",
            Self::Plain => "plain",
        }
    }

    /// Makes its authoring folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        let file = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))
        };
        let floats =
            |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        let (recipe, onnx) = match self {
            Self::Pictures => {
                file("labels.json", br#"["red","green","blue"]"#)?;
                file("pixels.u8", &[10; 8 * 8 * 3])?;
                (PICTURES, mean_of_colours())
            }
            Self::Texts => {
                file("tokenizer.json", TOKENIZER.as_bytes())?;
                file("lines.txt", b"the cat\nthe\n")?;
                (TEXTS, numbers_of_tokens())
            }
            Self::Sums => {
                file("a.wav", &wav(8000, &[0.25; 10]))?;
                (SUMS, sums_of_frames())
            }
            Self::Total => {
                file("x.f32", &floats(&[1.0, 2.0, 3.0, 4.0]))?;
                (TOTAL, running_total())
            }
            Self::Plain => {
                file("x.f32", &floats(&[1.0, 2.0]))?;
                (PLAIN, identity())
            }
        };
        file("model.onnx", &onnx)?;
        file("model.toml", recipe.as_bytes())
    }

    /// Pushes it and assigns it to every device.
    ///
    /// # Errors
    /// What the operator's command printed.
    pub fn ship(self, world: &World) -> anyhow::Result<()> {
        let folder = world.folder().join("models").join(self.name());
        self.write(&folder)?;
        world.operator.run(&["model", "push", &folder.to_string_lossy()])?;
        world.operator.run(&["model", "assign", self.name(), "--all"])?;
        Ok(())
    }
}

fn mean_of_colours() -> Vec<u8> {
    let mean = |from: &str, to: &str, axis| {
        node("ReduceMean", &[from], to, &[("axes", axis), ("keepdims", 0)])
    };
    model(
        &[value("image", FLOAT, &[-1, 3, 8, 8])],
        &[mean("image", "rows", 3), mean("rows", "logits", 2)],
        &[value("logits", FLOAT, &[-1, 3])],
    )
}

fn numbers_of_tokens() -> Vec<u8> {
    model(
        &[value("ids", INT64, &[-1, -1])],
        &[
            node("Cast", &["ids"], "number", &[("to", FLOAT)]),
            node("Unsqueeze", &["number"], "hidden", &[("axes", 2)]),
        ],
        &[value("hidden", FLOAT, &[-1, -1, 1])],
    )
}

fn sums_of_frames() -> Vec<u8> {
    model(
        &[value("x", FLOAT, &[-1, 5]), value("before", FLOAT, &[-1, 1])],
        &[
            node("ReduceSum", &["x"], "new", &[("axes", 1)]),
            node("Add", &["new", "before"], "sum", &[]),
            node("Identity", &["sum"], "y", &[]),
        ],
        &[value("y", FLOAT, &[-1, 1]), value("sum", FLOAT, &[-1, 1])],
    )
}

fn running_total() -> Vec<u8> {
    let pair = |name| value(name, FLOAT, &[1, 2]);
    model(
        &[pair("x"), pair("before")],
        &[node("Add", &["x", "before"], "after", &[]), node("Identity", &["after"], "y", &[])],
        &[pair("y"), pair("after")],
    )
}

fn identity() -> Vec<u8> {
    let pairs = |name| value(name, FLOAT, &[-1, 2]);
    model(&[pairs("x")], &[node("Identity", &["x"], "y", &[])], &[pairs("y")])
}

/// A mono WAV file of 32-bit floats.
pub fn wav(rate_hz: u32, samples: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|v| v.to_le_bytes()).collect();
    wav_that_claims(rate_hz, &data, u32::try_from(data.len()).unwrap_or(u32::MAX))
}

/// The same with these bytes of data, of which its header says that they are so many.
pub fn wav_that_claims(rate_hz: u32, data: &[u8], claimed: u32) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend(claimed.saturating_add(36).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    file.extend(3u16.to_le_bytes()); // floats
    file.extend(1u16.to_le_bytes());
    file.extend(rate_hz.to_le_bytes());
    file.extend((rate_hz * 4).to_le_bytes());
    file.extend(4u16.to_le_bytes());
    file.extend(32u16.to_le_bytes());
    file.extend(b"data");
    file.extend(claimed.to_le_bytes());
    file.extend(data);
    file
}
