//! `outrigger` under test.

use super::cloud::Cloud;
use super::process::program;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// An operator with a configuration folder of their own.
pub struct Operator {
    config_dir: PathBuf,
}

impl Operator {
    /// An operator who is not signed in yet.
    pub fn new(config_dir: &Path) -> Self {
        Self { config_dir: config_dir.to_owned() }
    }

    /// The configuration folder.
    pub fn config_dir(&self) -> &Path {
        &self.config_dir
    }

    /// Signs in with the cloud's first admin key.
    ///
    /// # Errors
    /// What the command printed.
    pub fn login(&self, cloud: &Cloud) -> anyhow::Result<()> {
        let key = cloud.data_dir().join("admin.key");
        self.run(&["login", "--cloud", &cloud.address(), "--key-file", &key.to_string_lossy()])?;
        Ok(())
    }

    /// Runs `outrigger ARGS`; its stdout.
    ///
    /// # Errors
    /// It fails; with what it printed.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(program("outrigger")?)
            .args(args)
            .env("OUTRIGGER_CONFIG_DIR", &self.config_dir)
            .output()?;
        if !output.status.success() {
            let printed = String::from_utf8_lossy(&output.stderr);
            bail!("outrigger {}: {}\n{printed}", args.join(" "), output.status);
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `outrigger ARGS --json`; what it says.
    ///
    /// # Errors
    /// It fails, or does not print JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<serde_json::Value> {
        let text = self.run(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }
}
