//! The Open Inference Protocol v2, over HTTP and over gRPC: what a request says, and how an answer is
//! said. Bytes or messages in, types out, and back; the server itself is the crate `outrigger-oip`.
//!
//! An HTTP body is JSON, or JSON followed by the raw bytes of tensors; the header
//! `Inference-Header-Content-Length` then holds the length of the JSON. A gRPC message carries the
//! same, with tensors as raw bytes or as typed numbers. Both take the same parameters ([`Options`]).

mod bounded;
mod classification;
mod data;
mod describe;
pub mod grpc;
mod options;
mod repository;
mod request;
mod response;
mod sequence;

pub use classification::classify;
pub use describe::{ModelDescription, SequenceLimits};
pub use options::{Options, OutputForm};
pub use repository::{check_parameter, check_parameters, index_wants_ready_only};
pub use request::{ParsedRequest, parse_request};
pub use response::{RenderedResponse, error_body, render_response};

/// The header that holds the length of the JSON part of a body.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// The extensions of the standard that are served, by their names in it.
pub const EXTENSIONS: [&str; 7] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "schedule_policy",
    "sequence",
    "statistics",
];

#[cfg(test)]
mod tests;
