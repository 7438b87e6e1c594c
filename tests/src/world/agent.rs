//! `outrigger-agent` under test.

use super::process::{Process, eventually, program};
use crate::http::HttpClient;
use anyhow::{Context, bail};
use serde_json::Value;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// What a test changes of an agent's configuration: its `agent.toml`.
#[derive(Debug, Clone, Default)]
pub struct AgentOptions {
    /// For example `[link]\ndownload_bytes_per_s = 20000`.
    pub config: String,
}

/// What is not said of updates: a new version does not wait for requests that no test sends.
const UPDATE: &str = "\n[update]\nshadow_quiet_s = 1\n";

impl AgentOptions {
    fn text(&self) -> String {
        let says = self.config.contains("[update]");
        format!("{}{}", self.config, if says { "" } else { UPDATE })
    }
}

/// Variables of a program's environment.
pub type Environment = [(&'static str, OsString)];

/// An enrolled, running agent.
pub struct Agent {
    state_dir: PathBuf,
    address: SocketAddr,
    grpc: SocketAddr,
    process: Process,
}

impl Agent {
    /// Runs `outrigger-agent enrol`, whatever comes of it.
    ///
    /// # Errors
    /// It does not start.
    pub fn try_enrol(state_dir: &Path, cloud: &str, token: &Path) -> anyhow::Result<Output> {
        Self::try_enrol_in(state_dir, cloud, token, &[])
    }

    /// Runs `outrigger-agent enrol` with these variables in its environment.
    ///
    /// # Errors
    /// It does not start.
    pub fn try_enrol_in(
        state_dir: &Path,
        cloud: &str,
        token: &Path,
        environment: &Environment,
    ) -> anyhow::Result<Output> {
        let mut command = Command::new(program("outrigger-agent")?);
        command.envs(environment.iter().cloned());
        command.arg("enrol").args(["--cloud", cloud]).arg("--token-file").arg(token);
        Ok(command.arg("--state-dir").arg(state_dir).output()?)
    }

    /// Enrols a device.
    ///
    /// # Errors
    /// What the command printed.
    pub fn enrol(state_dir: &Path, cloud: &str, token: &Path) -> anyhow::Result<()> {
        let output = Self::try_enrol(state_dir, cloud, token)?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Starts the agent of an enrolled device on free ports.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn start(state_dir: &Path, options: &AgentOptions) -> anyhow::Result<Self> {
        Self::start_in(state_dir, options, &[])
    }

    /// Starts another agent than the one under test, on free ports.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn start_program(
        program: &Path,
        state_dir: &Path,
        options: &AgentOptions,
    ) -> anyhow::Result<Self> {
        Self::start_as(program, state_dir, options, &[])
    }

    /// Starts it with these variables in its environment.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn start_in(
        state_dir: &Path,
        options: &AgentOptions,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        Self::start_as(&program("outrigger-agent")?, state_dir, options, environment)
    }

    fn start_as(
        program: &Path,
        state_dir: &Path,
        options: &AgentOptions,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        std::fs::write(state_dir.join("agent.toml"), options.text())?;
        let listening = state_dir.join("listening");
        let _ = std::fs::remove_file(&listening);
        let mut command = Command::new(program);
        command.envs(environment.iter().cloned());
        command.args(["run", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
        command.args(["--metrics", "127.0.0.1:0", "--state-dir"]).arg(state_dir);
        let mut process = Process::start(command, &state_dir.join("agent.log"))?;
        let read = || {
            let text = std::fs::read_to_string(&listening).ok()?;
            let mut lines = text.lines();
            let http = lines.next()?.strip_prefix("http://")?.parse().ok()?;
            Some((http, lines.next()?.strip_prefix("grpc://")?.parse().ok()?))
        };
        let (address, grpc) = process.wait_for("outrigger-agent", read)?;
        Ok(Self { state_dir: state_dir.to_owned(), address, grpc, process })
    }

    /// Where it serves HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves gRPC.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.state_dir.join("agent.sock")
    }

    /// Its state folder.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The running process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A connection to its local API.
    ///
    /// # Errors
    /// It does not listen.
    pub fn client(&self) -> anyhow::Result<HttpClient> {
        HttpClient::connect(self.address)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> anyhow::Result<Value> {
        let response = self.client()?.get("/outrigger/status")?;
        response.json()
    }

    /// Where it listens now: an agent that began anew may do so on another port.
    pub fn address_anew(&self) -> Option<SocketAddr> {
        let text = std::fs::read_to_string(self.state_dir.join("listening")).ok()?;
        text.lines().next()?.strip_prefix("http://")?.parse().ok()
    }

    /// Waits until the status of an agent that may begin anew meets a condition.
    ///
    /// # Errors
    /// It never does; with the last status.
    pub fn wait_anew(&self, what: &str, met: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let found = eventually(what, Duration::from_secs(90), || {
            let mut client = HttpClient::connect(self.address_anew()?).ok()?;
            last = client.get("/outrigger/status").ok()?.json().ok()?;
            met(&last).then(|| last.clone())
        });
        found.with_context(|| format!("last status: {last:#}\n{}", self.process.output()))
    }

    /// Waits until its status meets a condition.
    ///
    /// # Errors
    /// It never does; with the last status.
    pub fn wait_until(&self, what: &str, met: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let found = eventually(what, Duration::from_secs(60), || {
            last = self.status().ok()?;
            met(&last).then(|| last.clone())
        });
        found.with_context(|| format!("last status: {last:#}\n{}", self.process.output()))
    }

    /// Waits until this version of a model is active and the cloud is connected.
    ///
    /// # Errors
    /// It never is.
    pub fn wait_active(&self, model: &str, version: u64) -> anyhow::Result<()> {
        self.wait_until(&format!("{model}@{version} active"), |status| {
            status["connected"] == true && model_status(status, model)["active_version"] == version
        })?;
        Ok(())
    }

    /// Ends it in order and gives back what is needed to start it again.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(self) -> anyhow::Result<PathBuf> {
        self.process.stop()?;
        Ok(self.state_dir)
    }

    /// Kills it and gives back what is needed to start it again.
    pub fn kill(self) -> PathBuf {
        self.process.kill();
        self.state_dir
    }
}

/// The entry of one model in a status report.
pub fn model_status<'a>(status: &'a Value, model: &str) -> &'a Value {
    let models = status["models"].as_array();
    models.and_then(|m| m.iter().find(|m| m["name"] == model)).unwrap_or(&Value::Null)
}
