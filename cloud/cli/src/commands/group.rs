//! Commands about groups: queries over devices that have a name.

pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod set;
