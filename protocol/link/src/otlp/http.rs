//! OTLP over HTTP: one POST for each batch, over a connection that is kept.

use protocol::otlp::{Exported, Signal};
use protocol::problem::chain;
use std::time::Duration;
use ureq::http::{HeaderName, HeaderValue, StatusCode};

use super::collector::{ANSWER_MAX_BYTES, Attempt, CollectorError, PATIENCE};
use super::headers::read_headers;
use super::{OtlpSettings, Service};
use crate::roots;

pub(super) struct Http {
    agent: ureq::Agent,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Http {
    pub(super) fn new(
        settings: &OtlpSettings,
        service: &Service,
        signal: Signal,
    ) -> Result<Self, CollectorError> {
        let url = settings.url(signal).unwrap_or_default(); // it was checked
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            .http_status_as_error(false)
            .user_agent(format!("{}/{}", service.name, service.version));
        let config = match settings.is_local() {
            true => config.proxy(None),
            false => config,
        };
        let config = match url.starts_with("https://") {
            true => config.tls_config(roots::http_client(&settings.ca_file)?),
            false => config,
        };
        let agent = config.build().new_agent();
        Ok(Self { agent, url, headers: read_headers(&settings.headers_file)? })
    }

    pub(super) fn take(&self, body: &[u8]) -> Attempt {
        let request = self.agent.post(&self.url).header("content-type", "application/x-protobuf");
        let request = self
            .headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name.clone(), value.clone()));
        let mut answer = match request.send(body) {
            Ok(answer) => answer,
            Err(error) => return Attempt::TryAgain { wait: None, why: chain(&error) },
        };
        let status = answer.status();
        if status.is_success() {
            let body = answer.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_vec();
            return Attempt::Taken(Exported::read(&body.unwrap_or_default()));
        }
        let why = format!("the collector answers {status}");
        if !may_be_taken_later(status) {
            return Attempt::Refused(why);
        }
        let wait = answer.headers().get("retry-after").and_then(|wait| wait.to_str().ok());
        let wait = wait.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        Attempt::TryAgain { wait, why }
    }
}

/// The answers after which OTLP wants another attempt.
fn may_be_taken_later(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
