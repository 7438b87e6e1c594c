//! What the tests of the whole system share.
//!
//! [`world`] runs the three real programs on loopback; [`http`] and [`raw_link`] talk to them as
//! applications and as peers, well-behaved or not, and so does [`grpc`]; [`load`] is many applications
//! at once; [`small_models`] and [`onnx`] make models; [`python`], [`debian`] and [`foreign`] bring in clients that
//! nobody here wrote; [`programs`] makes next programs of the agent, good and bad, and [`compat`] has those of the release before; [`tuf`] reads repositories as a device does; [`simulation`] is the whole system in one thread under one seed, over the links of
//! [`network`], which [`relay`] makes of real packets; [`faketime`] sets their clocks wrong; [`fashion`] has the labelled demo images.
//! [`callers`] are the programs and devices that call a cloud, and [`collector`] takes their traces. [`demo`],
//! [`mod@bench`], [`deadlines`], [`pipelines`], [`power_cut`], [`soak`], [`swap`], [`rollouts`], [`fuzz`] and [`overload`] are what `cargo xtask` runs under
//! those names; [`architecture`] holds the rules of the code base.

pub mod architecture;
pub mod bad;
pub mod bench;
pub mod callers;
pub mod certificates;
pub mod collector;
pub mod compat;
pub mod cores;
pub mod deadlines;
pub mod debian;
pub mod demo;
pub mod downloads;
pub mod failing_disk;
pub mod faketime;
pub mod fashion;
pub mod floods;
pub mod foreign;
pub mod fuzz;
pub mod gate;
pub mod grpc;
pub mod hostile;
pub mod http;
#[cfg(target_os = "linux")]
pub mod lab;
pub mod liar;
pub mod limits;
pub mod load;
pub mod long_model;
pub mod network;
pub mod nodes;
pub mod onnx;
pub mod overload;
pub mod people;
pub mod perf_analyzer;
pub mod pipelines;
pub mod power_cut;
pub mod programs;
pub mod prometheus;
pub mod provider;
pub mod proxy;
pub mod python;
pub mod raw_link;
pub mod relay;
pub mod rollouts;
pub mod simulation;
pub mod small_disk;
pub mod small_models;
pub mod soak;
pub mod statistics;
pub mod swap;
pub mod telemetry;
pub mod tokens;
pub mod tuf;
pub mod workers;
pub mod world;
