//! Makes models small and fast for ONNX Runtime, and says what that cost.
//!
//! - [`fold`](mod@fold): what can be computed now is: constants, identities, paddings and batch normalization disappear into
//!   weights.
//! - [`calibrate`](mod@calibrate): which numbers flow through a model, as histograms of constant size.
//! - [`quantize`](mod@quantize): integers instead of floats, by a table of rules that ONNX Runtime is known to fuse.
//! - [`equalize`](mod@equalize): channels of one reach, before they share a scale.
//! - [`fused`](mod@fused): what ONNX Runtime did fuse, read back from its own optimised graph.
//! - [`measure`]: how near the answers still are, and how long they take.
//! - [`sensitivity`](mod@sensitivity) and [`search`](mod@search): which layers stay in float, and which of all builds is
//!   the best; every trial is in a journal, so a search that was killed goes on where it was.
//! - [`distill`](mod@distill): an edge variant out of one model, cut early.
//! - [`float16`]: half the bits for every float, for GPUs.
//! - [`report`](mod@report): what a search found, as a page.
//! - [`prune`](mod@prune): fewer channels, whose work the others take over.
//! - [`inspect`](mod@inspect): what is in a model; [`diff`](mod@diff): how two differ; [`evaluate`](mod@evaluate): what one
//!   is worth.
//!
//! Everything runs on local files and on the machine's own ONNX Runtime.

pub mod calibrate;
pub mod diff;
pub mod distill;
pub mod equalize;
mod error;
pub mod evaluate;
pub mod float16;
pub mod fold;
pub mod fused;
pub mod histogram;
pub mod inspect;
mod integers;
pub mod measure;
pub mod prune;
pub mod quantize;
pub mod report;
mod scratch;
pub mod search;
pub mod sensitivity;

pub use error::CompressError;
