//! Makes models small and fast for ONNX Runtime, and says what that cost.
//!
//! - [`fold`](mod@fold): what can be computed now is: constants, identities, paddings and batch normalization disappear into
//!   weights.
//! - [`calibrate`](mod@calibrate): which numbers flow through a model, as histograms of constant size.
//! - [`quantize`](mod@quantize): integers instead of floats, by a table of rules that ONNX Runtime is known to fuse.
//! - [`fused`](mod@fused): what ONNX Runtime did fuse, read back from its own optimised graph.
//! - [`measure`]: how near the answers still are, and how long they take.
//! - [`sensitivity`](mod@sensitivity) and [`search`](mod@search): which layers stay in float, and which of all builds is
//!   the best; every trial is in a journal, so a search that was killed goes on where it was.
//! - [`inspect`](mod@inspect): what is in a model.
//!
//! Everything runs on local files and on the machine's own ONNX Runtime.

pub mod calibrate;
mod error;
pub mod fold;
pub mod fused;
pub mod histogram;
pub mod inspect;
pub mod measure;
pub mod quantize;
mod scratch;
pub mod search;
pub mod sensitivity;

pub use error::CompressError;
