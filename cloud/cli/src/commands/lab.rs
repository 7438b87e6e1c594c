//! Commands about measuring models on devices.

pub(crate) mod accept;
pub(crate) mod delegate;
pub(crate) mod key;
pub(crate) mod measure;
