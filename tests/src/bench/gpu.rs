//! An NVIDIA GPU under the agent, and under the confined workers of the cloud: CUDA is chosen by itself,
//! computes what the CPU computes, and is as fast as in Python's ONNX Runtime. Where there is no such GPU, everything up to the missing driver is
//! shown, and why it ends there.
//!
//! The library is that of the PyPI wheel `onnxruntime-gpu`, checked by its SHA-256; with a driver, the
//! wheels of CUDA 13 and cuDNN 9 are fetched too (2 GB).

use super::{BenchReport, Goal, Row, rounded};
use crate::http::HttpClient;
use crate::python::Environment;
use crate::world::{Agent, AgentOptions, World, model_status};
use anyhow::{Context, bail, ensure};
use models::providers::nvidia_driver;
use protocol::id::ContentHash;
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const WHEEL: &str = "onnxruntime-gpu==1.31.1";
const CUDA_WHEEL: &str = "onnxruntime-gpu[cuda,cudnn]==1.31.1";
/// What is run of the wheels (Linux, x86-64). The wheel of each Python holds its own build of the
/// provider.
const LIBRARY: (&str, &[&str]) = (
    "libonnxruntime.so.1.31.1",
    &["5104254339ecadae808da771bd0b63b240f0dbd466514234905e54372435c303"],
);
const CUDA_PROVIDER: (&str, &[&str]) = (
    "libonnxruntime_providers_cuda.so",
    &[
        "d5290158115fa5569a3fe8f1f4037ee9b0e86658a96e52f852bbb7039aa88137", // Python 3.11
        "8387867e857499e045caff5d13ac6a5de29571c801562fa2dde0e45f1f31de52", // Python 3.12
    ],
);
const BATCHES: [usize; 2] = [1, 32];
/// Callers of the cloud, with one image each: what they send together runs together.
const CALLERS: usize = 64;

/// Measures; nothing, with the reason printed, where there is no GPU or no registry.
///
/// # Errors
/// A promise that is not kept, or a program that does not do its part.
pub fn run(short: bool) -> anyhow::Result<Option<BenchReport>> {
    let driver = nvidia_driver();
    let runtime = if driver.is_ok() { CUDA_WHEEL } else { WHEEL };
    let Some(python) = Environment::with(&[runtime, "onnx==1.19.1", "numpy<3"])? else {
        return Ok(None);
    };
    let site = site_packages(&python)?;
    if driver.is_ok() {
        find_cuda_libraries(&site)?;
    }
    let library = pinned_library(&site)?;
    let world = World::start_in(&[
        ("OUTRIGGER_CLOUD_RUNTIME_LIBRARY", library.clone().into_os_string()),
        ("RUST_LOG", "info,ort=warn,outrigger_cloud=debug".into()),
    ])?;
    let recipe = world.folder().join("recipe");
    python.run("gpu_model.py", &[&recipe.to_string_lossy()])?;
    world.operator.run(&["model", "push", &recipe.to_string_lossy()])?;
    world.operator.run(&["model", "assign", "residual", "--all"])?;
    let config = format!("[runtime]\nlibrary = {library:?}\n"); // the order of providers: its default
    let agent = world.agent("device", &AgentOptions { config })?;
    agent.wait_active("residual", 1)?;
    let status = agent.status()?;
    let choice = model_status(&status, "residual")["running"]["choice"].clone();
    println!("chosen: {choice:#}");
    if let Err(absent) = driver {
        return without_driver(&agent, &choice, &absent.to_string()).map(|()| None);
    }
    let nodes = |field: &str| choice["nodes"][field].as_u64().unwrap_or(0);
    ensure!(choice["provider"] == "cuda", "CUDA was not chosen; the reasons are above");
    ensure!(nodes("taken") > 0, "CUDA took no node");
    let seconds = if short { 3.0 } else { 15.0 };
    let model = recipe.join("model.onnx");
    let mut rows = Vec::new();
    let mut shares = Vec::new();
    for batch in BATCHES {
        let own = through_the_agent(&agent, batch, seconds)?;
        let theirs = in_python(&python, &model, batch, seconds)?;
        shares.push(own / theirs);
        rows.push(Row(vec![
            ("batch", json!(batch)),
            ("agent_images_per_s", json!(rounded(own))),
            ("python_images_per_s", json!(rounded(theirs))),
        ]));
    }
    cloud_is_on_gpu(&world)?;
    let together = through_the_cloud(&world, CALLERS, seconds)?;
    rows.push(Row(vec![
        ("callers_of_the_cloud", json!(CALLERS)),
        ("cloud_images_per_s", json!(rounded(together))),
    ]));
    let timing = |field: &str| choice["timing"][field].as_f64().unwrap_or(f64::MAX) / 1000.0;
    let goals = vec![
        Goal::at_most("one image on CUDA (ms)", timing("cpu_us"), timing("provider_us")),
        Goal::at_most("Python's images/s, over the agent's in batches", 2.0, 1.0 / shares[1]),
    ];
    Ok(Some(BenchReport { name: "gpu", rows, goals }))
}

