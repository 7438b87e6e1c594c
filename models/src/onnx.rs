//! ONNX files: read, edited and written, without losing a field.
//!
//! - [`Model`] is a file: [`Model::read`] bounds and checks what comes from outside ([`limits`]), [`Model::write`]
//!   makes a file in one step, with its weights beside it where one file could not hold them.
//! - [`Graph`] is its main graph with an index of who makes and who reads each value, which every edit keeps up
//!   to date. Nodes are named by [`NodeId`], values by their ONNX names.
//! - [`tensor`]: weights as typed numbers; [`attribute`]: attributes of nodes; [`opset`]: which version of an
//!   operator is meant, and raising it.
//! - [`places`]: where tensors lie in a file, for whoever compares files.
//! - [`proto`] are the messages themselves, for what the edit API does not cover.
//!
//! ```no_run
//! # fn main() -> Result<(), outrigger_models::onnx::OnnxError> {
//! # let path = std::path::Path::new("model.onnx");
//! use outrigger_models::onnx::Model;
//! let mut model = Model::read(path)?;
//! let graph = model.graph_mut();
//! for id in graph.nodes_of("Identity") {
//!     let (from, to) = (graph.node(id).input[0].clone(), graph.node(id).output[0].clone());
//!     if !graph.is_output(&to) {
//!         graph.reroute(&to, &from); // every reader of `to` reads `from`
//!         graph.remove(id);
//!     }
//! }
//! model.write(path)?;
//! # Ok(())
//! # }
//! ```

pub mod attribute;
mod error;
mod external;
mod file;
pub mod graph;
pub mod limits;
pub mod opset;
mod order;
pub mod places;
mod scan;
pub mod tensor;

/// The messages of the format, as `proto/onnx.proto` has them.
#[allow(missing_docs, clippy::all)] // generated
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub use error::OnnxError;
pub use file::Model;
pub use graph::{Graph, NodeId};
