//! A fleet in one process: thousands of devices that enrol, connect and take versions as agents do, without ONNX Runtime.
//!
//! What a device decides is the agent's own code (`edge`: when to connect again, what time it is, how a version takes over),
//! and so is what it says
//! (`link::device`); connections are real QUIC with a certificate for each device, as `carrier = "quic"` has an agent
//! connect. Two things are not as on devices: a few UDP sockets carry all connections of the process, and identities live
//! in memory alone. Datagrams are as large as on an Ethernet.
//!
//! A device is two tasks at most and no thread, so that ten thousand of them fit beside the cloud that they are to drive.

pub mod behaviour;
pub mod candidate;
pub mod chance;
mod counts;
mod device;
mod enrolment;
mod evidence;
mod fleet;
mod install;

pub use counts::Counts;
pub use fleet::{Fleet, FleetError, Nature, Place};
