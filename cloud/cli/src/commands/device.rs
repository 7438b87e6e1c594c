//! Commands about devices.

pub(crate) mod deny;
pub(crate) mod list;
pub(crate) mod token;
