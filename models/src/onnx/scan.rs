//! A pass over the bytes of a file before they are parsed: nothing is allocated, depth and counts are bounded,
//! and fields that the schema does not know are found.
//!
//! Unknown fields of the model and of its main graph are kept: protobuf merges a message that comes in pieces,
//! so they are written once more at the end of the file. Deeper ones belong to one of many nodes or tensors, and
//! a piece cannot say which; such a file is refused, never silently shortened.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::OnnxError;
use super::limits::{DEPTH_MAX, MESSAGES_MAX, TEXTS_MAX};

/// A message of the schema.
pub(super) struct Message {
    name: &'static str,
    fields: &'static [Field],
}

struct Field {
    number: u64,
    name: &'static str,
    /// Index of the message inside, for a field that holds one.
    message: Option<usize>,
}

include!(concat!(env!("OUT_DIR"), "/onnx_fields.rs"));

const GRAPH_FIELD: u64 = 7;
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const DELIMITED: u64 = 2;
const FIXED32: u64 = 5;

/// Checks the bytes of a model.
///
/// Returns the unknown fields that are to be written after the model.
///
/// # Errors
/// [`OnnxError`] for bytes that are no model, or more of it than is believed.
pub(super) fn scan(bytes: &Bytes) -> Result<Bytes, OnnxError> {
    let mut scan = Scan::default();
    scan.message(bytes, MODEL, 0)?;
    if !scan.graph.is_empty() {
        scan.model.put_u8(0x3A); // field 7, length-delimited
        prost::encoding::encode_varint(scan.graph.len() as u64, &mut scan.model);
        scan.model.extend_from_slice(&scan.graph);
    }
    Ok(scan.model.freeze())
}

#[derive(Default)]
struct Scan {
    messages: usize,
    texts: usize,
    /// Unknown fields of the model and of its main graph, with their tags.
    model: BytesMut,
    graph: BytesMut,
}

impl Scan {
    fn message(&mut self, bytes: &[u8], index: usize, depth: usize) -> Result<(), OnnxError> {
        self.messages += 1;
        if depth >= DEPTH_MAX {
            return Err(OnnxError::TooDeep);
        }
        if self.messages > MESSAGES_MAX {
            return Err(OnnxError::TooMany { what: "messages", most: MESSAGES_MAX });
        }
        let message = MESSAGES.get(index).ok_or(OnnxError::TooDeep)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let before = rest;
            let tag = varint(&mut rest).ok_or_else(|| broken(message))?;
            let (number, wire) = (tag >> 3, tag & 7);
            let content = value(&mut rest, wire).ok_or_else(|| broken(message))?;
            let Some(field) = message.fields.iter().find(|field| field.number == number) else {
                let whole = &before[..before.len() - rest.len()];
                self.keep(whole, number, (index, depth))?;
                continue;
            };
            match (field.message, content) {
                (Some(inner), Some(content)) => self.message(content, inner, depth + 1)?,
                (None, Some(_)) => self.text()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn text(&mut self) -> Result<(), OnnxError> {
        self.texts += 1;
        if self.texts > TEXTS_MAX {
            return Err(OnnxError::TooMany { what: "texts", most: TEXTS_MAX });
        }
        Ok(())
    }

    fn keep(
        &mut self,
        field: &[u8],
        number: u64,
        (message, depth): (usize, usize),
    ) -> Result<(), OnnxError> {
        // Field 0 does not exist; the main graph is the only graph at depth 1.
        match (message, depth) {
            (MODEL, 0) if number != 0 && number != GRAPH_FIELD => self.model.put_slice(field),
            (GRAPH, 1) if number != 0 => self.graph.put_slice(field),
            _ => {
                let message = MESSAGES.get(message).map_or("", |message| message.name);
                return Err(OnnxError::UnknownField { message, number });
            }
        }
        Ok(())
    }
}

fn broken(message: &Message) -> OnnxError {
    let fields = message.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
    OnnxError::Malformed { reason: format!("in a {} ({fields})", message.name) }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

/// Takes one value; its bytes if it has a length. Groups are not in the format.
fn value<'b>(rest: &mut &'b [u8], wire: u64) -> Option<Option<&'b [u8]>> {
    match wire {
        VARINT => varint(rest).map(|_| None),
        FIXED64 => take(rest, 8).map(|_| None),
        FIXED32 => take(rest, 4).map(|_| None),
        DELIMITED => {
            let length = usize::try_from(varint(rest)?).ok()?;
            take(rest, length).map(Some)
        }
        _ => None,
    }
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}
