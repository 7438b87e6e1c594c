//! What agents do with the server, once more over TLS and TCP: the same tests, whatever carries them; and
//! what only a carrier that is written here can do wrong.

#![allow(clippy::unwrap_used)] // helpers beside the tests

#[path = "../server/enrol.rs"]
mod enrol;
#[path = "../server/garbage.rs"]
mod garbage;
mod hostile;
#[path = "../server/lanes.rs"]
mod lanes;
#[path = "../server/models.rs"]
mod models;
#[path = "../server/revocation.rs"]
mod revocation;
#[path = "../server/support.rs"]
mod support;
#[path = "../server/time.rs"]
mod time;

/// Over what agents connect here.
const CARRIER: protocol::carrier::Wanted = protocol::carrier::Wanted::Tcp;
