//! The log: lines for people or JSON for machines, on stderr, with a level that can change while
//! the agent runs; the last ones in memory, for an operator who asks; and, where there is one, for a collector. The environment's `OUTRIGGER_LOG` goes before the configuration.

mod kept;

pub(crate) use kept::KeptLines;

use crate::config::Level;
use ::link::otlp::log_layer;
use std::io::IsTerminal;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

/// Levels by module (`info,quinn=debug`), for whoever looks for a fault. Not tracing's larger filter language:
/// it would bring a regular-expression engine to the device.
const ENVIRONMENT: &str = "OUTRIGGER_LOG";

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The running log.
pub(crate) struct Log {
    filter: reload::Handle<Targets, Registry>,
    kept: KeptLines,
}

impl Log {
    /// Starts the log of this process; once.
    pub(crate) fn start(format: LogFormat, level: Level) -> Self {
        let (filter, handle) = reload::Layer::new(filter(level));
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let lines = match format {
            LogFormat::Text => lines.boxed(),
            LogFormat::Json => lines.json().boxed(),
        };
        let kept = KeptLines::default();
        let registry = tracing_subscriber::registry().with(filter).with(lines);
        registry.with(kept.layer()).with(log_layer()).init();
        Self { filter: handle, kept }
    }

    /// The last lines.
    pub(crate) fn kept(&self) -> KeptLines {
        self.kept.clone()
    }

    /// From now on this level.
    pub(crate) fn set_level(&self, level: Level) {
        // An error would mean that the log has ended, with nobody left to tell.
        let _ = self.filter.reload(filter(level));
    }
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// ONNX Runtime speaks of every session at `info`: that is not this program's level.
fn filter(level: Level) -> Targets {
    let asked = std::env::var(ENVIRONMENT).ok().and_then(|text| text.parse().ok());
    let of_level = || {
        Targets::new().with_default(LevelFilter::from(level)).with_target("ort", LevelFilter::WARN)
    };
    asked.unwrap_or_else(of_level)
}
