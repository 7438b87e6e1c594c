//! `[otlp]`: the same section in the agent's configuration and in the cloud's.

use protocol::otlp::Signal;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Where collectors listen for gRPC, unless they say otherwise.
const GRPC_PORT: u16 = 4317;

/// Where the collector is, and what it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpSettings {
    /// The collector's URL, to which `/v1/traces`, `/v1/metrics` and `/v1/logs` are added over HTTP. Nothing
    /// is told when it is empty.
    pub endpoint: String,
    /// What carries it there: `http` (protobuf), or `grpc`.
    pub protocol: Protocol,
    /// The share of the requests that are traced where the caller does not say, 0 to 1.
    pub sample: f64,
    /// How often figures are told, in seconds; 0 for never.
    pub interval_s: u32,
    /// Whether lines of the log are told.
    pub logs: bool,
    /// A file of headers for the collector, one a line, as `Name: value`; none when empty.
    pub headers_file: PathBuf,
    /// The certificates that the collector is trusted by, as PEM; the system's when empty.
    pub ca_file: PathBuf,
}

/// What carries an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A POST for each.
    #[default]
    Http,
    /// A call for each.
    Grpc,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            protocol: Protocol::Http,
            sample: 0.0,
            interval_s: 60,
            logs: true,
            headers_file: PathBuf::new(),
            ca_file: PathBuf::new(),
        }
    }
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

/// Where a collector listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) is_tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

impl OtlpSettings {
    /// The first that makes no sense.
    ///
    /// # Errors
    /// [`Objection`].
    pub fn check(&self) -> Result<(), Objection> {
        if !self.endpoint.is_empty() {
            self.place()?;
        }
        if !(0.0..=1.0).contains(&self.sample) {
            let error = format!("{} is no share of the requests", self.sample);
            let hint = "from 0 (only what callers trace) to 1 (all)";
            return Err(Objection { key: "sample", error, hint });
        }
        Ok(())
    }

    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_s.max(1).into())
    }

    /// Whether TLS is spoken, with whom, and the path behind that.
    fn parts(&self) -> Option<(bool, &str, &str)> {
        let plain = self.endpoint.strip_prefix("http://");
        let rest = plain.or_else(|| self.endpoint.strip_prefix("https://"))?;
        let host = rest.split('/').next().unwrap_or_default();
        let uri: ureq::http::Uri = self.endpoint.parse().ok()?;
        if host.is_empty() || host.contains('@') || uri.host().is_none() || uri.query().is_some() {
            return None;
        }
        Some((plain.is_none(), host, rest[host.len()..].trim_end_matches('/')))
    }

    /// Where a signal is posted. The URL of one signal stands for those of all.
    pub(super) fn url(&self, signal: Signal) -> Option<String> {
        let (is_tls, host, path) = self.parts()?;
        let scheme = if is_tls { "https" } else { "http" };
        let mut ends = Signal::ALL.into_iter().map(|signal| format!("/v1/{}", signal.as_str()));
        let base = ends.find_map(|end| path.strip_suffix(end.as_str())).unwrap_or(path);
        Some(format!("{scheme}://{host}{base}/v1/{}", signal.as_str()))
    }

    /// Where it is called.
    pub(super) fn place(&self) -> Result<Place, Objection> {
        let object = |error, hint| Objection { key: "endpoint", error, hint };
        let no_url = || {
            let error = format!("{:?} is no URL of HTTP", self.endpoint);
            object(error, "for example: http://127.0.0.1:4318, or :4317 for gRPC")
        };
        let (is_tls, _, path) = self.parts().ok_or_else(no_url)?;
        if self.protocol == Protocol::Grpc && !path.is_empty() {
            let error = format!("{:?} has a path, which gRPC has not", self.endpoint);
            return Err(object(error, "leave out what stands behind the port"));
        }
        let uri: ureq::http::Uri = self.endpoint.parse().map_err(|_| no_url())?;
        let host = uri.host().unwrap_or_default().to_owned();
        Ok(Place { is_tls, host, port: uri.port_u16().unwrap_or(GRPC_PORT) })
    }

    /// Whether the collector is on this machine, where no proxy leads.
    pub(super) fn is_local(&self) -> bool {
        let host = self.place().map(|place| place.host).unwrap_or_default();
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(endpoint: &str) -> OtlpSettings {
        OtlpSettings { endpoint: endpoint.to_owned(), ..OtlpSettings::default() }
    }

    #[test]
    fn a_collector_has_urls() {
        for (endpoint, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/logs"),
            ("https://otel.example/", "https://otel.example/v1/logs"),
            ("https://otel.example/in", "https://otel.example/in/v1/logs"),
            ("https://otel.example/in/v1/traces", "https://otel.example/in/v1/logs"),
        ] {
            assert_eq!(at(endpoint).url(Signal::Logs).as_deref(), Some(url));
        }
        for bad in ["127.0.0.1:4318", "grpc://x", "http://", "http://a:b@c", "http://a b"] {
            assert_eq!(at(bad).check().unwrap_err().key, "endpoint", "{bad}");
        }
        assert_eq!(at("").check(), Ok(()));
        assert!(at("http://[::1]:4318").is_local() && !at("http://otel.example").is_local());
    }

    #[test]
    fn grpc_has_a_host_and_a_port() {
        let over_grpc = |endpoint| OtlpSettings { protocol: Protocol::Grpc, ..at(endpoint) };
        let place = |endpoint| over_grpc(endpoint).place();
        let expected = |is_tls, host: &str, port| Place { is_tls, host: host.to_owned(), port };
        assert_eq!(place("http://[::1]:9"), Ok(expected(false, "[::1]", 9)));
        assert_eq!(place("https://otel.example/"), Ok(expected(true, "otel.example", 4317)));
        assert_eq!(over_grpc("http://a/v1/traces").check().unwrap_err().key, "endpoint");
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        for sample in [-0.1, 1.1, f64::NAN] {
            let settings = OtlpSettings { sample, ..OtlpSettings::default() };
            assert_eq!(settings.check().unwrap_err().key, "sample");
        }
    }
}
