//! The agent's configuration: `agent.toml` in the state folder. Every field has a default, so the
//! file may be absent; an unknown field is an error, so that a typing mistake is not a silent no.

mod download;
mod offload;
mod peers;
mod runtime;
mod telemetry;
mod update;

pub(crate) use download::Download;
pub(crate) use offload::Offload;
pub(crate) use peers::Peers;
pub(crate) use runtime::{ModelRuntimes, Runtime, Terms};
pub(crate) use telemetry::Telemetry;
pub(crate) use update::Update;

use ::link::otlp::{Objection, OtlpSettings};
use ::link::proxy::{Proxy, ProxyError};
use edge::pulse::{PULSE_MAX, PULSE_MIN};
use oip::listen::FIRST_HEAD_PATIENCE;
use protocol::carrier::Wanted;
use protocol::id::{ContentHash, ModelName};
use protocol::limits::{SEQUENCE_IDLE_S, SEQUENCES_MAX, SEQUENCES_MAX_BYTES};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// All sections.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) local: Local,
    pub(crate) runtime: Runtime,
    /// `[models.NAME]`: what is different for one model.
    pub(crate) models: ModelRuntimes,
    pub(crate) offload: Offload,
    pub(crate) sequences: Sequences,
    pub(crate) link: Link,
    pub(crate) download: Download,
    pub(crate) peers: Peers,
    pub(crate) log: Log,
    pub(crate) sandbox: Sandbox,
    pub(crate) update: Update,
    pub(crate) otlp: OtlpSettings,
    pub(crate) lab: Lab,
    pub(crate) remote: Remote,
    pub(crate) telemetry: Telemetry,
}

/// Models that are measured here for whoever builds them.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Lab {
    /// Whether a lab that an operator delegated may have models measured on this device.
    pub(crate) enabled: bool,
}

/// What operators may ask of this device. Both are on: whoever helps from afar needs them exactly when nobody is near, and
/// neither shows an input, an answer or a secret.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Remote {
    /// Whether they are told what `outrigger-agent check` says.
    pub(crate) checks: bool,
    /// Whether they get lines of this agent's log.
    pub(crate) logs: bool,
}

impl Default for Remote {
    fn default() -> Self {
        Self { checks: true, logs: true }
    }
}

/// The child process in which models are tried before they may answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sandbox {
    /// What a model and its runtime may write to, in MiB; 0 for half of the device's memory.
    pub(crate) memory_mb: u64,
    /// For loading, the first run and all probes together, in seconds.
    pub(crate) time_limit_s: u32,
    /// Refuses every model where the system cannot confine the child in full; otherwise it is
    /// confined as far as it goes, and `check` says how far.
    pub(crate) require_full: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { memory_mb: 0, time_limit_s: 120, require_full: false }
    }
}

/// What is logged.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub(crate) level: Level,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// The API for applications on this device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Local {
    /// Where the Open Inference Protocol is served over HTTP. Must be a loopback address.
    pub(crate) http: SocketAddr,
    /// Where it is served over gRPC. Must be a loopback address.
    pub(crate) grpc: SocketAddr,
    /// Where Prometheus reads `/metrics`. Must be a loopback address.
    pub(crate) metrics: SocketAddr,
    /// The Unix socket that serves both; `agent.sock` in the state folder when absent, none when
    /// empty. Owner and group may open it.
    pub(crate) socket: Option<PathBuf>,
    /// How long a new connection may take to send the head of its first request, in seconds.
    pub(crate) first_head_s: u32,
    /// How long the body of a request may take to arrive, in seconds.
    pub(crate) body_s: u32,
    /// What the bodies of all requests under way may take together, in MiB.
    pub(crate) request_memory_mb: u32,
    /// Applications that may call over TCP. When there is one, whoever has no token is refused.
    pub(crate) applications: Vec<Application>,
}

/// An application on this device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Application {
    /// For people.
    pub(crate) name: String,
    /// SHA-256 of the token that it sends, as 64 hexadecimal digits.
    pub(crate) token_sha256: ContentHash,
    /// The models that it may use; all when absent.
    #[serde(default)]
    pub(crate) models: Option<BTreeSet<ModelName>>,
}

