//! Whose key a call shows.

use axum::extract::ConnectInfo;
use axum::http::header::AUTHORIZATION;
use axum::http::{Extensions, HeaderMap, HeaderValue};
use fleet::access::Denied;
use protocol::token::Secret;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::access::LiveKey;
use crate::state::Cloud;

/// Why a call is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    /// No key, or one that is not believed.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Its address failed too often.
    #[error("too many calls without a valid key came from this address")]
    TooOften {
        /// Milliseconds until it should try again.
        wait_ms: u32,
    },
}

/// The key behind a call; failures are counted here.
pub(crate) fn holder(
    cloud: &Cloud,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Arc<LiveKey>, Unknown> {
    let shown = headers.get(AUTHORIZATION).and_then(credentials).ok_or(Denied::Unknown);
    let key = shown.and_then(|(id, secret)| cloud.access.authenticate(id, &secret.digest()));
    key.map_err(|denied| {
        let remote = remote(extensions);
        match cloud.access.failed(remote) {
            Ok(()) => {
                cloud.events.api_unauthorised(remote);
                Unknown::Denied(denied)
            }
            Err(wait) => {
                cloud.events.api_throttled();
                Unknown::TooOften { wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX) }
            }
        }
    })
}

/// Where a call comes from.
pub(super) fn remote(extensions: &Extensions) -> IpAddr {
    let info = extensions.get::<ConnectInfo<SocketAddr>>();
    info.map_or(Ipv4Addr::UNSPECIFIED.into(), |ConnectInfo(address)| address.ip())
}

/// `Bearer ID.SECRET`, also with the CA's hash behind it, as a key's file has it.
fn credentials(header: &HeaderValue) -> Option<(&str, Secret)> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    let mut parts = token.trim().splitn(3, '.');
    let (id, secret) = (parts.next()?, parts.next()?);
    scheme.eq_ignore_ascii_case("bearer").then_some(())?;
    Some((id, secret.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_with_and_without_the_hash_of_the_ca() {
        let secret = "0".repeat(64);
        for (text, expected) in [
            (format!("Bearer id.{secret}"), Some("id")),
            (format!("bearer id.{secret}.cahash"), Some("id")),
            (format!("Basic id.{secret}"), None),
            (format!("id.{secret}"), None),
            ("Bearer id".into(), None),
            ("Bearer id.short".into(), None),
        ] {
            let header = HeaderValue::from_str(&text).unwrap();
            assert_eq!(credentials(&header).map(|(id, _)| id), expected, "{text}");
        }
    }
}
