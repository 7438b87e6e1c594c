//! The Open Inference Protocol v2 over HTTP: request and response bodies, with the binary tensor
//! data extension. Bytes in, types out, and back; the server itself is in the programs.
//!
//! A body is JSON, or JSON followed by the raw bytes of tensors; the header
//! `Inference-Header-Content-Length` then holds the length of the JSON.

mod data;
mod request;
mod response;

pub use request::{OutputForm, ParsedRequest, parse_request};
pub use response::{
    ModelMetadata, RenderedResponse, ServerMetadata, TensorMetadata, error_body, render_response,
};

/// The header that holds the length of the JSON part of a body.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

#[cfg(test)]
mod tests;
