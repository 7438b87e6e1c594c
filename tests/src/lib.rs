//! What the tests of the whole system share.
//!
//! [`world`] runs the three real programs on loopback; [`http`] and [`raw_link`] talk to them as
//! applications and as peers, well-behaved or not; [`python`] brings in clients that nobody here
//! wrote; [`faketime`] sets their clocks wrong; [`fashion`] has the labelled demo images. [`demo`], [`mod@bench`] and [`power_cut`] are what
//! `cargo xtask` runs under those names; [`architecture`] holds the rules of the code base.

pub mod architecture;
pub mod bench;
pub mod demo;
pub mod faketime;
pub mod fashion;
pub mod hostile;
pub mod http;
pub mod people;
pub mod power_cut;
pub mod prometheus;
pub mod python;
pub mod raw_link;
pub mod statistics;
pub mod world;
