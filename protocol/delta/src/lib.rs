//! A file of a bundle in fewer bytes: as the difference from a version that the receiver has, or packed.
//!
//! The new version of a model is the old one with other numbers in the same places. What a general tool sees of
//! that, bytes that differ everywhere, hides what is known: that a weight has moved by a little, that a quantized
//! one is mostly the same, that small ones became zero. So the tensors of both files are laid against each other
//! ([`Tensor`]), and their numbers are coded one by one with what is likely of each (`numbers`); all that is no
//! tensor goes through zstd with the old file's as its prefix. Tensors without a counterpart are coded by
//! themselves, so that the same form also packs a file that has no base.
//!
//! What is made is bit for bit the file that was signed: the tensors' places are hints for the one who encodes, and
//! whoever applies a delta knows none. A delta is not signed. [`apply`] makes exactly as many bytes as were
//! asked for or fails, holds at most 48 MiB, and the caller compares hashes.

mod apply;
mod coder;
mod element;
mod encode;
mod error;
mod format;
mod numbers;
mod plan;
mod settle;
#[cfg(test)]
mod tests;

pub use apply::apply;
pub use element::Element;
pub use encode::encode;
pub use error::DeltaError;
pub use plan::{Source, Tensor};
pub use settle::{Grain, LEADING_BITS_MAX, STEP_MAX, Settled, settle};
