//! What devices say of themselves, and how it stays theirs: records, and the segments that carry them.
//!
//! A device writes *records* ([`record`]) in groups. Each group becomes one *frame*: it is packed (zstd) and sealed
//! for the operator's analytics key ([`seal`]), so that whoever stores it, the cloud included, cannot read it. Frames
//! of one class follow each other in a *segment* ([`segment`]), which is what lies on the device's disk, what is sent,
//! and what the cloud keeps, byte for byte. Anybody can check that a segment is whole; only who has the private
//! key ([`key`]) can open it ([`open`]).
//!
//! One class is never sealed: counters, a fixed list of sums without content.
//!
//! Plain values in, plain values out: time and entropy are arguments.

pub mod histogram;
pub mod key;
pub mod limits;
pub mod open;
pub mod record;
pub mod seal;
pub mod segment;

mod attributes;

/// The messages of `telemetry.proto`.
pub mod wire {
    #![allow(missing_docs, clippy::all, unused_qualifications)]
    include!(concat!(env!("OUT_DIR"), "/outrigger.telemetry.v1.rs"));
}

pub use wire::Class;

impl Class {
    /// Every class, what is given up last first.
    pub const ALL: [Class; 4] = [Class::Counters, Class::Aggregates, Class::Events, Class::Samples];

    /// A word for files, metrics and people.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Counters => "counters",
            Class::Aggregates => "aggregates",
            Class::Events => "events",
            Class::Samples => "samples",
        }
    }

    /// The class of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// Whether its frames are sealed. What is not is content-free.
    pub fn is_sealed(self) -> bool {
        self != Class::Counters
    }

    /// Whether its encapsulated key is kept apart from its frames, so that it can be destroyed.
    pub fn has_detached_key(self) -> bool {
        self == Class::Samples
    }
}
