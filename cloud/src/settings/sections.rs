//! The sections that belong to the process as a whole.

use confine::nvidia_gpus;
use fleet::crowd::CrowdPolicy;
use models::providers::Order;
use protocol::id::TenantName;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

use super::Objection;
use crate::serving::accelerators::Accelerators;
use crate::telemetry::Retention;

/// Where the server listens, and what it keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Its folder; made on the first start, private to its owner.
    pub data_dir: PathBuf,
    /// TCP and UDP; port 0 takes one that is free for both.
    pub listen: SocketAddr,
    /// Further host names and addresses under which clients reach it.
    pub names: Vec<String>,
    /// How long the head of a request may take over HTTPS, and an idle connection is kept, in
    /// seconds.
    pub head_s: u32,
    /// How long the body of a request to a model may take, in seconds.
    pub body_s: u32,
}

impl Default for Server {
    fn default() -> Self {
        let listen = SocketAddr::from(([0, 0, 0, 0], 8443));
        Self { data_dir: PathBuf::new(), listen, names: Vec::new(), head_s: 30, body_s: 60 }
    }
}

impl Server {
    /// How long a head may take.
    pub fn head(&self) -> Duration {
        Duration::from_secs(self.head_s.max(1).into())
    }

    /// How long a body may take.
    pub fn body(&self) -> Duration {
        Duration::from_secs(self.body_s.max(1).into())
    }

    pub(super) fn check(&self, found: &mut Vec<Objection>) {
        if self.data_dir.as_os_str().is_empty() {
            let hint = "name it with --data-dir FOLDER; it is made on the first start";
            found.push(Objection::new("server.data_dir", "the server has no folder", hint));
        }
        for name in self.names.iter().filter(|name| ServerName::try_from(name.as_str()).is_err()) {
            let error = format!("{name:?} is neither a host name nor an address");
            found.push(Objection::new("server.names", error, "leave scheme and port out"));
        }
    }
}

/// The files of bundles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blobs {
    /// What deltas between versions, and packed files, may take on the disk, in MB; 0 for none.
    pub delta_cache_mb: u64,
    /// Larger files have no deltas, in MB: two of them are in memory while one is made.
    pub delta_file_max_mb: u64,
    /// How long a file is kept that no bundle names, in hours.
    pub keep_unnamed_h: u32,
}

impl Default for Blobs {
    fn default() -> Self {
        Self { delta_cache_mb: 2_000, delta_file_max_mb: 250, keep_unnamed_h: 24 }
    }
}

impl Blobs {
    /// What deltas may take, in bytes.
    pub fn delta_cache_bytes(&self) -> u64 {
        self.delta_cache_mb.saturating_mul(1_000_000)
    }

    /// The largest file that has deltas, in bytes.
    pub fn delta_file_max_bytes(&self) -> u64 {
        self.delta_file_max_mb.saturating_mul(1_000_000)
    }

    /// How long a file is kept that no bundle names.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(3600 * u64::from(self.keep_unnamed_h))
    }
}

/// What devices have recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// How long it is kept, in days; 0 for ever.
    pub keep_days: u32,
    /// What it may take on the disk, in MB; 0 for no bound. Beyond, devices are told to wait.
    pub disk_mb: u64,
    /// Figures of the fleet only move by what so many devices have added together.
    pub crowd_devices: u32,
    /// The same as `keep_days`, for tenants that have a time of their own.
    pub tenant_keep_days: BTreeMap<TenantName, u32>,
}

impl Default for Telemetry {
    fn default() -> Self {
        let crowd_devices = CrowdPolicy::default().devices_min;
        Self { keep_days: 90, disk_mb: 20_000, crowd_devices, tenant_keep_days: BTreeMap::new() }
    }
}

impl Telemetry {
    /// What is shown of the fleet.
    pub fn crowd(&self) -> CrowdPolicy {
        CrowdPolicy { devices_min: self.crowd_devices, ..CrowdPolicy::default() }
    }

    /// For how long it is kept, of whom.
    pub fn retention(&self) -> Retention {
        Retention { days: self.keep_days, tenant_days: self.tenant_keep_days.clone() }
    }

    /// What it may take, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_mb.saturating_mul(1_000_000)
    }
}

/// How versions reach devices in stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rollouts {
    /// How often each is looked at, and devices say what they have counted, in seconds; large fleets say it less often.
    pub look_s: u32,
}

impl Default for Rollouts {
    fn default() -> Self {
        Self { look_s: 5 }
    }
}

impl Rollouts {
    pub(super) fn check(&self, found: &mut Vec<Objection>) {
        if !(1..=60).contains(&self.look_s) {
            let error = format!("{} s is not often enough, or too often", self.look_s);
            found.push(Objection::new("rollouts.look_s", error, "choose 1 to 60"));
        }
    }
}

