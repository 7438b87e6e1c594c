//! The log: lines for people or JSON for machines, on stderr, with a level that can change while
//! the agent runs. The environment's `OUTRIGGER_LOG` goes before the configuration.

use crate::config::Level;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Filters that say more than a level, for whoever looks for a fault.
const ENVIRONMENT: &str = "OUTRIGGER_LOG";

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

type Set = dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync;

/// The running log.
pub(crate) struct Log(Box<Set>);

impl Log {
    /// Starts the log of this process; once.
    pub(crate) fn start(format: LogFormat, level: Level) -> Self {
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter(level))
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        match format {
            LogFormat::Text => {
                let builder = builder.with_filter_reloading();
                let handle = builder.reload_handle();
                builder.init();
                Self(Box::new(move |filter| handle.reload(filter)))
            }
            LogFormat::Json => {
                let builder = builder.json().with_filter_reloading();
                let handle = builder.reload_handle();
                builder.init();
                Self(Box::new(move |filter| handle.reload(filter)))
            }
        }
    }

    /// From now on this level.
    pub(crate) fn set_level(&self, level: Level) {
        // An error would mean that the log has ended, with nobody left to tell.
        let _ = (self.0)(filter(level));
    }
}

/// ONNX Runtime speaks of every session at `info`: that is not this program's level.
fn filter(level: Level) -> EnvFilter {
    let of_level = || EnvFilter::new(format!("{},ort=warn", level.as_str()));
    EnvFilter::try_from_env(ENVIRONMENT).unwrap_or_else(|_| of_level())
}
