//! `cargo xtask bench`: one measurement by its name.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::{datasets, onnxruntime, programs};

/// Where the bench finds the agent, if not beside itself.
const AGENT_VARIABLE: &str = "OUTRIGGER_AGENT_PROGRAM";

/// Build everything and run one bench.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The bench's name.
    name: String,
    /// Measure for a short time: to see that it runs, not to publish.
    #[arg(long)]
    short: bool,
    /// Build the agent as it is shipped (minutes), and measure that one; for `footprint` its sizes too.
    #[arg(long)]
    dist: bool,
    /// Write the results to FILE as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For `cascade`: the folder with minilm-l6-v2-int8.onnx and its tokenizer, for the task on text; for `compress`, that
    /// with the float models. That of OUTRIGGER_BENCH_MODELS when absent.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// For `compress` and `delta`: only models whose name holds this; for `wan`: only such links, `download` or `moving`.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// For `compress`: keep data, builds and figures in DIR; what is there already is not made again.
    #[arg(long, value_name = "DIR")]
    work: Option<PathBuf>,
    /// For `compress`: time the builds in --work again.
    #[arg(long, requires = "work")]
    retime: bool,
    /// For `cascade`: a pair of your own in place of the two tasks, a folder with model.toml.
    #[arg(long, value_name = "FOLDER", requires = "data")]
    pair: Option<PathBuf>,
    /// For `cascade`: labelled data for that pair, a folder with data.toml.
    #[arg(long, value_name = "DATA", requires = "pair")]
    data: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let library = onnxruntime::bring()?;
    let bench = match args.name.as_str() {
        "telemetry" => programs::build_release_whole("outrigger-bench")?, // it asks records by SQL
        _ => programs::build_release("outrigger-bench")?,
    };
    let mut options = vec![args.name.clone()];
    if args.short {
        options.push("--short".to_owned());
    }
    let mut command = programs::with_library(&bench, &library.path);
    if args.dist {
        if args.name == "footprint" {
            let bare = shipped(&["--no-default-features"])?.metadata()?.len();
            options.extend(["--bare-bytes".to_owned(), bare.to_string()]);
        }
        command.env(AGENT_VARIABLE, shipped(&[])?); // in the place of the bare one
    }
    if args.name == "cascade" {
        options.extend(cascade(args)?);
    }
    if matches!(args.name.as_str(), "compress" | "delta") {
        options.extend(compress(args)?);
        options.extend(args.retime.then(|| "--retime".to_owned()));
    }
    options.extend(args.only.iter().flat_map(|only| ["--only".to_owned(), only.clone()]));
    options.extend(programs::json_args(args.json.as_deref()));
    Ok(programs::exec(command.args(options))?)
}

/// What the cascade bench works on, and where its plots go.
fn cascade(args: &Args) -> anyhow::Result<Vec<String>> {
    let plots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/cascade");
    let mut given = vec![("--plots", Some(plots))];
    if args.pair.is_some() {
        given.extend([("--pair", args.pair.clone()), ("--data", args.data.clone())]);
    } else {
        let cache = onnxruntime::cache_folder()?;
        given.push(("--fashion", datasets::fashion(&cache)));
        given.push(("--lines", datasets::lines(&cache)));
        given.push(("--models", models(args)));
    }
    Ok(options_of(given))
}

/// What the compression bench works on.
fn compress(args: &Args) -> anyhow::Result<Vec<String>> {
    let cache = onnxruntime::cache_folder()?;
    Ok(options_of(vec![
        ("--lines", datasets::lines(&cache)),
        ("--ocr", datasets::ocr(&cache)),
        ("--models", models(args)),
        ("--work", args.work.clone()),
    ]))
}

fn models(args: &Args) -> Option<PathBuf> {
    let variable = std::env::var_os(crate::prove::pipelines::MODELS_VARIABLE);
    args.models.clone().or_else(|| variable.map(PathBuf::from))
}

/// Those options that have a path.
fn options_of(given: Vec<(&str, Option<PathBuf>)>) -> Vec<String> {
    let pairs = given.into_iter().filter_map(|(name, path)| Some((name, path?)));
    pairs.flat_map(|(name, path)| [name.to_owned(), path.to_string_lossy().into_owned()]).collect()
}

/// The agent's program, built to be shipped with these options.
fn shipped(options: &[&str]) -> anyhow::Result<PathBuf> {
    Ok(programs::build_with(&["outrigger-agent"], "dist", options, "outrigger-agent")?)
}
