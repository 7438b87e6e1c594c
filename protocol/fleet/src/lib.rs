//! What the cloud decides, without doing any of it: who may enrol ([`enrol`]), who may do what
//! ([`access`]), who a person is that signs in through a provider ([`sign_in`]), how often an address may fail to say who it is ([`attempts`]), what each device should run ([`desired`]), which request is taken now
//! ([`admission`]), which requests run together ([`batch`]), on how many sessions ([`scaling`]), and
//! when a worker that ended is started again ([`restarts`]); how busy a node is ([`load`]), how
//! fast downloads may be ([`background`]), what the repository of models takes in ([`repository`]), which
//! devices may carry chunks to each other ([`sites`]), what devices are asked for by ([`labels`]), how a version reaches the fleet
//! in stages ([`rollout`]), what devices are asked, and for how long ([`questions`]), and what may be shown of
//! the whole fleet ([`crowd`]).
//!
//! Plain values in, plain values out: `now` and entropy are arguments.

pub mod access;
pub mod admission;
pub mod attempts;
pub mod background;
pub mod batch;
pub mod crowd;
pub mod desired;
pub mod enrol;
pub mod labels;
pub mod load;
pub mod questions;
pub mod repository;
pub mod restarts;
pub mod rollout;
pub mod scaling;
pub mod sign_in;
pub mod sites;
