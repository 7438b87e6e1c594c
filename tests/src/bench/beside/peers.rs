//! Other servers, where they install: mosec, and Triton with its Python backend. Both run ONNX
//! Runtime of the same version with one thread; each request alone, or in batches as we do, for which
//! both hold requests back for a fixed time.

use super::servers::{Server, Speech};
use super::subjects::Subject;
use crate::python::Environment;
use crate::world::Process;
use anyhow::{Context, bail};
use protocol::tensor::Tensor;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::ScopedJoinHandle;

const MOSEC: [&str; 3] = ["mosec==0.9.8", "onnxruntime==1.31.1", "numpy"];
const TRITON: [&str; 3] = ["nvidia-pytriton==0.7.0", "onnxruntime==1.31.1", "numpy"];
const TRITON_MODEL: &str = include_str!("../../../python/triton_model.py");

/// What shares a run at most: as on our cloud.
const BATCH_ITEMS: u32 = 32;
/// How long the first request of a batch waits for others. Between the 100 us of Triton's own examples and
/// the 10 ms of mosec's.
const BATCH_WAIT_MS: u32 = 2;

/// How the others are configured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Batching {
    /// As they come: each request is a run.
    Off,
    /// As our cloud is: requests share runs.
    On,
}

/// A server that runs, and the ways to ask it.
struct Peer {
    process: Process,
    batching: Batching,
    doors: Vec<(&'static str, SocketAddr, Speech)>,
}

/// The peers that run.
pub(in crate::bench) struct Peers(Vec<Peer>);

impl Peers {
    /// Starts those that install, once for each way to configure them; the reason for each other one
    /// is printed.
    pub(in crate::bench) fn start(
        folder: &Path,
        subjects: &[Subject],
        ways: &[Batching],
    ) -> anyhow::Result<Self> {
        let start = |batching| {
            let mosec = mosec(folder, subjects, batching)?;
            anyhow::Ok([mosec, triton(folder, subjects, batching)?])
        };
        let peers = std::thread::scope(|scope| {
            let starting: Vec<_> =
                ways.iter().map(|batching| scope.spawn(move || start(*batching))).collect();
            let started = starting.into_iter().map(ScopedJoinHandle::join);
            started.map(|peers| peers.unwrap_or_else(|_| bail!("a panic"))).collect()
        });
        let peers: anyhow::Result<Vec<_>> = peers;
        Ok(Self(peers?.into_iter().flatten().flatten().collect()))
    }

    pub(in crate::bench) fn servers(&self) -> impl Iterator<Item = Server> + '_ {
        self.0.iter().flat_map(|peer| {
            let (process, batches) = (peer.process.id(), peer.batching == Batching::On);
            let server = move |door: &(&'static str, SocketAddr, Speech)| {
                let (name, address, speech) = *door;
                Server::open(name, address, speech, process, batches)
            };
            peer.doors.iter().map(server)
        })
    }
}

fn mosec(folder: &Path, subjects: &[Subject], batching: Batching) -> anyhow::Result<Option<Peer>> {
    let Some(environment) = Environment::with(&MOSEC)? else { return Ok(None) };
    let (address, log) = (free_address()?, batching.named(folder, "mosec").with_extension("log"));
    let name = match batching {
        Batching::Off => "mosec, bytes",
        Batching::On => "mosec in batches, bytes",
    };
    let mut command = environment.command("mosec_server.py");
    command.args(subjects.iter().map(|s| {
        let shape: Vec<String> = s.input.shape().iter().map(i64::to_string).collect();
        let (shape, file) = (shape.join(","), s.onnx.display());
        let (items, wait_ms) =
            if batching.holds_for(s) { (BATCH_ITEMS, BATCH_WAIT_MS) } else { (1, 0) };
        format!("{}={shape}={file}={items}={wait_ms}", s.model)
    }));
    command.args(["--address=127.0.0.1", "--timeout=60000", &format!("--port={}", address.port())]);
    let mut process = Process::start_group(command, &log)?;
    // It listens before its models are loaded, and answers only then.
    process.wait_for("mosec", || {
        let log = fs::read_to_string(&log).ok()?;
        let ready = TcpStream::connect(address).is_ok() && !log.contains("rror");
        ready.then_some(())
    })?;
    Ok(Some(Peer { process, batching, doors: vec![(name, address, Speech::Bytes)] }))
}

