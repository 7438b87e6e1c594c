//! A whole fleet on loopback, in a temporary folder: the three real programs, started, stopped
//! and killed as a person would. Everything ends with the value that started it.

mod ageing;
mod agent;
mod api;
mod cloud;
mod cpu;
mod node;
mod operator;
mod process;
mod publisher;

pub use agent::{Agent, AgentOptions, Environment, model_status};
pub use api::{Api, ApiResponse};
pub use cloud::Cloud;
pub use cpu::{CpuMeter, with_descendants};
pub use node::Node;
pub use operator::Operator;
pub use process::{Process, eventually, program, pss_kb};
pub use publisher::{Edge, Publisher, Single};

use anyhow::Context;
use protocol::token::Token;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The folder of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The demo model pair.
pub fn fashion() -> PathBuf {
    repository().join("models/zoo/fashion")
}

/// The demo pair in a folder that may be changed, as it is even where there was one.
///
/// # Errors
/// A file cannot be copied.
pub fn copy_of_fashion(to: &Path) -> std::io::Result<PathBuf> {
    let folder = to.join("fashion");
    std::fs::create_dir_all(folder.join("data"))?;
    for file in [
        "model.toml",
        "labels.json",
        "edge.onnx",
        "cloud.onnx",
        "data/calibration-images.u8",
        "data/calibration-labels.u8",
    ] {
        std::fs::copy(fashion().join(file), folder.join(file))?;
    }
    Ok(folder)
}

/// A cloud, an operator who is signed in, and a folder for agents.
pub struct World {
    folder: tempfile::TempDir,
    /// The cloud.
    pub cloud: Cloud,
    /// The operator's command.
    pub operator: Operator,
}

impl World {
    /// Starts a cloud on a free port and signs the operator in.
    ///
    /// # Errors
    /// A program that does not start, with what it printed.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_as(&[], &[])
    }

    /// The same with these variables in the cloud's environment.
    ///
    /// # Errors
    /// A program that does not start, with what it printed.
    pub fn start_in(environment: &Environment) -> anyhow::Result<Self> {
        Self::start_as(&[], environment)
    }

    /// Starts a cloud with more arguments, and signs the operator in.
    ///
    /// # Errors
    /// A program that does not start, with what it printed.
    pub fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_as(arguments, &[])
    }

    /// Starts a cloud on a free port of this address, with more arguments, and signs the operator in.
    ///
    /// # Errors
    /// A program that does not start, with what it printed.
    pub fn start_at(address: IpAddr, arguments: &[&str]) -> anyhow::Result<Self> {
        let listen = SocketAddr::new(address, 0).to_string();
        Self::start_whole(&listen, arguments, &[])
    }

    fn start_as(arguments: &[&str], environment: &Environment) -> anyhow::Result<Self> {
        Self::start_whole("127.0.0.1:0", arguments, environment)
    }

    fn start_whole(
        listen: &str,
        arguments: &[&str],
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("outrigger-").tempdir()?;
        let data_dir = folder.path().join("cloud");
        let cloud = Cloud::start_at(listen, &data_dir, arguments, environment)?;
        let operator = Operator::new(&folder.path().join("operator"));
        operator.login(&cloud)?;
        Ok(Self { folder, cloud, operator })
    }

    /// The temporary folder of everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder after the end.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Pushes the demo models and assigns them to every device.
    ///
    /// # Errors
    /// What the operator's command printed.
    pub fn ship_fashion(&self) -> anyhow::Result<()> {
        let folder = fashion();
        self.operator.run(&["model", "push", &folder.to_string_lossy()])?;
        self.operator.run(&["model", "assign", "fashion", "--all"])?;
        Ok(())
    }

    /// A fresh one-time token in a file.
    ///
    /// # Errors
    /// What the operator's command printed.
    pub fn token(&self) -> anyhow::Result<PathBuf> {
        let file = tempfile::Builder::new().prefix("token-").tempfile_in(self.folder())?;
        let (_, path) = file.keep()?;
        std::fs::remove_file(&path)?;
        self.operator.run(&["device", "token", "-o", &path.to_string_lossy()])?;
        Ok(path)
    }

    /// A token for so many simulated devices, `sim-1` and on.
    ///
    /// # Errors
    /// What the operator's command printed.
    pub fn fleet_token(&self, count: usize, more: &[&str]) -> anyhow::Result<Token> {
        let file = self.folder().join("fleet.token");
        let (path, count) = (file.to_string_lossy(), count.to_string());
        let token = ["device", "token", "--count", &count, "--label", "sim-{n}", "-o", &path];
        self.operator.run(&[&token, more].concat())?;
        Ok(std::fs::read_to_string(&file)?.parse()?)
    }

    /// Enrols a new device and starts its agent.
    ///
    /// # Errors
    /// A program that does not start, with what it printed.
    pub fn agent(&self, name: &str, options: &AgentOptions) -> anyhow::Result<Agent> {
        let state_dir = self.folder().join(name);
        Agent::enrol(&state_dir, &self.cloud.address(), &self.token()?)
            .with_context(|| format!("cannot enrol {name}"))?;
        Agent::start(&state_dir, options)
    }
}
