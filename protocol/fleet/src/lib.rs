//! What the cloud decides, without doing any of it: who may enrol ([`enrol`]), who may do what
//! ([`access`]), how often an address may fail to say who it is ([`attempts`]), what each device should run ([`desired`]), and which request is taken now
//! ([`admission`]).
//!
//! Plain values in, plain values out: `now` is an argument.

pub mod access;
pub mod admission;
pub mod attempts;
pub mod desired;
pub mod enrol;
