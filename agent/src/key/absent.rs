//! In the place of `token` where an agent was built without PKCS#11: nothing is found.

use super::uri::KeyUri;
use rustls::sign::SigningKey;
use std::sync::Arc;

/// There is none.
#[derive(Debug)]
pub(crate) enum TokenKey {}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("this agent was built without PKCS#11")]
    BuiltWithout,
}

impl TokenError {
    /// What a person can do.
    pub(crate) fn hint(&self) -> &'static str {
        "use one that was built with its feature pkcs11, or a key in a file"
    }
}

impl TokenKey {
    pub(crate) fn find(_: &KeyUri) -> Result<Arc<Self>, TokenError> {
        Err(TokenError::BuiltWithout)
    }

    pub(crate) fn find_or_make(_: &KeyUri) -> Result<Arc<Self>, TokenError> {
        Err(TokenError::BuiltWithout)
    }

    pub(crate) fn close(&self) {
        match *self {}
    }

    pub(crate) fn point(&self) -> &[u8] {
        match *self {}
    }

    pub(crate) fn place(&self) -> String {
        match *self {}
    }

    pub(crate) fn sign(&self, _: &[u8]) -> Result<Vec<u8>, TokenError> {
        match *self {}
    }
}

#[allow(clippy::needless_pass_by_value)] // as where there is one
pub(crate) fn for_tls(key: Arc<TokenKey>) -> Arc<dyn SigningKey> {
    match *key {}
}
