//! `cargo xtask setup`: what a fresh clone needs beyond Rust.

use serde_json::json;

use crate::onnxruntime;

/// Bring ONNX Runtime (from its PyPI wheel, checked against a pinned SHA-256) and print where it is.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print path, version and source as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let library = onnxruntime::bring()?;
    if args.json {
        let (version, source) = (onnxruntime::VERSION, library.source.name());
        println!("{}", json!({ "path": library.path, "version": version, "source": source }));
    } else {
        println!("{}", library.path.display());
    }
    Ok(())
}
