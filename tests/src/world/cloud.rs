//! `outrigger-cloud` under test.

use super::agent::Environment;
use super::process::{Process, program};
use crate::http::HttpClient;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cloud with its data folder. It can be stopped, killed and started again on the same port.
pub struct Cloud {
    data_dir: PathBuf,
    arguments: Vec<String>,
    address: String,
    process: Option<Process>,
}

impl Cloud {
    /// Starts a cloud on a free loopback port.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn start(data_dir: &Path) -> anyhow::Result<Self> {
        Self::start_as(data_dir, &[], &[])
    }

    /// Starts a cloud with more arguments, which it has at every start, and with these variables in its
    /// environment, for now.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn start_as(
        data_dir: &Path,
        arguments: &[&str],
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        Self::start_at("127.0.0.1:0", data_dir, arguments, environment)
    }

    /// The same at another address.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn start_at(
        listen: &str,
        data_dir: &Path,
        arguments: &[&str],
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let mut cloud = Self {
            data_dir: data_dir.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            address: listen.into(),
            process: None,
        };
        cloud.restart_in(environment)?;
        Ok(cloud)
    }

    /// Starts it, on the port that it had before.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.restart_in(&[])
    }

    /// Starts it, on the port that it had before, with these variables in its environment.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn restart_in(&mut self, environment: &Environment) -> anyhow::Result<()> {
        self.kill();
        let listening = self.data_dir.join("listening");
        let _ = std::fs::remove_file(&listening);
        let mut command = Command::new(program("outrigger-cloud")?);
        command.env_remove("OUTRIGGER_CLOUD_PROGRAM"); // it says which program this is, and is no setting of it
        command
            .envs(environment.iter().cloned())
            .arg("serve")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", &self.address])
            .args(&self.arguments);
        let log = self.data_dir.with_extension("log");
        let mut process = Process::start(command, &log)?;
        let read = || std::fs::read_to_string(&listening).ok().filter(|t| t.ends_with('\n'));
        self.address = process.wait_for("outrigger-cloud", read)?.trim().to_owned();
        self.process = Some(process);
        Ok(())
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// The certificate of its CA.
    pub fn ca_pem(&self) -> PathBuf {
        self.data_dir.join("ca/ca.pem")
    }

    /// A connection over HTTPS.
    ///
    /// # Errors
    /// It does not answer.
    pub fn client(&self) -> anyhow::Result<HttpClient> {
        HttpClient::connect_tls(self.address.parse()?, &self.ca_pem())
    }

    /// The `Authorization` of the first admin.
    ///
    /// # Errors
    /// Its key's file cannot be read.
    pub fn admin(&self) -> anyhow::Result<String> {
        let key = std::fs::read_to_string(self.data_dir.join("admin.key"))?;
        Ok(format!("Bearer {}", key.trim()))
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The running process.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Ends it in order; its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self) -> anyhow::Result<Option<i32>> {
        self.process.take().map_or(Ok(None), Process::stop)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process = None;
    }
}
