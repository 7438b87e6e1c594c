//! What both ends agree on: names, tensors, signed manifests, tokens, frames and messages, the
//! Open Inference Protocol's HTTP bodies, and the resumable transfer of blobs.
//!
//! Nothing here performs IO, reads a clock, starts a thread or owns randomness: bytes, `now` and
//! entropy are arguments. `clippy.toml` in this folder keeps that rule by machine.
//!
//! Read in this order: [`id`], [`tensor`], [`infer`] (a request and its verdict), [`manifest`]
//! (what a bundle is and who signed it), [`codec`] and [`wire`] (how all of that travels),
//! [`oip`] (how applications say it), [`transfer`] (how blobs arrive), [`time`] (how devices hear it),
//! [`carrier`] and [`mux`] (over what), [`trace`] (where the time of a request went), [`measurement`]
//! (how fast models are on a device, for whoever builds them), [`analytics`] (for whom telemetry is sealed), [`evidence`] (how a model answers, in numbers), [`tuf`] (a repository of models that
//! nobody can forge), [`release`] (the agent's own program, of which there is a next one), [`limits`], and [`residency`]: which models are in memory, by one rule on a
//! device and in the cloud.

pub mod analytics;
pub mod carrier;
pub mod codec;
pub mod evidence;
pub mod id;
pub mod infer;
pub mod limits;
pub mod manifest;
pub mod measurement;
pub mod model_signature;
pub mod mux;
pub mod oip;
pub mod otlp;
pub mod pattern;
pub mod problem;
pub mod question;
pub mod release;
pub mod residency;
pub mod tensor;
pub mod time;
pub mod token;
pub mod trace;
pub mod transfer;
pub mod transport;
pub mod tuf;
pub mod versions;
pub mod wire;

/// ALPN of the connection between an enrolled agent and the cloud.
pub const ALPN_AGENT: &[u8] = b"outrigger/1";
/// ALPN of the one-shot connection on which a device enrols.
pub const ALPN_ENROL: &[u8] = b"outrigger-enrol/1";
/// ALPN of the one-shot connection on which a device renews its certificate, even an expired one.
pub const ALPN_RENEW: &[u8] = b"outrigger-renew/1";
/// ALPN of the connection between two devices of a site, which is always over TCP.
pub const ALPN_PEER: &[u8] = b"outrigger-peer-tcp/1";
/// ALPN of the connection between an inference node and the control node.
pub const ALPN_NODE: &[u8] = b"outrigger-node/1";
/// ALPN of the one-shot connection on which an inference node enrols.
pub const ALPN_NODE_ENROL: &[u8] = b"outrigger-node-enrol/1";
