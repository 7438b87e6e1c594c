//! Writing a segment: each group of records packed, sealed and framed.
//!
//! One HPKE context (RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM) serves one segment and
//! is never written down: after a restart a new segment is begun, so no nonce is used twice. Its `info` is
//! [`INFO`] and the header's bytes, its `aad` the device's name, a zero byte, the segment's number and the frame's
//! (both 8 bytes, big-endian): a frame opens in its place only, and only under its own header.

use crate::Class;
use crate::key::PublicKey;
use crate::limits::{FRAME_MAX_BYTES, SEGMENT_MAX_BYTES, SEGMENT_MAX_FRAMES};
use crate::record::{RecordError, pack};
use crate::segment::{self, Check, ENCAPSULATED_BYTES, Header};
use crate::wire::Record;
use hpke::aead::{AeadCtxS, AesGcm256};
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{OpModeS, Serializable};
use protocol::id::DeviceId;
use std::convert::Infallible;
use std::fmt;

/// Separates segments from any other use of an analytics key.
pub const INFO: &[u8] = b"outrigger-telemetry-v1\0";
/// Fresh random bytes that a segment is begun with.
pub const ENTROPY_BYTES: usize = 32;

type Context = AeadCtxS<AesGcm256, HkdfSha256, X25519HkdfSha256>;

/// What a segment is begun with.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// Whose it is.
    pub device: DeviceId,
    /// A number that was never used before.
    pub segment: u64,
    /// What is in it.
    pub class: Class,
    /// The device's clock, Unix milliseconds.
    pub now_unix_ms: u64,
    /// The segment of the class before it, and its frames.
    pub previous: (u64, u32),
}

/// A segment's first bytes.
pub struct Begun {
    /// To be written first.
    pub head: Vec<u8>,
    /// The encapsulated key, of a class that keeps it apart.
    pub detached_key: Option<[u8; ENCAPSULATED_BYTES]>,
}

/// Why records are not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Only counters may be written without a key.
    #[error("without an analytics key nothing but counters is recorded")]
    NoKey,
    /// The records cannot be packed.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The segment is full: another one has to be begun.
    #[error("the segment is full")]
    Full,
    /// HPKE refuses.
    #[error("the frame cannot be sealed: {0}")]
    Sealing(hpke::HpkeError),
}

/// Writes one segment. It dies with the process, and so does what could seal more of it.
pub struct Sealer {
    device: DeviceId,
    segment: u64,
    class: Class,
    context: Option<Context>,
    check: Check,
    frames: u32,
    size_bytes: usize,
}

impl Sealer {
    /// Begins a segment; its key's encapsulation is drawn from `entropy`, which must be fresh.
    ///
    /// # Errors
    /// A class that is sealed, and no key.
    pub fn begin(
        beginning: Beginning,
        key: Option<&PublicKey>,
        entropy: [u8; ENTROPY_BYTES],
    ) -> Result<(Self, Begun), SealError> {
        let Beginning { device, segment, class, now_unix_ms, previous } = beginning;
        let key = key.filter(|_| class.is_sealed());
        if class.is_sealed() && key.is_none() {
            return Err(SealError::NoKey);
        }
        let key_id = key.map(PublicKey::id);
        let header = Header {
            device: device.clone(),
            segment,
            class,
            key_id,
            created_unix_ms: now_unix_ms,
            previous,
        };
        let header = header.to_bytes();
        let (context, encapsulated) = match key {
            None => (None, None),
            Some(key) => {
                let (context, encapsulated) = encapsulate(key, &header, entropy)?;
                (Some(context), Some(encapsulated))
            }
        };
        let inside = encapsulated.filter(|_| !class.has_detached_key());
        let (head, check) = segment::head(&header, inside.as_ref().map_or(&[], |key| key));
        let size_bytes = head.len();
        let sealer = Self { device, segment, class, context, check, frames: 0, size_bytes };
        let detached_key = encapsulated.filter(|_| class.has_detached_key());
        Ok((sealer, Begun { head, detached_key }))
    }

    /// The bytes of one more frame with these records. They must follow the bytes before them, or the segment has
    /// ended: what could not be written is not sealed a second time.
    ///
    /// # Errors
    /// [`SealError`]; after [`SealError::Full`] the records are for the next segment.
    pub fn frame(&mut self, records: Vec<Record>) -> Result<Vec<u8>, SealError> {
        let count = u32::try_from(records.len()).map_err(|_| SealError::Full)?;
        let packed = pack(self.class, records)?;
        let size_bytes = self.size_bytes + packed.len() + 64; // its head and its tag
        if self.frames >= SEGMENT_MAX_FRAMES || size_bytes > SEGMENT_MAX_BYTES {
            return Err(SealError::Full);
        }
        if packed.len() + 16 > FRAME_MAX_BYTES {
            let records = count as usize;
            return Err(RecordError::TooMany { records, bytes: packed.len() }.into());
        }
        let aad = aad(&self.device, self.segment, self.frames);
        let body = match &mut self.context {
            Some(context) => context.seal(&packed, &aad).map_err(SealError::Sealing)?,
            None => packed,
        };
        let (frame, check) = segment::frame(self.check, count, &body);
        self.check = check;
        self.frames += 1;
        self.size_bytes += frame.len();
        Ok(frame)
    }

    /// Its number.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Frames so far.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes so far.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} {}, {} frames)", self.class.as_str(), self.segment, self.frames)
    }
}

/// What a frame's body is bound to, besides its header.
pub(crate) fn aad(device: &DeviceId, segment: u64, frame: u32) -> Vec<u8> {
    let (segment, frame) = (segment.to_be_bytes(), u64::from(frame).to_be_bytes());
    [device.as_str().as_bytes(), &[0], &segment, &frame].concat()
}

pub(crate) fn info(header: &[u8]) -> Vec<u8> {
    [INFO, header].concat()
}

fn encapsulate(
    key: &PublicKey,
    header: &[u8],
    entropy: [u8; ENTROPY_BYTES],
) -> Result<(Context, [u8; ENCAPSULATED_BYTES]), SealError> {
    let mut drawn = Drawn { bytes: entropy, used: 0 };
    let setup = hpke::setup_sender_with_rng(&OpModeS::Base, &key.key, &info(header), &mut drawn);
    let (encapsulated, context) = setup.map_err(SealError::Sealing)?;
    Ok((context, encapsulated.to_bytes().into()))
}

/// Gives out the caller's entropy, once. HPKE draws one ephemeral key, for which it suffices.
struct Drawn {
    bytes: [u8; ENTROPY_BYTES],
    used: usize,
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let drawn = self.bytes.get(self.used..self.used + out.len());
        out.copy_from_slice(drawn.expect("one ephemeral key takes 32 bytes, and no more is drawn"));
        self.used += out.len();
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}
