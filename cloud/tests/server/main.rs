//! The server from outside: its HTTPS API, its QUIC side, and what it does with peers that do not
//! keep to the protocol.

#![allow(clippy::unwrap_used)] // helpers beside the tests

mod accelerators;
mod access;
mod backup;
mod enrol;
mod garbage;
mod lanes;
mod models;
mod operations;
mod process;
mod revocation;
mod sign_in;
mod standard;
mod support;
mod time;

/// Over what agents connect here.
const CARRIER: protocol::carrier::Wanted = protocol::carrier::Wanted::Quic;