fn triton(folder: &Path, subjects: &[Subject], batching: Batching) -> anyhow::Result<Option<Peer>> {
    let Some(environment) = Environment::with(&TRITON)? else { return Ok(None) };
    let packages = environment.packages()?;
    let home = packages.join("pytriton/tritonserver");
    let own = batching.named(folder, "triton");
    lay_out_backend(&home, &own, &environment.version()?)?;
    for subject in subjects {
        let model = own.join("models").join(subject.model);
        lay_out_model(subject, batching, &packages, &model)?;
    }
    let (http, grpc) = (free_address()?, free_address()?);
    let mut command = Command::new(home.join("bin/tritonserver"));
    command.arg("--model-repository").arg(own.join("models"));
    command.arg("--backend-directory").arg(own.join("backends"));
    command.args(["--allow-metrics", "false"]);
    command.args(["--http-address", "127.0.0.1", "--http-port", &http.port().to_string()]);
    command.args(["--grpc-address", "127.0.0.1", "--grpc-port", &grpc.port().to_string()]);
    let mut process = Process::start_group(command, &own.with_extension("log"))?;
    process.wait_for("Triton", || TcpStream::connect(http).ok())?; // it listens once models are loaded
    let names = match batching {
        Batching::Off => ["Triton, HTTP", "Triton, gRPC"],
        Batching::On => ["Triton in batches, HTTP", "Triton in batches, gRPC"],
    };
    let doors = vec![(names[0], http, Speech::Http), (names[1], grpc, Speech::Grpc)];
    Ok(Some(Peer { process, batching, doors }))
}

/// The Python backend with the stub for this interpreter, which it looks for beside itself.
fn lay_out_backend(home: &Path, own: &Path, version: &str) -> anyhow::Result<()> {
    let backend = own.join("backends/python");
    fs::create_dir_all(&backend)?;
    let stub = format!("python_backend_stubs/{version}/triton_python_backend_stub");
    let library = "backends/python/libtriton_python.so";
    let module = "backends/python/triton_python_backend_utils.py";
    for file in [stub.as_str(), library, module] {
        let from = home.join(file);
        symlink(&from, backend.join(from.file_name().context("a name")?))?;
    }
    Ok(())
}

fn lay_out_model(
    subject: &Subject,
    batching: Batching,
    packages: &Path,
    folder: &Path,
) -> anyhow::Result<()> {
    let version = folder.join("1");
    fs::create_dir_all(&version)?;
    symlink(&subject.onnx, version.join("model.onnx"))?;
    let script = TRITON_MODEL.replace("PACKAGES", &packages.to_string_lossy());
    fs::write(version.join("model.py"), script)?;
    let classes = i64::try_from(subject.expected.len())?;
    Ok(fs::write(folder.join("config.pbtxt"), batching.config(subject, classes))?)
}

impl Batching {
    fn holds_for(self, subject: &Subject) -> bool {
        self == Self::On && subject.batches
    }

    fn named(self, folder: &Path, program: &str) -> PathBuf {
        folder.join(match self {
            Self::Off => program.to_owned(),
            Self::On => format!("{program}-batches"),
        })
    }

    /// Triton's configuration of a model. Where it batches, it does not want to hear of the first
    /// dimension.
    fn config(self, subject: &Subject, classes: i64) -> String {
        let skipped = usize::from(self.holds_for(subject));
        let port = |kind: &str, tensor: &str, shape: &[i64]| {
            let dims = &shape[skipped..];
            format!("{kind} [{{ name: \"{tensor}\" data_type: TYPE_FP32 dims: {dims:?} }}]\n")
        };
        let input: &Tensor = &subject.input;
        let together = match self.holds_for(subject) {
            false => "max_batch_size: 0\n".to_owned(),
            true => format!(
                "max_batch_size: {BATCH_ITEMS}\n\
                 dynamic_batching {{ max_queue_delay_microseconds: {} }}\n",
                1000 * BATCH_WAIT_MS
            ),
        };
        let config = [
            "backend: \"python\"\n".to_owned(),
            together,
            port("input", input.name(), input.shape()),
            port("output", subject.output, &[1, classes]),
            "instance_group [{ kind: KIND_CPU count: 1 }]\n".to_owned(),
        ];
        config.concat()
    }
}

/// A port that is free now; these servers cannot be asked to choose one.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