impl Default for Local {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            http: loopback(8000),
            grpc: loopback(8001),
            metrics: loopback(8002),
            socket: None,
            first_head_s: seconds(FIRST_HEAD_PATIENCE),
            body_s: seconds(oip::BODY_PATIENCE),
            request_memory_mb: mebibytes(oip::BODIES_MAX_BYTES),
            applications: Vec::new(),
        }
    }
}

impl Local {
    pub(crate) fn first_head(&self) -> Duration {
        Duration::from_secs(self.first_head_s.max(1).into())
    }

    pub(crate) fn intake(&self) -> oip::Intake {
        let body = Duration::from_secs(self.body_s.max(1).into());
        oip::Intake::new(body, bytes(self.request_memory_mb))
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn mebibytes(bytes: usize) -> u32 {
    u32::try_from(bytes >> 20).unwrap_or(u32::MAX)
}

fn bytes(mebibytes: u32) -> usize {
    usize::try_from(mebibytes.max(1)).unwrap_or(usize::MAX).saturating_mul(1 << 20)
}

/// Streams with state.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sequences {
    /// How many are kept at a time; beyond, the least recently used one is forgotten.
    pub(crate) count: usize,
    /// What their states may take together, in MiB.
    pub(crate) memory_mb: u32,
    /// How long one is kept without a request, in seconds.
    pub(crate) idle_s: u32,
}

impl Default for Sequences {
    fn default() -> Self {
        let memory_mb = mebibytes(SEQUENCES_MAX_BYTES);
        Self { count: SEQUENCES_MAX, memory_mb, idle_s: SEQUENCE_IDLE_S }
    }
}

impl Sequences {
    pub(crate) fn memory_bytes(&self) -> usize {
        bytes(self.memory_mb)
    }

    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s.max(1).into())
    }
}

/// The connection to the cloud.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Link {
    /// The longest wait between two attempts to connect, in seconds.
    pub(crate) reconnect_max_s: u32,
    /// What carries the connections: `auto` (QUIC wherever it works, else TLS over TCP), `quic` or `tcp`.
    pub(crate) carrier: Wanted,
    /// `http://HOST:PORT` of an HTTP proxy that TCP goes through; none when empty. The environment
    /// (`HTTPS_PROXY`) is not asked: what holds in a shell would not hold for the service.
    pub(crate) proxy: String,
    /// A file with `USER:PASSWORD` for the proxy, mode 0600; none when empty.
    pub(crate) proxy_credentials_file: PathBuf,
    /// The fastest a model is downloaded, in bytes per second; 0 for as fast as it goes.
    pub(crate) download_bytes_per_s: u64,
    /// Inference nodes that are kept connected, where the cloud has any.
    pub(crate) nodes: usize,
    /// The longest wait between two signs of life on a connection where nothing happens, in seconds, from 3 to 45.
    pub(crate) pulse_max_s: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            reconnect_max_s: 30,
            carrier: Wanted::Auto,
            proxy: String::new(),
            proxy_credentials_file: PathBuf::new(),
            download_bytes_per_s: 0,
            nodes: 2,
            pulse_max_s: 45,
        }
    }
}

impl Link {
    /// The longest wait between two signs of life.
    pub(crate) fn pulse_max(&self) -> Duration {
        Duration::from_secs(self.pulse_max_s.into()).clamp(PULSE_MIN, PULSE_MAX)
    }

