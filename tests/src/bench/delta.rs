//! What a new version of a model costs on the way: whole, through zstd, as a patch of general tools, and as a delta.
//!
//! The versions are real ones, of the demo's models and of those in `--models`: trained further, by steps of Adam on
//! all weights or on the last layer; that with its updates rounded (`outrigger model settle`); quantized by this
//! project's own quantizer, with weights rounded by least squares, from two sets of calibration data, and of the model
//! before and after training; pruned. Every delta is applied, and what it makes compared byte by byte.

use serde_json::json;
use std::io::{Cursor, Write};
use std::path::Path;
use std::time::Instant;

use super::compress::Sources;
use super::{BenchReport, Goal, Row, rounded};
use crate::python::Environment;
use models::ort_backend::{OrtBackend, find_library};
use versions::{Kind, Pair, Training};

mod versions;

const PACKAGES: [&str; 7] = [
    "onnx==1.23.2",
    "onnxruntime==1.31.1",
    "numpy",
    "jax==0.10.2",
    "bsdiff4==1.3.2",
    "pillow==12.0.0",
    "tokenizers==0.22.1",
];
/// zstd's level, here and in what is compared.
const LEVEL: i32 = 19;
/// What zstd may look back over: all of any model here (`--long=27`).
const WINDOW_LOG: u32 = 27;
/// bsdiff takes 17 times this in memory, and minutes.
const BSDIFF_MAX_BYTES: usize = 32 << 20;
const GOAL: f64 = 0.30;

/// Runs the bench; `None`, with the reason printed, where there is no registry.
///
/// # Errors
/// A program that does not do its part; a delta that makes another file.
pub fn run(sources: &Sources, short: bool) -> anyhow::Result<Option<BenchReport>> {
    let Some(python) = Environment::with(&PACKAGES)? else { return Ok(None) };
    let passing = tempfile::tempdir()?;
    let folder = sources.work.as_deref().unwrap_or(passing.path());
    let backend = OrtBackend::open(&find_library(None)?)?;
    let training = if short { Training::SHORT } else { Training::WHOLE };
    let maker = versions::Maker { sources, python: &python, backend: &backend, training };
    let mut costs = Vec::new();
    for subject in maker.subjects(folder)? {
        eprintln!("{} ...", subject.name);
        for pair in maker.pairs(&subject, folder)? {
            let cost = Cost::measure(&python, folder, pair)?;
            cost.tell();
            costs.push(cost);
        }
    }
    let rows = costs.iter().map(Cost::row).collect();
    Ok(Some(BenchReport { name: "delta", rows, goals: goals(&costs) }))
}

/// What one new version costs, in bytes.
struct Cost {
    model: String,
    kind: Kind,
    note: String,
    full: usize,
    zstd: usize,
    patch_from: Option<usize>,
    bsdiff: Option<usize>,
    ours: usize,
    encode_s: f64,
    apply_s: f64,
}

impl Cost {
    fn measure(python: &Environment, folder: &Path, pair: Pair) -> anyhow::Result<Self> {
        let Pair { model, kind, note, old, new } = pair;
        let old_bytes = old.as_ref().map(std::fs::read).transpose()?;
        let new_bytes = std::fs::read(&new)?;
        let prefix = old_bytes.as_deref();
        let bsdiff = match (&old, prefix) {
            (Some(old), Some(bytes)) if bytes.len() <= BSDIFF_MAX_BYTES => {
                let patch = folder.join("patch");
                let paths = [old, &new, &patch].map(|path| path.to_string_lossy().into_owned());
                python.run("delta_versions.py", &["bsdiff", &paths[0], &paths[1], &paths[2]])?;
                Some(usize::try_from(patch.metadata()?.len())?)
            }
            _ => None,
        };
        let begin = Instant::now();
        let delta = delta(prefix, &new_bytes)?;
        let encode_s = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let mut made = Vec::with_capacity(new_bytes.len());
        let size = new_bytes.len() as u64;
        ::delta::apply(&*delta, Cursor::new(prefix.unwrap_or_default()), size, &mut made)?;
        let apply_s = begin.elapsed().as_secs_f64();
        anyhow::ensure!(made == new_bytes, "{model}: the delta made another file");
        Ok(Self {
            model,
            kind,
            note,
            full: new_bytes.len(),
            zstd: zstd(&new_bytes, None)?,
            patch_from: prefix.map(|old| zstd(&new_bytes, Some(old))).transpose()?,
            bsdiff,
            ours: delta.len(),
            encode_s,
            apply_s,
        })
    }

    fn share(&self) -> f64 {
        self.ours as f64 / self.full as f64
    }

    fn tell(&self) {
        let Self { kind, full, zstd, patch_from, bsdiff, ours, .. } = self;
        eprintln!(
            "  {}: {full}, zstd {zstd}, patch {patch_from:?}, bsdiff {bsdiff:?}, ours {ours} ({:.3}) {}",
            kind.as_str(),
            self.share(),
            self.note,
        );
    }

    fn row(&self) -> Row {
        let percent = |bytes: usize| format!("{:.1} %", 100.0 * bytes as f64 / self.full as f64);
        let or_not = |bytes: Option<usize>| bytes.map_or_else(|| "-".to_owned(), percent);
        Row(vec![
            ("model", json!(self.model)),
            ("version", json!(self.kind.as_str())),
            ("full, bytes", json!(self.full)),
            ("zstd -19", json!(percent(self.zstd))),
            ("zstd --patch-from", json!(or_not(self.patch_from))),
            ("bsdiff", json!(or_not(self.bsdiff))),
            ("ours", json!(percent(self.ours))),
            ("made in s", json!(rounded(self.encode_s))),
            ("applied in s", json!(rounded(self.apply_s))),
            ("note", json!(self.note)),
        ])
    }
}

fn zstd(bytes: &[u8], prefix: Option<&[u8]>) -> anyhow::Result<usize> {
    let prefix = prefix.unwrap_or_default();
    let mut encoder = zstd::stream::write::Encoder::with_ref_prefix(Vec::new(), LEVEL, prefix)?;
    encoder.set_pledged_src_size(Some(bytes.len() as u64))?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.long_distance_matching(true)?;
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

/// As the cloud makes it.
fn delta(old: Option<&[u8]>, new: &[u8]) -> anyhow::Result<Vec<u8>> {
    let tensors = |bytes: &[u8]| versions::tensors(bytes);
    let (of_old, of_new) = (old.map(tensors).transpose()?, tensors(new)?);
    let old = old.zip(of_old.as_ref()).map(|(bytes, tensors)| ::delta::Source { bytes, tensors });
    Ok(::delta::encode(old, ::delta::Source { bytes: new, tensors: &of_new })?)
}

fn goals(costs: &[Cost]) -> Vec<Goal> {
    let worst = |kind: Kind| {
        let own = costs.iter().filter(|cost| cost.kind == kind);
        own.map(Cost::share).fold(0.0, f64::max)
    };
    Kind::WITH_GOAL.into_iter().map(|(kind, name)| Goal::at_most(name, GOAL, worst(kind))).collect()
}
