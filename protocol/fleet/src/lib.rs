//! What the cloud decides, without doing any of it: who may enrol ([`enrol`]), who may change
//! what ([`access`]), what each device should run ([`desired`]), and which request is taken now
//! ([`admission`]).
//!
//! Plain values in, plain values out: `now` is an argument.

pub mod access;
pub mod admission;
pub mod desired;
pub mod enrol;
