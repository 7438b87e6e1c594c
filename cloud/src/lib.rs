//! The server: one process and one folder that serve a fleet of agents.
//!
//! [`server`] starts and stops it all. Agents come over QUIC ([`agents`]): they enrol, keep one
//! control stream, and open one stream per request or blob. Operators come over HTTPS ([`api`]),
//! and so do clients of the Open Inference Protocol ([`standard`]); who they are is known from
//! their keys ([`access`]), which people get by signing in at a provider ([`sign_in`]). Requests to models take one way, whoever asks: [`requests`]; what they
//! took is metered ([`usage`]).
//!
//! There may be more than one node: inference nodes ([`join`]) pull what they must know from the
//! control node, which tells devices of them ([`nodes`]), and go on without it.
//!
//! All work on the same [`state`]: the [`store`] (SQLite), the [`blobs`] (files by hash, also as [`deltas`]), the
//! fleet's [`ca`], and the cloud variants in [`serving`], which run in child processes (`workers`).
//! What is decided is decided in the `fleet` crate; here it is carried out. What happens is counted and
//! logged in [`events`], what became of requests in [`metrics`] and [`access_log`]; what a person can
//! set is in [`settings`]. All of it goes into one encrypted file, and comes out of it again, by [`backup`]; but for
//! [`telemetry`], which nobody here can read.

pub mod access;
pub mod access_log;
pub mod admin_key;
pub mod agents;
pub mod api;
pub mod backup;
pub mod blobs;
pub mod ca;
pub mod data_dir;
pub mod deltas;
pub mod events;
mod garbage;
pub mod join;
pub mod memory;
pub mod metrics;
pub mod nodes;
pub mod questions;
pub mod repository;
pub mod requests;
pub mod rollouts;
pub mod server;
pub mod serving;
pub mod settings;
pub mod sign_in;
pub mod standard;
pub mod state;
pub mod store;
pub mod telemetry;
pub mod usage;
#[cfg(target_os = "linux")]
pub mod workers;
