//! The commands, one file each.

pub(crate) mod agent;
pub(crate) mod audit;
pub(crate) mod device;
pub(crate) mod group;
pub(crate) mod key;
pub(crate) mod lab;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod repo;
pub(crate) mod rollout;
pub(crate) mod telemetry;
pub(crate) mod tenant;
pub(crate) mod usage;
