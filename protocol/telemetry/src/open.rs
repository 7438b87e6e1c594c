//! Opening a segment, with the private key: for the operator's reader, and nobody else.

use crate::key::PrivateKey;
use crate::limits::BATCH_MAX_BYTES;
use crate::record::{RecordError, unpack};
use crate::seal::{aad, info};
use crate::segment::{ENCAPSULATED_BYTES, Segment};
use crate::wire::Record;
use hpke::aead::{AeadCtxR, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256};
use hpke::{Deserializable, OpModeR};
use protocol::id::ContentHash;

type Context = AeadCtxR<AesGcm256, HkdfSha256, X25519HkdfSha256>;

/// Why a segment does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is sealed for another key.
    #[error("sealed for the analytics key {0:.16}…")]
    OtherKey(ContentHash),
    /// Its encapsulated key is kept apart, and was not given: it may have been destroyed.
    #[error("the segment's encapsulated key is missing: it was destroyed, or is kept elsewhere")]
    NoEncapsulatedKey,
    /// A frame is not what was sealed in this place of this segment.
    #[error("frame {0} was altered, or sealed for another place")]
    Forged(u32),
    /// A frame holds something else than it says.
    #[error("frame {frame} holds no such records")]
    Records {
        /// Which.
        frame: u32,
        /// Why.
        #[source]
        source: RecordError,
    },
    /// A frame holds more or fewer records than it says.
    #[error("frame {0} says another number of records than it holds")]
    Count(u32),
}

/// Opens the frames of one segment, one after the other.
pub struct Opener<'a> {
    bytes: &'a [u8],
    segment: &'a Segment,
    context: Option<Context>,
    next: u32,
    /// What all frames together may still unpack to.
    left_bytes: usize,
}

impl<'a> Opener<'a> {
    /// Begins. `bytes` is what `segment` was parsed from, `detached_key` the encapsulated key of a class that keeps
    /// it apart.
    ///
    /// # Errors
    /// [`OpenError::OtherKey`], [`OpenError::NoEncapsulatedKey`], or that key is none.
    pub fn begin(
        bytes: &'a [u8],
        segment: &'a Segment,
        key: &PrivateKey,
        detached_key: Option<[u8; ENCAPSULATED_BYTES]>,
    ) -> Result<Self, OpenError> {
        let context = match segment.header.key_id {
            None => None,
            Some(id) if id != key.public().id() => return Err(OpenError::OtherKey(id)),
            Some(_) => {
                let encapsulated = segment.encapsulated.or(detached_key);
                let encapsulated = encapsulated.ok_or(OpenError::NoEncapsulatedKey)?;
                Some(decapsulate(key, &encapsulated, &bytes[segment.bound.clone()])?)
            }
        };
        Ok(Self { bytes, segment, context, next: 0, left_bytes: usize::MAX })
    }

    /// The records of the next frame; nothing behind the last one.
    ///
    /// # Errors
    /// [`OpenError`]; nothing behind that frame opens either.
    pub fn next_frame(&mut self) -> Result<Option<Vec<Record>>, OpenError> {
        let (number, header) = (self.next, &self.segment.header);
        let Some(frame) = self.segment.frames.get(number as usize) else { return Ok(None) };
        let body = &self.bytes[frame.body.clone()];
        let aad = aad(&header.device, header.segment, number);
        let opened = match &mut self.context {
            None => None,
            Some(context) => Some(context.open(body, &aad).map_err(|_| OpenError::Forged(number))?),
        };
        let packed = opened.as_deref().unwrap_or(body);
        let most_bytes = self.left_bytes.min(BATCH_MAX_BYTES);
        let (records, size_bytes) = unpack(header.class, packed, most_bytes)
            .map_err(|source| OpenError::Records { frame: number, source })?;
        self.left_bytes -= size_bytes;
        if records.len() != frame.records as usize {
            return Err(OpenError::Count(number));
        }
        self.next += 1;
        Ok(Some(records))
    }

    /// All records, in order.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn records(mut self) -> Result<Vec<Record>, OpenError> {
        let mut all = Vec::new();
        while let Some(records) = self.next_frame()? {
            all.extend(records);
        }
        Ok(all)
    }
}

/// The records of a segment in the clear, for whoever has no key and does not know who has written it: all of them
/// unpack to [`BATCH_MAX_BYTES`] at most.
///
/// # Errors
/// It is sealed, or holds something else.
pub fn in_the_clear(bytes: &[u8], segment: &Segment) -> Result<Vec<Record>, OpenError> {
    if let Some(id) = segment.header.key_id {
        return Err(OpenError::OtherKey(id));
    }
    Opener { bytes, segment, context: None, next: 0, left_bytes: BATCH_MAX_BYTES }.records()
}

fn decapsulate(
    key: &PrivateKey,
    encapsulated: &[u8; ENCAPSULATED_BYTES],
    header: &[u8],
) -> Result<Context, OpenError> {
    let forged = |_| OpenError::Forged(0);
    let encapsulated =
        <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).map_err(forged)?;
    let mode = OpModeR::Base;
    hpke::setup_receiver(&mode, &key.key, &encapsulated, &info(header)).map_err(forged)
}
