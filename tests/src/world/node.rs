//! An inference node under test.

use super::process::{Process, eventually, program};
use super::{Environment, Operator, World};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

/// An inference node with its folder. It can be stopped, killed and started again on the same port.
pub struct Node {
    name: String,
    data_dir: PathBuf,
    control: String,
    token: PathBuf,
    address: String,
    process: Option<Process>,
}

impl Node {
    /// Starts a node that joins the world's cloud, on a free loopback port.
    ///
    /// # Errors
    /// It does not get ready; with what it printed.
    pub fn join(world: &World, name: &str) -> anyhow::Result<Self> {
        let token = world.folder().join(format!("{name}.token"));
        let file = token.to_string_lossy();
        let names = ["--label", name, "--name", "127.0.0.1"];
        world.operator.run(&[&["node", "token", "-o", &file][..], &names].concat())?;
        let mut node = Self {
            name: name.to_owned(),
            data_dir: world.folder().join(name),
            control: world.cloud.address(),
            token,
            address: "127.0.0.1:0".into(),
            process: None,
        };
        node.restart()?;
        Ok(node)
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
        command.envs(environment.iter().cloned());
        command.args(["serve", "--role", "inference", "--join", &self.control, "--data-dir"]);
        command.arg(&self.data_dir).args(["--listen", &self.address]);
        command.arg("--token-file").arg(&self.token);
        let mut process = Process::start(command, &self.data_dir.with_extension("log"))?;
        let read = || std::fs::read_to_string(&listening).ok().filter(|t| t.ends_with('\n'));
        self.address = process.wait_for("an inference node", read)?.trim().to_owned();
        self.process = Some(process);
        Ok(())
    }

    /// What the operator calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The running process.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
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

    /// What the control node says of it.
    ///
    /// # Errors
    /// The control node does not answer, or does not know it.
    pub fn entry(&self, operator: &Operator) -> anyhow::Result<Value> {
        let nodes = operator.json(&["node", "list"])?;
        let own = nodes.as_array().and_then(|all| all.iter().find(|n| n["name"] == self.name));
        own.cloned().with_context(|| format!("no {} among {nodes}", self.name))
    }

    /// Waits until the control node sends agents to it.
    ///
    /// # Errors
    /// It never does; with what the node printed.
    pub fn wait_state(&self, operator: &Operator, state: &str) -> anyhow::Result<()> {
        let met = || self.entry(operator).ok().filter(|entry| entry["state"] == state).map(drop);
        let found = eventually(&format!("{} {state}", self.name), Duration::from_secs(60), met);
        found.with_context(|| self.process.as_ref().map(Process::output).unwrap_or_default())
    }

    /// `GET path` over HTTPS with a key (`ID.SECRET`): status and body.
    ///
    /// # Errors
    /// It does not answer.
    pub fn get(&self, path: &str, key: &str) -> anyhow::Result<(u16, Value)> {
        let request = self.https()?.get(format!("https://{}{path}", self.address));
        let mut response = request.header("authorization", format!("Bearer {key}")).call()?;
        let text = response.body_mut().read_to_string()?;
        let status = response.status().as_u16();
        if text.is_empty() && status == 200 {
            return Ok((status, Value::Null));
        }
        match serde_json::from_str(&text) {
            Ok(body) => Ok((status, body)),
            Err(_) => bail!("{path}: {status} {text}"),
        }
    }

    /// `POST path` with JSON over HTTPS, again and again until told to stop; how often it was answered.
    ///
    /// # Errors
    /// It does not answer at all.
    pub fn flood(
        &self,
        path: &str,
        key: &str,
        body: &[u8],
        enough: &AtomicBool,
    ) -> anyhow::Result<u64> {
        let (client, url) = (self.https()?, format!("https://{}{path}", self.address));
        let mut answered = 0;
        while !enough.load(SeqCst) {
            let request = client.post(&url).header("authorization", format!("Bearer {key}"));
            let mut response = request.content_type("application/json").send(body)?;
            answered += u64::from(response.status() == 200);
            response.body_mut().read_to_vec()?;
        }
        Ok(answered)
    }

    fn https(&self) -> anyhow::Result<ureq::Agent> {
        let tls = link::roots::http_client(&self.data_dir.join("node/ca.pem"))?;
        let config = ureq::Agent::config_builder().tls_config(tls).http_status_as_error(false);
        Ok(config.build().new_agent())
    }

    /// How many requests to a model it has answered.
    ///
    /// # Errors
    /// It does not say.
    pub fn answered(&self, model: &str, key: &str) -> anyhow::Result<u64> {
        let (_, body) = self.get(&format!("/v2/models/{model}/stats"), key)?;
        let stats = body["model_stats"].as_array().context("no statistics")?;
        let counts = stats.iter().map(|s| &s["inference_stats"]["success"]["count"]);
        let read = |v: &Value| v.as_u64().or_else(|| v.as_str()?.parse().ok()).unwrap_or(0);
        Ok(counts.map(read).sum())
    }
}
