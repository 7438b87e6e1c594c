//! `outrigger model settle`: a fine-tuned model that travels well.

use anyhow::{Context, ensure};
use bytes::Bytes;
use delta::{Grain, LEADING_BITS_MAX, STEP_MAX, Source, Tensor, encode};
use models::onnx::places;
use serde_json::json;
use std::path::{Path, PathBuf};

use crate::output;

/// Arguments of `model settle`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The fine-tuned model.
    #[arg(value_name = "NEW.onnx")]
    onnx: PathBuf,
    /// The version before, which devices have.
    #[arg(long, value_name = "OLD.onnx")]
    base: PathBuf,
    /// How many leading bits of each update are kept, 1 to 24.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(LEADING_BITS_MAX)))]
    bits: u32,
    /// Integer weights of eight bits move by multiples of so many steps; 1 for as they are. At 2 each is off by a step
    /// of its own scale at most: see what that costs with `model evaluate`.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(STEP_MAX)))]
    steps: u32,
    /// The fine-tuned model with its updates rounded.
    #[arg(long, short, value_name = "OUT.onnx")]
    out: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A model's bytes, and where its tensors are.
struct File {
    bytes: Bytes,
    tensors: Vec<Tensor>,
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let what = || format!("cannot read {}", path.display());
        let bytes = Bytes::from(std::fs::read(path).with_context(what)?);
        let tensors = places::tensors(&bytes).with_context(what)?;
        Ok(Self { bytes, tensors })
    }

    fn source(&self) -> Source<'_> {
        Source { bytes: &self.bytes, tensors: &self.tensors }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let (old, new) = (File::read(&args.base)?, File::read(&args.onnx)?);
    let grain = Grain { leading_bits: args.bits, step: args.steps };
    let (settled, found) = delta::settle(old.source(), new.source(), grain);
    ensure!(
        found.tensors > 0,
        "{} and {} have no tensor in common whose updates are rounded (hint: both are versions of one model, with the \
         same names or shapes; integers are rounded with --steps 2)",
        args.base.display(),
        args.onnx.display()
    );
    std::fs::write(&args.out, &settled)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    let settled = File::read(&args.out)?;
    let before = encode(Some(old.source()), new.source())?.len();
    let after = encode(Some(old.source()), settled.source())?.len();
    if args.json {
        output::json(&json!({
            "tensors": found.tensors, "numbers": found.numbers, "moved": found.moved, "bits": args.bits, "steps": args.steps,
            "size_bytes": new.bytes.len(), "delta_bytes_before": before, "delta_bytes": after, "model": args.out,
        }));
        return Ok(());
    }
    output::line(&format!("moved   {} of {} numbers", found.moved, found.numbers));
    let size = |bytes: usize| output::size(bytes as u64);
    let of = size(new.bytes.len());
    output::line(&format!("delta   {} of {of}; {} before", size(after), size(before)));
    output::line(&format!("model   {}", args.out.display()));
    Ok(())
}