/// The honest end on a machine without a GPU: the library has CUDA, the agent says what is missing,
/// and answers on the CPU.
fn without_driver(agent: &Agent, choice: &Value, absent: &str) -> anyhow::Result<()> {
    ensure!(choice["provider"] == "cpu", "without a driver nothing but the CPU can be used");
    let passed_over = choice["passed_over"].as_array().context("no list of the others")?;
    let cuda = passed_over.iter().find(|p| p["provider"] == "cuda").context("no word of CUDA")?;
    ensure!(cuda["reason"]["kind"] == "driver-absent", "another reason than the driver: {cuda}");
    let mut client = agent.client()?;
    ask(&mut client, &body(1))?;
    println!("SKIPPED: {absent}. The agent said so, and answered on the CPU.");
    Ok(())
}

fn site_packages(python: &Environment) -> anyhow::Result<PathBuf> {
    let code = "import sysconfig; print(sysconfig.get_paths()['purelib'])";
    let output = python.python().args(["-c", code]).output()?;
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// The library of the wheel, if it is the one that is pinned.
fn pinned_library(site: &Path) -> anyhow::Result<PathBuf> {
    let folder = site.join("onnxruntime/capi");
    for (file, known) in [LIBRARY, CUDA_PROVIDER] {
        let path = folder.join(file);
        let bytes = std::fs::read(&path).with_context(|| format!("no {}", path.display()))?;
        let found = ContentHash::of(&bytes).to_string();
        ensure!(
            known.contains(&found.as_str()),
            "{file} has the SHA-256 {found}, none of {known:?}"
        );
    }
    Ok(folder.join(LIBRARY.0))
}

/// The system's loader looks for CUDA where `LD_LIBRARY_PATH` said at the start of a process, so this
/// one begins anew with the wheels' folders in it.
fn find_cuda_libraries(site: &Path) -> anyhow::Result<()> {
    const STARTED: &str = "OUTRIGGER_BENCH_GPU_STARTED";
    if std::env::var_os(STARTED).is_some() {
        return Ok(());
    }
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(site.join("nvidia")).context("no CUDA wheels")? {
        let folder = entry?.path().join("lib");
        if folder.is_dir() {
            folders.push(folder);
        }
    }
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&before));
    let mut again = Command::new(std::env::current_exe()?);
    again.args(std::env::args_os().skip(1)).env(STARTED, "1");
    again.env("LD_LIBRARY_PATH", std::env::join_paths(folders)?);
    Err(again.exec()).context("cannot start anew")
}

fn body(batch: usize) -> (String, Vec<u8>) {
    let bytes = batch * 3 * 224 * 224 * 4;
    let head = json!({
        "parameters": { "timeout": 60_000_000 },
        "inputs": [{
            "name": "image", "datatype": "FP32", "shape": [batch, 3, 224, 224],
            "parameters": { "binary_data_size": bytes },
        }],
        "outputs": [{ "name": "logits", "parameters": { "binary_data": true } }],
    });
    let mut body = head.to_string().into_bytes();
    let head_bytes = body.len().to_string();
    body.resize(body.len() + bytes, 0);
    (head_bytes, body)
}

