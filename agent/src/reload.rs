//! The configuration, read again on SIGHUP. What can change takes effect at once; what cannot is
//! named in the log and waits for a restart; a file that is invalid changes nothing.

use crate::config::{Config, Download};
use crate::logging::Log;
use crate::serve::Context;
use protocol::problem::chain;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Reads the configuration again whenever it is asked to.
pub(crate) struct Reloader {
    source: Source,
    /// What holds now.
    current: Config,
    context: Arc<Context>,
    hangup: Signal,
}

/// Where the configuration comes from, and the log, which it sets.
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    pub(crate) told: Told,
    pub(crate) log: Log,
}

/// What the command line said, which goes before the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) grpc: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
}

impl Told {
    pub(crate) fn apply(self, config: &mut Config) {
        config.local.http = self.http.unwrap_or(config.local.http);
        config.local.grpc = self.grpc.unwrap_or(config.local.grpc);
        config.local.metrics = self.metrics.unwrap_or(config.local.metrics);
    }
}

/// The fields that differ between two configurations.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    live: Vec<&'static str>,
    after_restart: Vec<&'static str>,
}

impl Changes {
    fn between(old: &Config, new: &Config) -> Self {
        let (a, b) = (&old.offload, &new.offload);
        let live = [
            ("[log] level", old.log != new.log),
            ("[offload] default_deadline_ms", a.default_deadline_ms != b.default_deadline_ms),
            ("[offload] margin_ms", a.margin_ms != b.margin_ms),
            ("[offload] breaker_failures", a.breaker_failures != b.breaker_failures),
            ("[offload] breaker_open_ms", a.breaker_open_ms != b.breaker_open_ms),
            ("[offload] placement rules", a.rules() != b.rules()),
            ("[offload] budgets", a.budget() != b.budget()),
            ("[offload] checks", a.audit() != b.audit()),
            ("[download] windows and budgets", old.download.policy() != new.download.policy()),
            (
                "[link] download_bytes_per_s",
                old.link.download_bytes_per_s != new.link.download_bytes_per_s,
            ),
        ];
        let after_restart = [
            ("[local]", old.local != new.local),
            ("[runtime]", old.runtime != new.runtime),
            ("[models]", old.models != new.models),
            ("[sequences]", old.sequences != new.sequences),
            ("[sandbox]", old.sandbox != new.sandbox),
            ("[otlp]", old.otlp != new.otlp),
            ("[lab]", old.lab != new.lab),
            ("[remote]", old.remote != new.remote),
            ("[telemetry]", old.telemetry != new.telemetry),
            ("[peers]", old.peers != new.peers),
            ("[download] stall_s", old.download.stall_s != new.download.stall_s),
            ("[download] deltas", old.download.deltas != new.download.deltas),
            ("[link] reconnect_max_s", old.link.reconnect_max_s != new.link.reconnect_max_s),
            ("[link] pulse_max_s", old.link.pulse_max_s != new.link.pulse_max_s),
            ("[link] carrier", old.link.carrier != new.link.carrier),
            ("[link] proxy", old.link.proxy().ok() != new.link.proxy().ok()),
        ];
        Self { live: changed(&live), after_restart: changed(&after_restart) }
    }
}

fn changed(fields: &[(&'static str, bool)]) -> Vec<&'static str> {
    fields.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect()
}

/// What holds after a reload: the new where it can, the old elsewhere.
fn merged(old: &Config, new: &Config) -> Config {
    let mut merged = old.clone();
    merged.log = new.log.clone();
    merged.offload = new.offload.clone();
    let (stall_s, deltas) = (old.download.stall_s, old.download.deltas);
    merged.download = Download { stall_s, deltas, ..new.download.clone() };
    merged.link.download_bytes_per_s = new.link.download_bytes_per_s;
    merged
}

impl Reloader {
    /// From now on SIGHUP does not end the process any more.
    pub(crate) fn new(
        source: Source,
        current: Config,
        context: Arc<Context>,
    ) -> std::io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self { source, current, context, hangup })
    }

    /// Waits for SIGHUP, for ever.
    pub(crate) async fn run(mut self) {
        while self.hangup.recv().await.is_some() {
            self.reload();
        }
    }

    fn reload(&mut self) {
        let mut new = match Config::read(&self.source.file) {
            Ok(new) => new,
            Err(error) => {
                let why = chain(&error);
                return tracing::error!(
                    why,
                    "the configuration was not reloaded; the old one holds"
                );
            }
        };
        self.source.told.apply(&mut new);
        let changes = Changes::between(&self.current, &new);
        self.current = merged(&self.current, &new);
        self.source.log.set_level(self.current.log.level);
        self.context.requests.set_policy(&self.current.offload);
        let gate = self.context.installer.gate();
        gate.set_rate(self.current.link.download_bytes_per_s);
        gate.set_policy(self.current.download.policy());
        tracing::info!(changed = changes.live.join(", "), "the configuration was reloaded");
        if !changes.after_restart.is_empty() {
            let fields = changes.after_restart.join(", ");
            tracing::warn!(fields, "changed in the file, but only a restart makes them hold");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_changes_now_and_what_after_a_restart() {
        let old = Config::default();
        let new = config(
            "[log]\nlevel = \"debug\"\n[offload]\nmargin_ms = 9\n[runtime]\nthreads = 2\n\
             [link]\nreconnect_max_s = 1\ndownload_bytes_per_s = 7\n",
        );
        let changes = Changes::between(&old, &new);
        assert_eq!(
            changes.live,
            ["[log] level", "[offload] margin_ms", "[link] download_bytes_per_s"]
        );
        assert_eq!(changes.after_restart, ["[runtime]", "[link] reconnect_max_s"]);
        let merged = merged(&old, &new);
        assert_eq!((merged.offload.margin_ms, merged.link.download_bytes_per_s), (9, 7));
        assert_eq!((merged.runtime.threads, merged.link.reconnect_max_s), (1, 30));
        assert_eq!(
            Changes::between(&merged, &new).after_restart,
            changes.after_restart,
            "named again"
        );
        assert_eq!(Changes::between(&old, &old), Changes::default());
    }
}
