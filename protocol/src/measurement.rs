//! How fast models are on a device, for whoever builds them: an *order* names a few models by their
//! hashes; the device runs them in turn in a confined child, and reports the times. They never answer
//! a request there.
//!
//! Who may order that is said in two steps, so that no machine that builds models needs a key that
//! ships them: an operator's key, which devices trust, signs a [`Delegation`] to a *lab key*, for a
//! while and perhaps for some devices only; the lab key signs each [`Order`]. A device takes orders
//! only where its owner has allowed it.
//!
//! The same order may be carried out again after a restart: timing has no effects.

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::id::{ContentHash, DeviceId};
use crate::limits::{
    BUNDLE_FILE_MAX_BYTES, MEASURED_MAX_BYTES, MEASURED_MODELS_MAX, MEASUREMENT_MAX_S,
    ORDER_LIFETIME_MAX_S, ORDER_MAX_BYTES, TENSORS_MAX_BYTES,
};
use crate::manifest::{FileRef, SignerKey, SigningKey};
use crate::oip::grpc::{check_encoded_request, parse_request};
use crate::problem::{Problem, ProblemCode};
use crate::tensor::Tensor;
use crate::wire;
use crate::wire::inference::ModelInferRequest;

/// Separates delegations from any other use of an operator's key.
const DELEGATION_CONTEXT: &[u8] = b"outrigger-lab-delegation-v1\0";
/// Separates orders from any other use of a lab key.
const ORDER_CONTEXT: &[u8] = b"outrigger-measurement-v1\0";
/// Bytes of an order's id.
pub const ORDER_ID_BYTES: usize = 16;

/// What a lab key may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// The lab's public key, hexadecimal.
    pub lab_key: String,
    /// The devices that it may have models measured on; every one that allows it when empty.
    pub devices: Vec<DeviceId>,
    /// When it ends, Unix seconds.
    pub expires_at_s: i64,
}

/// A delegation's exact text with an operator's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedDelegation {
    /// The delegation's JSON, byte for byte as it was signed.
    pub delegation: String,
    /// SHA-256 of the operator's public key.
    pub key_id: ContentHash,
    /// Ed25519 signature, hexadecimal.
    pub signature: String,
}

/// What is to be measured, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// 32 hexadecimal digits, random.
    pub id: String,
    /// The one device that it is for.
    pub device: DeviceId,
    /// Until when it may begin, Unix seconds.
    pub expires_at_s: i64,
    /// Threads of each model.
    pub threads: u8,
    /// How long the models may run, all together, in seconds.
    pub time_s: u32,
    /// ONNX files; times are compared with the first one's.
    pub models: Vec<FileRef>,
    /// What they are asked: a `ModelInferRequest` of the Open Inference Protocol, as protobuf, with
    /// raw contents.
    pub inputs: FileRef,
}

