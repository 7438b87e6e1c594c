//! The inputs of one request as they travel.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::Transport;
use crate::tensor::{Tensor, TensorMeta};

/// Packing or unpacking more takes longer, half a millisecond about, than a thread that moves the bytes of
/// others should give to one request.
pub const PACKED_AT_ONCE_BYTES: u64 = 256 << 10;

/// What was measured to be good enough for an input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// The form.
    pub transport: Transport,
    /// The largest extent ([`Transport::extent`]) of what it was measured with.
    pub extent_max: f32,
}

/// What may travel packed, by the names of inputs.
pub type Allowances = BTreeMap<String, Allowance>;

/// How many bytes such inputs take at most if what is allowed is packed.
pub fn packed_bytes(inputs: &[Tensor], allowed: &Allowances) -> u64 {
    let bytes = |input: &Tensor| {
        let packed =
            form_of(input.meta(), allowed).and_then(|a| a.transport.sent_bytes(input.meta()));
        packed.unwrap_or(input.data().len() as u64)
    };
    inputs.iter().map(bytes).sum()
}

/// What an input may travel as, where that saves anything.
fn form_of<'a>(meta: &TensorMeta, allowed: &'a Allowances) -> Option<&'a Allowance> {
    allowed.get(&meta.name).filter(|allowance| allowance.transport.saves(meta))
}

/// Inputs in the form in which they travel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parcel {
    pieces: Vec<(Transport, Bytes)>,
    saved_bytes: u64,
}

impl Parcel {
    /// Everything as it is.
    pub fn raw(inputs: &[Tensor]) -> Self {
        Self::packed(inputs, &Allowances::new())
    }

    /// Packed where that is allowed, saves anything, and loses no more than was measured.
    pub fn packed(inputs: &[Tensor], allowed: &Allowances) -> Self {
        let mut parcel = Self::default();
        for input in inputs {
            let raw = input.data();
            let packed = form_of(input.meta(), allowed).and_then(|allowance| {
                let Allowance { transport, extent_max } = *allowance;
                Some((transport, transport.pack(input, extent_max)?))
            });
            let (transport, bytes) = packed.unwrap_or_else(|| (Transport::Raw, raw.clone()));
            parcel.saved_bytes += (raw.len() - bytes.len()) as u64;
            parcel.pieces.push((transport, bytes));
        }
        parcel
    }

    /// The form of each input.
    pub fn transports(&self) -> impl Iterator<Item = Transport> {
        self.pieces.iter().map(|(transport, _)| *transport)
    }

    /// The bytes of each input; sharing memory, not copied.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> {
        self.pieces.iter().map(|(_, bytes)| bytes.clone())
    }

    /// Bytes that travel.
    pub fn sent_bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Bytes that need not travel.
    pub fn saved_bytes(&self) -> u64 {
        self.saved_bytes
    }
}
