//! Commands about tenants.

pub(crate) mod list;
pub(crate) mod set;
