//! `[traces]`: the same section in the agent's configuration and in the cloud's.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where traces go, and which requests are traced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSettings {
    /// The collector's URL for OTLP over HTTP; `/v1/traces` is added where it has no path. Nothing is
    /// recorded when it is empty.
    pub endpoint: String,
    /// The share of the requests that are traced where the caller does not say, 0 to 1.
    pub sample: f64,
    /// A file of headers for the collector, one a line, as `Name: value`; none when empty.
    pub headers_file: PathBuf,
    /// The certificates that the collector is trusted by, as PEM; the system's when empty.
    pub ca_file: PathBuf,
}

/// What makes no sense in the settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error} ({hint})")]
pub struct Objection {
    /// Which one.
    pub key: &'static str,
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub hint: &'static str,
}

impl TraceSettings {
    /// The first that makes no sense.
    ///
    /// # Errors
    /// [`Objection`].
    pub fn check(&self) -> Result<(), Objection> {
        let object = |key, error, hint| Err(Objection { key, error, hint });
        if !self.endpoint.is_empty() && self.url().is_none() {
            let error = format!("{:?} is no URL of HTTP", self.endpoint);
            return object("endpoint", error, "for example: http://127.0.0.1:4318");
        }
        if !(0.0..=1.0).contains(&self.sample) {
            let error = format!("{} is no share of the requests", self.sample);
            return object("sample", error, "from 0 (only what callers trace) to 1 (all)");
        }
        Ok(())
    }

    /// Where spans are posted.
    pub(super) fn url(&self) -> Option<String> {
        let plain = self.endpoint.strip_prefix("http://");
        let rest = plain.or_else(|| self.endpoint.strip_prefix("https://"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let uri: ureq::http::Uri = self.endpoint.parse().ok()?;
        if host.is_empty() || host.contains('@') || uri.host().is_none() {
            return None;
        }
        let path = &rest[host.len()..];
        let added = if path.is_empty() || path == "/" { "/v1/traces" } else { path };
        let scheme = if plain.is_some() { "http" } else { "https" };
        Some(format!("{scheme}://{host}{added}"))
    }

    /// Whether the collector is on this machine, where no proxy leads.
    pub(super) fn is_local(&self) -> bool {
        let uri = self.endpoint.parse::<ureq::http::Uri>();
        let host = uri.ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(endpoint: &str) -> TraceSettings {
        TraceSettings { endpoint: endpoint.to_owned(), ..TraceSettings::default() }
    }

    #[test]
    fn a_collector_has_a_url() {
        for (endpoint, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://otel.example/", "https://otel.example/v1/traces"),
            ("https://otel.example/in/v1/traces", "https://otel.example/in/v1/traces"),
        ] {
            assert_eq!(at(endpoint).url().as_deref(), Some(url));
        }
        for bad in ["127.0.0.1:4318", "grpc://x", "http://", "http://a:b@c", "http://a b"] {
            assert_eq!(at(bad).check().unwrap_err().key, "endpoint", "{bad}");
        }
        assert_eq!(at("").check(), Ok(()));
        assert!(at("http://[::1]:4318").is_local() && !at("http://otel.example").is_local());
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        for sample in [-0.1, 1.1, f64::NAN] {
            let settings = TraceSettings { sample, ..TraceSettings::default() };
            assert_eq!(settings.check().unwrap_err().key, "sample");
        }
    }
}
