//! The applications that may call over TCP, by the tokens that they show.

use crate::config::Application;
use oip::Caller;
use protocol::id::ContentHash;
use protocol::token::SecretDigest;
use std::sync::Arc;

/// Tokens by their SHA-256, each with what its holder may do.
pub(crate) struct Applications(Vec<(SecretDigest, Caller)>);

impl Applications {
    pub(crate) fn new(configured: &[Application]) -> Self {
        let entry = |application: &Application| {
            let caller = match &application.models {
                Some(models) => Caller::of_models(Arc::new(models.clone())),
                None => Caller::unlimited(),
            };
            tracing::info!(application = %application.name, "may call over TCP");
            (digest(application.token_sha256), caller.named(&application.name))
        };
        Self(configured.iter().map(entry).collect())
    }

    /// Whether a token is needed at all.
    pub(super) fn are_configured(&self) -> bool {
        !self.0.is_empty()
    }

    /// Who holds this token. Every digest is compared, in constant time.
    pub(super) fn holder(&self, token: &[u8]) -> Option<Caller> {
        let shown = digest(ContentHash::of(token));
        let matching = |found, (known, caller): &(SecretDigest, Caller)| {
            if known.matches(&shown) { Some(caller.clone()) } else { found }
        };
        self.0.iter().fold(None, matching)
    }
}

fn digest(hash: ContentHash) -> SecretDigest {
    SecretDigest(*hash.as_bytes())
}
