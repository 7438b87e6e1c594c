//! Other servers, where they install: mosec, and Triton with its Python backend. Both run ONNX
//! Runtime of the same version with one thread.

use super::servers::{Server, Speech};
use super::subjects::Subject;
use crate::python::Environment;
use crate::world::Process;
use anyhow::Context;
use protocol::tensor::Tensor;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const MOSEC: [&str; 3] = ["mosec==0.9.8", "onnxruntime==1.31.1", "numpy"];
const TRITON: [&str; 3] = ["nvidia-pytriton==0.7.0", "onnxruntime==1.31.1", "numpy"];
const TRITON_MODEL: &str = include_str!("../../../python/triton_model.py");

/// A server that runs, and the ways to ask it.
struct Peer {
    process: Process,
    doors: Vec<(&'static str, SocketAddr, Speech)>,
}

/// The peers that run.
pub(in crate::bench) struct Peers(Vec<Peer>);

impl Peers {
    /// Starts those that install; the reason for each other one is printed.
    pub(in crate::bench) fn start(folder: &Path, subjects: &[Subject]) -> anyhow::Result<Self> {
        let peers = [mosec(folder, subjects)?, triton(folder, subjects)?];
        Ok(Self(peers.into_iter().flatten().collect()))
    }

    pub(in crate::bench) fn servers(&self) -> impl Iterator<Item = Server> + '_ {
        self.0.iter().flat_map(|peer| {
            let process = peer.process.id();
            let server = move |door: &(&'static str, SocketAddr, Speech)| {
                let (name, address, speech) = *door;
                Server::open(name, address, speech, process)
            };
            peer.doors.iter().map(server)
        })
    }
}

fn mosec(folder: &Path, subjects: &[Subject]) -> anyhow::Result<Option<Peer>> {
    let Some(environment) = Environment::with(&MOSEC)? else { return Ok(None) };
    let address = free_address()?;
    let mut command = environment.command("mosec_server.py");
    command.args(subjects.iter().map(|s| {
        let shape: Vec<String> = s.input.shape().iter().map(i64::to_string).collect();
        format!("{}={}={}", s.model, shape.join(","), s.onnx.display())
    }));
    command.args(["--address=127.0.0.1", "--timeout=60000", &format!("--port={}", address.port())]);
    let mut process = Process::start_group(command, &folder.join("mosec.log"))?;
    // It listens before its models are loaded, and answers only then.
    process.wait_for("mosec", || {
        let log = fs::read_to_string(folder.join("mosec.log")).ok()?;
        let ready = TcpStream::connect(address).is_ok() && !log.contains("rror");
        ready.then_some(())
    })?;
    Ok(Some(Peer { process, doors: vec![("mosec, bytes", address, Speech::Bytes)] }))
}

fn triton(folder: &Path, subjects: &[Subject]) -> anyhow::Result<Option<Peer>> {
    let Some(environment) = Environment::with(&TRITON)? else { return Ok(None) };
    let packages = environment.packages()?;
    let home = packages.join("pytriton/tritonserver");
    let own = folder.join("triton");
    lay_out_backend(&home, &own, &environment.version()?)?;
    for subject in subjects {
        lay_out_model(subject, &packages, &own.join("models").join(subject.model))?;
    }
    let (http, grpc) = (free_address()?, free_address()?);
    let mut command = Command::new(home.join("bin/tritonserver"));
    command.arg("--model-repository").arg(own.join("models"));
    command.arg("--backend-directory").arg(own.join("backends"));
    command.args(["--allow-metrics", "false"]);
    command.args(["--http-address", "127.0.0.1", "--http-port", &http.port().to_string()]);
    command.args(["--grpc-address", "127.0.0.1", "--grpc-port", &grpc.port().to_string()]);
    let mut process = Process::start_group(command, &folder.join("triton.log"))?;
    process.wait_for("Triton", || TcpStream::connect(http).ok())?; // it listens once models are loaded
    let doors = vec![("Triton, HTTP", http, Speech::Http), ("Triton, gRPC", grpc, Speech::Grpc)];
    Ok(Some(Peer { process, doors }))
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

fn lay_out_model(subject: &Subject, packages: &Path, folder: &Path) -> anyhow::Result<()> {
    let version = folder.join("1");
    fs::create_dir_all(&version)?;
    symlink(&subject.onnx, version.join("model.onnx"))?;
    let script = TRITON_MODEL.replace("PACKAGES", &packages.to_string_lossy());
    fs::write(version.join("model.py"), script)?;
    let port = |kind: &str, tensor: &str, shape: &[i64]| {
        format!("{kind} [{{ name: \"{tensor}\" data_type: TYPE_FP32 dims: {shape:?} }}]\n")
    };
    let input: &Tensor = &subject.input;
    let classes = i64::try_from(subject.expected.len())?;
    let config = [
        "backend: \"python\"\nmax_batch_size: 0\n".to_owned(),
        port("input", input.name(), input.shape()),
        port("output", subject.output, &[1, classes]),
        "instance_group [{ kind: KIND_CPU count: 1 }]\n".to_owned(),
    ];
    Ok(fs::write(folder.join("config.pbtxt"), config.concat())?)
}

/// A port that is free now; these servers cannot be asked to choose one.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
