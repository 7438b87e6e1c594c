//! Commands about what devices record: for whom it is sealed, and how it is read. Only this side can open it.

pub(crate) mod decrypt;
pub(crate) mod delete;
pub(crate) mod key;
pub(crate) mod pull;