/// An order's exact text, signed by a lab key, with what the lab key may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedOrder {
    /// Why the lab key is to be believed.
    pub delegation: SignedDelegation,
    /// The order's JSON, byte for byte as it was signed.
    pub order: String,
    /// Ed25519 signature by the lab key, hexadecimal.
    pub signature: String,
}

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrder {
    /// Not JSON of this shape, or too large.
    #[error("not a signed order (JSON of at most {ORDER_MAX_BYTES} bytes)")]
    Malformed,
    /// The delegation is by a key that is not trusted here.
    #[error("the lab was delegated by key {0:.16}…, which is not trusted here")]
    UnknownKey(ContentHash),
    /// A signature does not fit.
    #[error("the signature of the {0} does not fit: it was altered or forged")]
    Forged(&'static str),
    /// The time is over.
    #[error("the {0} has expired")]
    Expired(&'static str),
    /// It would wait for longer than any may.
    #[error("an order may wait for {ORDER_LIFETIME_MAX_S} s at most")]
    Lifetime,
    /// For another device.
    #[error("the order is for device {0}")]
    Elsewhere(DeviceId),
    /// The lab may not measure on this device.
    #[error("the lab may not have models measured on this device")]
    NotDelegated,
    /// The id is not what it should be.
    #[error("an order's id has {} hexadecimal digits", 2 * ORDER_ID_BYTES)]
    Id,
    /// Nothing to measure, or too much.
    #[error("an order has 1 to {MEASURED_MODELS_MAX} models, this one {0}")]
    Models(usize),
    /// A file is larger than any may be.
    #[error("a file of {0} bytes is more than may be measured")]
    TooLarge(u64),
    /// No time, too much of it, or no thread.
    #[error("an order has 1 to {MEASUREMENT_MAX_S} s of time, and a thread at least")]
    Bounds,
}

impl Delegation {
    /// Signs it with a key that devices trust.
    pub fn sign(&self, operator: &SigningKey) -> SignedDelegation {
        let delegation = serde_json::to_string(self).expect("strings and numbers are always JSON");
        let signature = operator.sign_text(DELEGATION_CONTEXT, &delegation);
        SignedDelegation { delegation, key_id: operator.public().key_id(), signature }
    }

    fn key(&self) -> Option<SignerKey> {
        SignerKey::from_slice(&hex::decode(&self.lab_key).ok()?)
    }

    fn allows(&self, device: &DeviceId) -> bool {
        self.devices.is_empty() || self.devices.contains(device)
    }
}

impl SignedDelegation {
    /// What it says, without trusting it.
    ///
    /// # Errors
    /// [`InvalidOrder::Malformed`].
    pub fn read(&self) -> Result<Delegation, InvalidOrder> {
        serde_json::from_str(&self.delegation).map_err(|_| InvalidOrder::Malformed)
    }

    fn verify(&self, trusted: &[SignerKey], now_s: i64) -> Result<Delegation, InvalidOrder> {
        let key = trusted.iter().find(|key| key.key_id() == self.key_id);
        let key = key.ok_or(InvalidOrder::UnknownKey(self.key_id))?;
        if !key.has_signed(DELEGATION_CONTEXT, &self.delegation, &self.signature) {
            return Err(InvalidOrder::Forged("delegation"));
        }
        let delegation = self.read()?;
        if delegation.expires_at_s <= now_s {
            return Err(InvalidOrder::Expired("lab's delegation"));
        }
        Ok(delegation)
    }
}

impl Order {
    /// Signs it with the lab key that `delegation` speaks of.
    pub fn sign(&self, lab: &SigningKey, delegation: SignedDelegation) -> SignedOrder {
        let order = serde_json::to_string(self).expect("strings and numbers are always JSON");
        let signature = lab.sign_text(ORDER_CONTEXT, &order);
        SignedOrder { delegation, order, signature }
    }

    /// Every file that it names.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        self.models.iter().chain([&self.inputs])
    }

    fn check(&self, now_s: i64) -> Result<(), InvalidOrder> {
        let is_hex = |id: &str| id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if self.id.len() != 2 * ORDER_ID_BYTES || !is_hex(&self.id) {
            return Err(InvalidOrder::Id);
        }
        if self.expires_at_s <= now_s {
            return Err(InvalidOrder::Expired("order"));
        }
        if self.expires_at_s.saturating_sub(now_s) > ORDER_LIFETIME_MAX_S {
            return Err(InvalidOrder::Lifetime);
        }
        if !(1..=MEASURED_MODELS_MAX).contains(&self.models.len()) {
            return Err(InvalidOrder::Models(self.models.len()));
        }
        if !(1..=MEASUREMENT_MAX_S).contains(&self.time_s) || self.threads == 0 {
            return Err(InvalidOrder::Bounds);
        }
        let bounded = |file: &FileRef, most: u64| match file.size_bytes > most {
            true => Err(InvalidOrder::TooLarge(file.size_bytes)),
            false => Ok(()),
        };
        self.models.iter().try_for_each(|model| bounded(model, BUNDLE_FILE_MAX_BYTES))?;
        bounded(&self.inputs, TENSORS_MAX_BYTES)
    }
}

impl SignedOrder {
    /// Reads a signed order, without trusting it yet.
    ///
    /// # Errors
    /// [`InvalidOrder::Malformed`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidOrder> {
        if bytes.len() > ORDER_MAX_BYTES {
            return Err(InvalidOrder::Malformed);
        }
        serde_json::from_slice(bytes).map_err(|_| InvalidOrder::Malformed)
    }

    /// The bytes that are stored and sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings are always JSON")
    }

    /// What it says, without trusting it.
    ///
    /// # Errors
    /// [`InvalidOrder::Malformed`].
    pub fn read(&self) -> Result<Order, InvalidOrder> {
        serde_json::from_str(&self.order).map_err(|_| InvalidOrder::Malformed)
    }

    /// The order, once it proves to come from a lab that one of `trusted` delegated, for this device
    /// and this time.
    ///
    /// # Errors
    /// [`InvalidOrder`].
    pub fn verify(
        &self,
        trusted: &[SignerKey],
        device: &DeviceId,
        now_s: i64,
    ) -> Result<Order, InvalidOrder> {
        let delegation = self.delegation.verify(trusted, now_s)?;
        let lab = delegation.key().ok_or(InvalidOrder::Malformed)?;
        if !lab.has_signed(ORDER_CONTEXT, &self.order, &self.signature) {
            return Err(InvalidOrder::Forged("order"));
        }
        let order = self.read()?;
        order.check(now_s)?;
        if order.device != *device {
            return Err(InvalidOrder::Elsewhere(order.device));
        }
        if !delegation.allows(device) {
            return Err(InvalidOrder::NotDelegated);
        }
        Ok(order)
    }
}

