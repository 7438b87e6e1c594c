//! What the cloud decides, without doing any of it: who may enrol ([`enrol`]), who may change
//! what ([`access`]), what each device should run ([`desired`]), which request is taken now
//! ([`admission`]), which requests run together ([`batch`]), and on how many sessions
//! ([`scaling`]).
//!
//! Plain values in, plain values out: `now` and entropy are arguments.

pub mod access;
pub mod admission;
pub mod batch;
pub mod desired;
pub mod enrol;
pub mod scaling;