    /// The proxy that TCP goes through, if any.
    ///
    /// # Errors
    /// What is configured is no proxy.
    pub(crate) fn proxy(&self) -> Result<Option<Proxy>, ProxyError> {
        let file = &self.proxy_credentials_file;
        let credentials = (!file.as_os_str().is_empty()).then(|| file.clone());
        match self.proxy.as_str() {
            "" => Ok(None),
            proxy => Proxy::parse(proxy, credentials).map(Some),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a valid configuration", path.display())]
    Invalid { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "{0} is not a loopback address; the local API is for this machine and must not be reachable from others"
    )]
    NotLoopback(SocketAddr),
    #[error("[otlp] {}: {_0}", _0.key)]
    Otlp(#[from] Objection),
    #[error("[update] {field}: {why}")]
    Update { field: &'static str, why: &'static str },
    #[error("[peers] {field}: {why}")]
    Peers { field: &'static str, why: &'static str },
    #[error("[link] proxy")]
    Proxy(#[from] ProxyError),
}

impl Config {
    /// Reads the file; an absent one means the defaults.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Invalid {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what must not be.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let addresses = [self.local.http, self.local.grpc, self.local.metrics];
        let open = addresses.into_iter().find(|address| !address.ip().is_loopback());
        open.map_or(Ok(()), |address| Err(ConfigError::NotLoopback(address)))?;
        self.link.proxy()?;
        self.peers.check()?;
        self.update.check()?;
        Ok(self.otlp.check()?)
    }
}

/// `/var/lib/outrigger-agent` for a service, the user's state folder otherwise.
pub(crate) fn default_state_dir() -> PathBuf {
    let service = PathBuf::from("/var/lib/outrigger-agent");
    if service.is_dir() {
        return service;
    }
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    state.unwrap_or_else(|| home().join(".local/state")).join("outrigger-agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        std::fs::write(&path, text).unwrap();
        Config::read(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn absent_means_default_and_typing_mistakes_are_errors() {
        assert_eq!(Config::read(Path::new("/nonexistent/agent.toml")).unwrap(), Config::default());
        assert_eq!(check("[runtime]\nqueue = 7").unwrap().runtime.queue, 7);
        assert!(check("[runtime]\nqeue = 7").is_err());
        for door in ["http", "grpc", "metrics"] {
            let open = format!("[local]\n{door} = \"0.0.0.0:8000\"");
            assert!(check(&open).unwrap_err().contains("loopback"));
        }
        let error = check("[otlp]\nendpoint = \"localhost\"").unwrap_err();
        assert!(error.starts_with("[otlp] endpoint: "), "{error}");
        for bad in
            ["proxy = \"https://proxy:1\"", "proxy = \"http://a:b@proxy:1\"", "carrier = \"udp\""]
        {
            assert!(check(&format!("[link]\n{bad}")).is_err(), "{bad}");
        }
    }

    /// Every line that the packaged file shows as a default is one, and every field is shown.
    #[test]
    fn the_packaged_file_shows_the_defaults() {
        let offload = format!("{:?}", Offload::default());
        let download = format!("{:?}", Download::default());
        let update = format!("{:?}", Update::default());
        let peers = format!("{:?}", Peers::default());
        for (name, fields) in
            [("offload", offload), ("download", download), ("peers", peers), ("update", update)]
        {
            check_packaged(name, fields.matches(": ").count());
        }
        let count = |fields: String| fields.matches(": ").count();
        let (all, samples) = (Telemetry::default(), Telemetry::default().samples);
        let (all, samples) = (count(format!("{all:?}")), count(format!("{samples:?}")));
        check_packaged("telemetry.samples", samples);
        check_packaged("telemetry", all - samples - 1);
        assert!(check("[update]\nshadow_cpu = 2.0").unwrap_err().contains("[update] shadow_cpu"));
    }

    fn check_packaged(name: &str, fields_of_struct: usize) {
        let packaged = include_str!("../packaging/agent.toml");
        let section = packaged.split(&format!("\n[{name}]\n")).nth(1).unwrap();
        let section = section.split("\n[").next().unwrap();
        let fields: Vec<_> = section.lines().filter_map(|line| line.strip_prefix('#')).collect();
        let fields: Vec<_> = fields.into_iter().filter(|line| !line.starts_with(' ')).collect();
        let text = format!("[{name}]\n{}", fields.join("\n"));
        assert_eq!(check(&text).unwrap(), Config::default());
        assert_eq!(fields.len(), fields_of_struct, "[{name}]");
    }

    #[test]
    fn applications_have_digests_and_models() {
        let text = |digest: &str| {
            format!(
                "[[local.applications]]\nname = \"a\"\ntoken_sha256 = \"{digest}\"\nmodels = [\"m\"]"
            )
        };
        let config = check(&text(&"0f".repeat(32))).unwrap();
        assert_eq!(config.local.applications[0].models, Some(["m".parse().unwrap()].into()));
        assert!(check(&text("the token itself")).is_err());
    }
}