/// On what something was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, where the system says it.
    pub processor: String,
    /// Its instructions for integers and wide vectors.
    pub features: Vec<String>,
    /// The runtime, the execution provider and the threads.
    pub runtime: String,
}

/// How long one model took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How often it ran, without warming up.
    pub runs: u32,
    /// The median of its runs, in microseconds.
    pub median_us: f64,
    /// What 95 % of them did not exceed.
    pub p95_us: f64,
    /// How many times faster than the order's first model: the median over rounds, in which each ran
    /// once.
    pub speedup: f64,
}

/// What became of one of the models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timed {
    /// It ran.
    Times(Times),
    /// It did not load or run, and why.
    Failed(String),
}

/// What a device found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What the times hold for.
    pub machine: Machine,
    /// As many as the order has models, in the same order.
    pub models: Vec<Timed>,
    /// The most memory that the child held, with all of the models; where the system tells.
    pub peak_memory_bytes: Option<u64>,
}

/// What a device says of an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It was carried out.
    Measured(Measured),
    /// It was not, and will not be.
    Refused {
        /// Why.
        why: String,
        /// What somebody can do about it.
        hint: String,
    },
}

impl Report {
    /// Reads what a device said.
    ///
    /// # Errors
    /// Not a report, or a longer one than [`MEASURED_MAX_BYTES`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidOrder> {
        if bytes.len() > MEASURED_MAX_BYTES {
            return Err(InvalidOrder::Malformed);
        }
        serde_json::from_slice(bytes).map_err(|_| InvalidOrder::Malformed)
    }

    /// The bytes that are stored and sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and finite numbers are always JSON")
    }
}

/// One request's inputs, as the file of an order.
pub fn encode_inputs(inputs: &[Tensor]) -> Vec<u8> {
    wire::Probe::new(inputs, &[]).request.unwrap_or_default().encode_to_vec()
}

/// The inputs in such a file.
///
/// # Errors
/// What is wrong with it.
pub fn decode_inputs(bytes: &[u8]) -> Result<Vec<Tensor>, Problem> {
    check_encoded_request(bytes)?;
    let message = ModelInferRequest::decode(bytes);
    let mut message = message.map_err(|error| {
        Problem::new(ProblemCode::InvalidRequest, format!("no inputs: {error}"))
    })?;
    message.model_name = "measured".to_owned(); // the order says which models, the reader wants one
    Ok(parse_request(message, None)?.request.inputs)
}

#[cfg(test)]
mod tests;
