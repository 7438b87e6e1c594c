//! Triton's load generator, a client that nobody here wrote: it reads metadata, configuration and
//! statistics of a model, asks it over HTTP or gRPC, and gives up on anything that it does not
//! understand.

use crate::python::Environment;
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const PACKAGES: [&str; 2] = ["tritonclient[all]==2.48.0", "nvidia-cuda-runtime-cu12==12.9.79"];

/// The program, where it runs.
pub struct PerfAnalyzer {
    program: PathBuf,
    /// A CUDA library, which it wants even for models without.
    cuda: PathBuf,
}

/// What is asked, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Load<'l> {
    /// The model.
    pub model: &'l str,
    /// The input and its whole shape, for example `x:64`.
    pub shape: &'l str,
    /// Whether the model's first dimension is one of items: one item is sent then.
    pub batches: bool,
    /// Requests under way at a time.
    pub in_flight: usize,
    /// Requests to be measured.
    pub requests: usize,
}

/// Whom it asks.
#[derive(Debug, Clone, Copy)]
pub struct Door<'d> {
    /// Where.
    pub address: SocketAddr,
    /// Over gRPC, or else over HTTP.
    pub grpc: bool,
    /// Over TLS: whom to trust, and what to show.
    pub secured: Option<(&'d Path, &'d str)>,
}

/// What it measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Answers per second.
    pub per_second: f64,
    /// The median time to an answer, in milliseconds.
    pub p50_ms: f64,
    /// The same of the slowest hundredth.
    pub p99_ms: f64,
}

impl PerfAnalyzer {
    /// Finds it. `None`, with the reason printed, where it cannot be got or does not start.
    ///
    /// # Errors
    /// No Python.
    pub fn find() -> anyhow::Result<Option<Self>> {
        let Some(environment) = Environment::with(&PACKAGES)? else { return Ok(None) };
        let cuda = environment.packages()?.join("nvidia/cuda_runtime/lib");
        let found = Self { program: environment.program("perf_analyzer"), cuda };
        let version = found.command().arg("--version").output()?;
        let said = text(&version);
        if said.contains("cannot open shared object file") {
            println!("SKIPPED: {} (libb64-0d is a package of Debian and Ubuntu)", said.trim());
            return Ok(None);
        }
        Ok(Some(found))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LD_LIBRARY_PATH", &self.cuda);
        command
    }

    /// Measures. What it sends is zeros.
    ///
    /// # Errors
    /// It fails, a request of it does, or it says nothing that is known; with what it printed.
    pub fn measure(&self, door: &Door<'_>, load: &Load<'_>) -> anyhow::Result<Measured> {
        let output = self.arguments(door, load).output()?;
        let said = text(&output);
        if !output.status.success() {
            bail!("perf_analyzer failed: {said}");
        }
        Measured::parse(&said).with_context(|| format!("perf_analyzer said: {said}"))
    }

    fn arguments(&self, door: &Door<'_>, load: &Load<'_>) -> Command {
        let mut command = self.command();
        // A name, since its gRPC checks no certificate for an address.
        let host = format!("localhost:{}", door.address.port());
        let protocol = if door.grpc { "grpc" } else { "http" };
        command.args(["-m", load.model, "-i", protocol]);
        command.args(["--input-data", "zero", "--shape", load.shape]);
        if load.batches {
            command.args(["-b", "1"]);
        }
        let in_flight = load.in_flight;
        command.args(["--concurrency-range", &format!("{in_flight}:{in_flight}")]);
        command.args(["--measurement-mode", "count_windows", "--stability-percentage", "999"]);
        command.args(["--measurement-request-count", &load.requests.to_string()]);
        match door.secured {
            None => drop(command.args(["-u", &host])),
            Some((ca, authorization)) => {
                // Lower case: over gRPC no other name of a header is taken.
                command.args(["-H", &format!("authorization:{authorization}")]);
                if door.grpc {
                    command.args(["-u", &host, "--ssl-grpc-use-ssl", "true"]);
                    command.arg("--ssl-grpc-root-certifications-file").arg(ca);
                } else {
                    command.args(["-u", &format!("https://{host}")]);
                    command.arg("--ssl-https-ca-certificates-file").arg(ca);
                }
            }
        }
        command
    }
}

impl Measured {
    fn parse(said: &str) -> Option<Self> {
        let number = |start: &str| {
            let rest = said.lines().find_map(|line| line.trim().strip_prefix(start))?;
            rest.trim().split(' ').next()?.parse::<f64>().ok()
        };
        said.contains("Successful request count").then_some(())?; // of the server's own statistics
        Some(Self {
            per_second: number("Throughput:").filter(|rate| *rate > 1.0)?,
            p50_ms: number("p50 latency:")? / 1000.0,
            p99_ms: number("p99 latency:")? / 1000.0,
        })
    }
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_words_are_understood() {
        let said = "  Client:\n    Request count: 9\n    Throughput: 512.5 infer/sec\n    \
                    p50 latency: 1500 usec\n    p99 latency: 2000 usec\n  Server:\n    \
                    Inference count: 9\n    Successful request count: 9\n";
        let measured = Measured { per_second: 512.5, p50_ms: 1.5, p99_ms: 2.0 };
        assert_eq!(Measured::parse(said), Some(measured));
        assert_eq!(Measured::parse(&said.replace("Successful request", "Failed")), None);
    }
}