/// How models run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// ONNX Runtime's shared library; found by itself when empty.
    pub library: PathBuf,
    /// The execution providers that are tried, first choice first; none for the CPU alone.
    pub providers: Order,
    /// The GPUs that models run on, by number; all that there are when empty.
    pub gpus: Vec<u32>,
    /// Whether each model runs in a child process, or all of them in the server itself.
    pub workers: bool,
    /// What all models may take together, in MB; 0 for half of what the machine or the server's
    /// control group has.
    pub memory_budget_mb: u64,
    /// How long a worker may take to load its model, in seconds.
    pub load_limit_s: u32,
    /// How long a run may take whose request names no deadline, in seconds; then its worker is ended.
    pub run_limit_s: u32,
}

impl Default for Runtime {
    fn default() -> Self {
        let workers = cfg!(target_os = "linux");
        Self {
            library: PathBuf::new(),
            providers: Order::default(),
            gpus: Vec::new(),
            workers,
            memory_budget_mb: 0,
            load_limit_s: 120,
            run_limit_s: 60,
        }
    }
}

impl Runtime {
    /// The library that was named.
    pub fn named_library(&self) -> Option<&Path> {
        Some(self.library.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// On what models run: the GPUs that are named, or all that this machine has.
    pub fn accelerators(&self) -> Accelerators {
        let all = || (0..).zip(nvidia_gpus()).map(|(number, _)| number).collect();
        let gpus = if self.gpus.is_empty() { all() } else { self.gpus.clone() };
        Accelerators { order: self.providers.clone(), gpus }
    }

    /// What all models may take together, in bytes.
    pub fn memory_budget_bytes(&self) -> u64 {
        match self.memory_budget_mb {
            0 => models::memory::allowed_bytes().map_or(u64::MAX, |bytes| bytes / 2),
            mb => mb.saturating_mul(1_000_000),
        }
    }

    pub(super) fn check(&self, found: &mut Vec<Objection>) {
        if let Some(path) = self.named_library().filter(|path| !path.is_file()) {
            let error = format!("{} is no file", path.display());
            let hint = "leave it out to have ONNX Runtime found by itself";
            found.push(Objection::new("runtime.library", error, hint));
        }
        let has = nvidia_gpus().len();
        if let Some(absent) = self.gpus.iter().find(|gpu| **gpu as usize >= has) {
            let error = format!("there is no GPU {absent}: the NVIDIA driver shows {has}");
            let hint = "they are numbered from 0 in the order of /dev/nvidia*";
            found.push(Objection::new("runtime.gpus", error, hint));
        }
    }
}

/// How the server ends when it is told to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long it goes on as before while it says that it is not ready, so that balancers send
    /// nothing more, in seconds.
    pub notice_s: u32,
    /// How long requests under way may then take, in seconds.
    pub grace_s: u32,
}

impl Default for Drain {
    fn default() -> Self {
        Self { notice_s: 0, grace_s: 10 }
    }
}

impl Drain {
    /// Between the word that it ends and the last request that is taken.
    pub fn notice(&self) -> Duration {
        Duration::from_secs(self.notice_s.into())
    }

    /// For the requests that were taken.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_s.into())
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// What is logged, to stderr.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// Levels by module, as `RUST_LOG` has them.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        // ONNX Runtime introduces itself at length.
        Self { format: LogFormat::Text, filter: "info,ort=warn".to_owned() }
    }
}

impl Log {
    pub(super) fn check(&self, found: &mut Vec<Objection>) {
        if let Err(error) = EnvFilter::try_new(&self.filter) {
            let hint = "for example: info,outrigger_cloud=debug,ort=warn";
            found.push(Objection::new("log.filter", error.to_string(), hint));
        }
    }
}

/// What Prometheus reads without a key. With one it reads `/metrics` on the HTTPS port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// A loopback address; nowhere when empty.
    pub listen: String,
}

impl Metrics {
    /// Where, if anywhere.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.parse().ok()
    }

    pub(super) fn check(&self, found: &mut Vec<Objection>) {
        let key = "metrics.listen";
        if self.listen.is_empty() {
            return;
        }
        match self.address() {
            None => {
                let error = format!("{:?} is no address", self.listen);
                found.push(Objection::new(key, error, "for example: 127.0.0.1:8002"));
            }
            Some(address) if !address.ip().is_loopback() => {
                let error = format!("{address} is not a loopback address");
                let hint = "scrape /metrics on the HTTPS port with a key of the role viewer";
                found.push(Objection::new(key, error, hint));
            }
            Some(_) => {}
        }
    }
}

/// A line for every request to a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// Its file, in the data folder where it is relative; `-` for stdout, none when empty.
    pub file: String,
    /// For people or for machines.
    pub format: LogFormat,
    /// A full file becomes `FILE.1`, in the place of the one before, in MiB.
    pub max_mb: u32,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { file: String::new(), format: LogFormat::Json, max_mb: 64 }
    }
}

impl AccessLog {
    /// The largest file.
    pub fn max_bytes(&self) -> u64 {
        u64::from(self.max_mb.max(1)) << 20
    }
}
