//! The commands, one file each; and the flags that settings can be given by.

pub(crate) mod alerts;
pub(crate) mod backup;
pub(crate) mod ca;
pub(crate) mod check_config;
pub(crate) mod openapi;
pub(crate) mod restore;
#[cfg(target_os = "linux")]
pub(crate) mod run_model;
pub(crate) mod serve;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use outrigger_cloud::backup::{self as backups, Secret};
use outrigger_cloud::settings::{Finding, Flag, LogFormat, Role, Sources};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings from the command line, which go before all others.
#[derive(clap::Args)]
pub(crate) struct SettingFlags {
    /// The configuration; cloud.toml in the data folder where it is absent.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The server's folder: made on the first start, private to its owner.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Where to listen, TCP (operators) and UDP (agents); port 0 takes a free one and writes it to
    /// FOLDER/listening.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// A host name or address under which agents and operators reach this server; repeatable.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// What this server does: everything, or only one part where there are several.
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// The control node that this inference node belongs to, as HOST:PORT.
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
    /// The one-time token with which it joins; of no use afterwards.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where agents reach this inference node, as HOST:PORT.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// ONNX Runtime's shared library; found by itself where it is installed.
    #[arg(long, value_name = "LIBRARY")]
    runtime: Option<PathBuf>,
    /// The collector that is told traces, figures and lines of the log (OTLP), as a URL.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// The share of the requests that are traced where the caller does not say, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    trace_sample: Option<f64>,
    /// How to log to stderr. What to log: RUST_LOG.
    #[arg(long, value_name = "FORMAT")]
    log: Option<LogFormat>,
}

impl SettingFlags {
    /// What settings are made from, in this process.
    pub(crate) fn sources(self) -> Sources {
        let flag = |flag, key, value: Option<String>| {
            value.map(|value| Flag { flag, key, value: value.into() })
        };
        let path = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
        let format = self.log.map(|format| match format {
            LogFormat::Text => "text".to_owned(),
            LogFormat::Json => "json".to_owned(),
        });
        let listen = self.listen.map(|address| address.to_string());
        let named = (!self.names.is_empty()).then(|| Flag {
            flag: "--name",
            key: "server.names",
            value: self.names.into(),
        });
        let sample = self.trace_sample.map(|share| Flag {
            flag: "--trace-sample",
            key: "otlp.sample",
            value: share.into(),
        });
        let flags = [
            flag("--data-dir", "server.data_dir", path(self.data_dir)),
            flag("--listen", "server.listen", listen),
            named,
            flag("--role", "node.role", self.role.map(|role| role.as_str().to_owned())),
            flag("--join", "node.join", self.join),
            flag("--token-file", "node.token_file", path(self.token_file)),
            flag("--advertise", "node.advertise", self.advertise),
            flag("--runtime", "runtime.library", path(self.runtime)),
            flag("--otlp", "otlp.endpoint", self.otlp),
            sample,
            flag("--log", "log.format", format),
        ];
        Sources {
            file: self.config,
            flags: flags.into_iter().flatten().collect(),
            environment: std::env::vars_os().collect(),
        }
    }
}

/// Says on stderr what is wrong.
pub(crate) fn complain(findings: &[Finding]) {
    for finding in findings {
        let key = finding.key.as_deref().map(|key| format!("{key}: ")).unwrap_or_default();
        eprintln!("error: {}: {key}{}", finding.origin, finding.error);
        if !finding.hint.is_empty() {
            eprintln!("hint: {}", finding.hint);
        }
    }
}

/// What a backup is sealed with.
#[derive(clap::Args)]
#[group(id = "secret", multiple = false)]
pub(crate) struct SecretArgs {
    /// The key is in this file, which only you can read.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The passphrase is in this file, or on stdin where it is -.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl SecretArgs {
    pub(crate) fn read(&self) -> anyhow::Result<Secret> {
        let secret = match (&self.key_file, &self.passphrase_file) {
            (Some(path), _) => backups::read_key(path),
            (_, Some(path)) => backups::read_passphrase(path),
            _ => {
                let text = anyhow::anyhow!("a backup is sealed with a key or a passphrase");
                return Err(hinted(text, "name --key-file or --passphrase-file"));
            }
        };
        secret.context("the backup's key or passphrase cannot be used")
    }
}

/// A failure with what a person can do about it; an empty hint is not shown.
#[derive(Debug, thiserror::Error)]
#[error("{error:#}")]
struct Hinted {
    error: anyhow::Error,
    hint: &'static str,
}

/// An error with what a person can do about it.
pub(crate) fn hinted(error: anyhow::Error, hint: &'static str) -> anyhow::Error {
    Hinted { error, hint }.into()
}

/// Says on stderr what went wrong, and what to do about it.
pub(crate) fn report(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
    let hint = error.downcast_ref::<Hinted>().map_or("", |hinted| hinted.hint);
    if !hint.is_empty() {
        eprintln!("hint: {hint}");
    }
}

/// Says on stderr what to do next.
pub(crate) fn advised(text: &str) {
    eprintln!("note: {text}");
}

/// Unix seconds now.
pub(crate) fn now_s() -> i64 {
    outrigger_cloud::state::now_s()
}

/// How far something long has come, on a terminal.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        let bar = ProgressBar::new(0);
        let style = "{msg} {bar:32} {binary_bytes}/{binary_total_bytes} {eta}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar.with_message(what))
    }

    pub(crate) fn at(&self, done: u64, of: u64) {
        self.0.set_length(of);
        self.0.set_position(done);
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}
