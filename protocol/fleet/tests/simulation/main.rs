//! Admission, batching and scaling against simulated traffic and a simulated model, in one thread,
//! under a seed that every failure prints.
#![allow(clippy::unwrap_used)]

mod batches;
mod fairness;
mod overload;
mod random;
mod scaling;
mod traffic;
mod world;
