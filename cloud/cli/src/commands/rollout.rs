//! Commands about roll-outs: how a version reaches the fleet in stages.

pub(crate) mod asked;
pub(crate) mod command;
pub(crate) mod history;
pub(crate) mod one;
pub(crate) mod start;
pub(crate) mod status;
mod view;
pub(crate) mod watch;