fn ask(client: &mut HttpClient, (head_bytes, body): &(String, Vec<u8>)) -> anyhow::Result<()> {
    let headers = [("Inference-Header-Content-Length", head_bytes.as_str())];
    let response = client.post("/v2/models/residual/infer", &headers, body)?;
    if response.status != 200 {
        bail!("{}: {}", response.status, response.json()?);
    }
    Ok(())
}

/// The cloud's workers use the GPU, or say why not.
fn cloud_is_on_gpu(world: &World) -> anyhow::Result<()> {
    let mut client = world.cloud.client()?;
    let admin = world.cloud.admin()?;
    let headers = [("Authorization", admin.as_str())];
    let config = client.get_with("/v2/models/residual/config", &headers)?.json()?;
    let log = std::fs::read_to_string(world.cloud.data_dir().with_extension("log"))?;
    let told = |line: &&str| {
        ["passed over", "accelerated", "share a run"].iter().any(|w| line.contains(w))
    };
    log.lines().filter(told).for_each(|line| println!("cloud: {line}"));
    ensure!(
        config["instance_group"][0]["kind"] == "KIND_GPU",
        "the cloud's worker runs on something else; the reasons are above: {config}"
    );
    Ok(())
}

/// Callers with one image each at a time, over TLS.
fn through_the_cloud(world: &World, callers: usize, seconds: f64) -> anyhow::Result<f64> {
    let (head_bytes, body) = body(1);
    let admin = world.cloud.admin()?;
    let headers =
        [("Inference-Header-Content-Length", head_bytes.as_str()), ("Authorization", &admin)];
    let work = |end: Instant| -> anyhow::Result<usize> {
        let (mut client, mut count) = (world.cloud.client()?, 0);
        while Instant::now() < end {
            let response = client.post("/v2/models/residual/infer", &headers, &body)?;
            ensure!(response.status == 200, "{}: {}", response.status, response.json()?);
            count += 1;
        }
        Ok(count)
    };
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    let count = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(|| work(end))).collect();
        let counts = threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a panic")));
        counts.sum::<anyhow::Result<usize>>()
    })?;
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

/// Two applications at a time, so that the next batch is there when one is done.
fn through_the_agent(agent: &Agent, batch: usize, seconds: f64) -> anyhow::Result<f64> {
    let request = body(batch);
    let mut clients = [agent.client()?, agent.client()?];
    for client in &mut clients {
        ask(client, &request)?;
    }
    let begin = Instant::now();
    let end = begin + Duration::from_secs_f64(seconds);
    let work = |client: &mut HttpClient| -> anyhow::Result<usize> {
        let mut count = 0;
        while Instant::now() < end {
            ask(client, &request)?;
            count += batch;
        }
        Ok(count)
    };
    let count = std::thread::scope(|scope| {
        let threads = clients.each_mut().map(|client| scope.spawn(|| work(client)));
        let counts = threads.map(|thread| thread.join().unwrap_or_else(|_| bail!("a panic")));
        counts.into_iter().sum::<anyhow::Result<usize>>()
    })?;
    Ok(count as f64 / begin.elapsed().as_secs_f64())
}

fn in_python(
    python: &Environment,
    model: &Path,
    batch: usize,
    seconds: f64,
) -> anyhow::Result<f64> {
    let (batch, seconds) = (batch.to_string(), seconds.to_string());
    let arguments = [&*model.to_string_lossy(), "CUDAExecutionProvider", &batch, &seconds];
    let said: Value = serde_json::from_str(&python.run("images_per_second.py", &arguments)?)?;
    ensure!(said["used"] == "CUDAExecutionProvider", "Python does not run on CUDA: {said}");
    said["images_per_s"].as_f64().context("no figure")
}
