//! The collector, as one signal sees it: whichever of the two protocols carries it there, a batch is taken,
//! refused, or to be tried again.

use protocol::otlp::{Exported, Signal};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::grpc::Grpc;
use super::http::Http;
use super::{OtlpSettings, Protocol, Service};
use crate::roots::RootsError;

/// How long one attempt may take in all.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// What is read of an answer.
pub(super) const ANSWER_MAX_BYTES: u64 = 64 << 10;

/// Why nothing can be told.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The endpoint is none.
    #[error(transparent)]
    Settings(#[from] super::Objection),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of the headers' file is no header.
    #[error("line {line} of {path} is no header (hint: one a line, as \"Name: value\")")]
    Header {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// There are too many headers.
    #[error("{0} has more than 32 headers, or more than 16 KiB")]
    Headers(PathBuf),
    /// There are no certificates that it could be trusted by.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The thread.
    #[error("cannot start the thread that speaks to the collector")]
    Thread(#[source] io::Error),
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Attempt {
    /// All was taken, but some.
    Taken(Exported),
    /// It may be taken later.
    TryAgain { wait: Option<Duration>, why: String },
    /// It is not wanted.
    Refused(String),
}

/// Whoever takes it.
pub(super) enum Collector {
    Http(Http),
    Grpc(Box<Grpc>),
}

impl Collector {
    pub(super) fn new(
        settings: &OtlpSettings,
        service: &Service,
        signal: Signal,
    ) -> Result<Self, CollectorError> {
        settings.check()?;
        Ok(match settings.protocol {
            Protocol::Http => Self::Http(Http::new(settings, service, signal)?),
            Protocol::Grpc => Self::Grpc(Box::new(Grpc::new(settings, service, signal)?)),
        })
    }

    /// Hands over the body of an export.
    pub(super) fn take(&self, body: &[u8]) -> Attempt {
        match self {
            Self::Http(http) => http.take(body),
            Self::Grpc(grpc) => grpc.take(body),
        }
    }
}
