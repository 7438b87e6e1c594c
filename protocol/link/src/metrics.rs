//! Figures, gathered by hand: for Prometheus as its text format (0.0.4), for a collector over
//! [`crate::otlp`]; histograms in atomics, and what is wanted of every process. Which families there are is each program's own business.

mod exposition;
mod histogram;
mod process;

pub use exposition::{Exposition, Family, Kind};
pub use histogram::{Histogram, Scale};
pub use process::process;

/// The media type of the text.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
