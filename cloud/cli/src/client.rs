//! The admin API of a cloud, for a blocking caller.

use anyhow::Context;
use protocol::id::ContentHash;
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::Read;
use std::time::Duration;
use ureq::http::{Request, StatusCode};
use ureq::{Agent, AsSendBody, SendBody};

use crate::config::{Config, Credentials};
use crate::errors::hinted;
use crate::probe::Address;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A pushed cloud variant is loaded and tried before the answer comes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// The largest answer: a list of many devices.
const ANSWER_MAX_BYTES: u64 = 64 << 20;

/// A cloud that this operator is logged in to.
pub(crate) struct Client {
    http: Agent,
    cloud: String,
    /// Nothing before a sign-in.
    bearer: Option<String>,
    /// Whether the key is of a sign-in, which ends.
    signed_in: bool,
}

impl Client {
    /// The cloud of the last login.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let (credentials, ca) = config.login()?;
        Ok(Self::new(&credentials, &ca))
    }

    /// A cloud that is trusted by its CA.
    pub(crate) fn new(credentials: &Credentials, ca: &CertificateDer<'_>) -> Self {
        let bearer = format!("Bearer {}.{}", credentials.key_id, credentials.secret);
        Self {
            http: agent(ca),
            cloud: credentials.cloud.clone(),
            bearer: Some(bearer),
            signed_in: credentials.ends_at_s.is_some(),
        }
    }

    /// The same before anybody has a key.
    pub(crate) fn without_key(cloud: &Address, ca: &CertificateDer<'_>) -> Self {
        Self { http: agent(ca), cloud: cloud.to_string(), bearer: None, signed_in: false }
    }

    /// `HOST:PORT`.
    pub(crate) fn cloud(&self) -> &str {
        &self.cloud
    }

    /// Reads something.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.answer(self.call("GET", path, &[], ())?)
    }

    /// The list under `key` of an answer.
    pub(crate) fn list(&self, path: &str, key: &str) -> anyhow::Result<Value> {
        let mut answer: Value = self.get(path)?;
        Ok(answer[key].take())
    }

    /// Fetches bytes, and the encapsulated key that comes with samples; nothing where they are gone.
    pub(crate) fn fetch(&self, path: &str) -> anyhow::Result<Option<(Vec<u8>, Option<String>)>> {
        let mut response = self.call("GET", path, &[], ())?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !response.status().is_success() {
            return self.answer::<Value>(response).map(|_| None);
        }
        let key = response.headers().get("x-outrigger-encapsulated-key");
        let key = key.and_then(|key| key.to_str().ok()).filter(|key| !key.is_empty());
        let key = key.map(str::to_owned);
        let body = response.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_vec();
        let body = body.with_context(|| format!("the answer of {} broke off", self.cloud))?;
        Ok(Some((body, key)))
    }

    /// Sends JSON.
    pub(crate) fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<T> {
        let json = [("content-type", "application/json".to_owned())];
        self.answer(self.call(method, path, &json, body)?)
    }

    /// Whether the cloud holds a blob.
    pub(crate) fn has_blob(&self, hash: ContentHash) -> anyhow::Result<bool> {
        let response = self.call("HEAD", &format!("/v1/blobs/{hash}"), &[], ())?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.answer::<Value>(response).map(|_| false),
        }
    }

    /// Uploads a blob.
    pub(crate) fn put_blob(
        &self,
        hash: ContentHash,
        size_bytes: u64,
        mut bytes: impl Read,
    ) -> anyhow::Result<()> {
        let length = [("content-length", size_bytes.to_string())];
        let body = SendBody::from_reader(&mut bytes);
        let response = self.call("PUT", &format!("/v1/blobs/{hash}"), &length, body)?;
        self.answer::<Value>(response).map(drop)
    }

    fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: impl AsSendBody,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut request =
            Request::builder().method(method).uri(format!("https://{}{path}", self.cloud));
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        self.http.run(request.body(body)?).map_err(|error| {
            let hint = "is outrigger-cloud running there?";
            hinted(format!("cannot reach the cloud at {}: {error}", self.cloud), hint)
        })
    }

    fn answer<T: DeserializeOwned>(
        &self,
        mut response: ureq::http::Response<ureq::Body>,
    ) -> anyhow::Result<T> {
        let status = response.status();
        let body = response.body_mut().with_config().limit(ANSWER_MAX_BYTES).read_to_vec();
        let body = body.with_context(|| format!("the answer of {} broke off", self.cloud))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .context("the cloud's answer is not understood; is its version much newer?");
        }
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |key: &str| problem[key].as_str().unwrap_or_default().to_owned();
        if status == StatusCode::UNAUTHORIZED && self.signed_in {
            let what = format!("the sign-in to {} is over", self.cloud);
            let hint = format!("sign in again: outrigger login --cloud {} --oidc", self.cloud);
            return Err(hinted(what, hint));
        }
        match text("error") {
            error if error.is_empty() => Err(hinted(format!("the cloud answered {status}"), "")),
            error => Err(hinted(error, text("hint"))),
        }
    }
}

/// What sends nothing to anybody but whoever has a certificate of this CA.
fn agent(ca: &CertificateDer<'_>) -> Agent {
    let config = Agent::config_builder()
        .tls_config(link::roots::http_client_of(std::slice::from_ref(ca)))
        .https_only(true)
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .build();
    config.new_agent()
}
