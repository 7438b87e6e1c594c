//! Commands about inference nodes.

pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod token;
