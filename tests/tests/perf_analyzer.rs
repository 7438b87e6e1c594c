//! Triton's load generator, over HTTP and gRPC: it reads metadata, configuration and statistics of
//! the model, and gives up on anything that it does not understand.
#![allow(clippy::unwrap_used)]

use outrigger_tests::foreign::demo_agent;
use outrigger_tests::python::Environment;
use std::process::{Command, Output};

const PACKAGES: [&str; 2] = ["tritonclient[all]==2.48.0", "nvidia-cuda-runtime-cu12==12.9.79"];

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .join("")
}

/// The program, which wants the CUDA library of a wheel, and a base64 library of the system.
fn program(environment: &Environment) -> Option<Command> {
    let cuda = environment.packages().unwrap().join("nvidia/cuda_runtime/lib");
    let command = || {
        let mut command = Command::new(environment.program("perf_analyzer"));
        command.env("LD_LIBRARY_PATH", &cuda);
        command
    };
    let version = command().arg("--version").output().unwrap();
    let said = text(&version);
    if said.contains("cannot open shared object file") {
        println!("SKIPPED: {} (libb64-0d is a package of Debian and Ubuntu)", said.trim());
        return None;
    }
    Some(command())
}

#[test]
fn perf_analyzer_measures_over_http_and_grpc() {
    let Some(environment) = Environment::with(&PACKAGES).unwrap() else { return };
    if program(&environment).is_none() {
        return;
    }
    let (_world, agent) = demo_agent().unwrap();
    for (protocol, address) in [("http", agent.address()), ("grpc", agent.grpc_address())] {
        let mut command = program(&environment).unwrap();
        command.args(["-m", "fashion", "-i", protocol, "-u", &address.to_string()]);
        command.args(["--input-data", "zero", "--shape", "image:1,28,28", "-b", "1"]);
        command.args(["--concurrency-range", "2:2", "--measurement-mode", "count_windows"]);
        command.args(["--measurement-request-count", "200", "--stability-percentage", "999"]);
        let output = command.output().unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{protocol}: {said}");
        let throughput = said.lines().find_map(|line| line.trim().strip_prefix("Throughput: "));
        let rate = throughput.and_then(|t| t.split(' ').next()).and_then(|t| t.parse::<f64>().ok());
        assert!(rate.is_some_and(|rate| rate > 1.0), "{protocol}: {said}");
        assert!(said.contains("Successful request count"), "no statistics of the server: {said}");
    }
}
