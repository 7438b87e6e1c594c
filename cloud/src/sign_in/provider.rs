//! The provider, over HTTP: what it says of itself, its keys, a token for a code, and more of a person. Blocks.

use fleet::sign_in::id_token::TOKEN_MAX_BYTES;
use fleet::sign_in::jwk::{KEYS_MAX_BYTES, KeySet};
use fleet::sign_in::provider::{DISCOVERY_MAX_BYTES, Issuer, Provider};
use fleet::sign_in::ticket::{Redirect, Verifier};
use protocol::problem::chain;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body, RequestBuilder};

/// What is read of a token's or person's answer.
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// What is told of an answer that cannot be used.
const WHY_MAX_CHARS: usize = 300;

/// A connection is used again within one exchange, not in the next one, when it may be closed: a code is good once.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// Why the provider was of no use: it, or how this cloud is set up with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Nothing came back.
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("the provider takes too long")]
    Late,
    /// It answers something else.
    #[error("the provider answers {status} where {what} is asked for")]
    Status {
        /// What was asked for.
        what: &'static str,
        /// The status.
        status: u16,
    },
    /// It answers what cannot be used.
    #[error("what the provider answers cannot be used: {0}")]
    Answer(String),
    /// It does not take this cloud for its client.
    #[error("the provider does not take this cloud's client_id, secret or redirect URI: {0}")]
    Client(String),
}

/// What a code became.
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) id_token: String,
    pub(super) access_token: Option<String>,
}

/// Why a code did not become anything.
pub(super) enum NoTokens {
    /// The code is none, or was used before.
    Code,
    /// The provider.
    Provider(ProviderError),
}

impl From<ProviderError> for NoTokens {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

/// This cloud's way to its provider.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
}

impl Client {
    /// Trusts the certificates of the file, or the system's.
    pub(super) fn new(issuer: &Issuer, ca_file: &Path) -> Result<Self, link::roots::RootsError> {
        let config = Agent::config_builder()
            .max_redirects(0)
            .max_idle_age(IDLE_MAX)
            .http_status_as_error(false)
            .user_agent(concat!("outrigger-cloud/", env!("CARGO_PKG_VERSION")));
        let config = if issuer.is_local() { config.proxy(None) } else { config };
        let config = match issuer.is_tls() {
            true => config.tls_config(link::roots::http_client(ca_file)?),
            false => config,
        };
        Ok(Self { agent: config.build().new_agent() })
    }

    /// What the provider says of itself.
    pub(super) fn discover(
        &self,
        issuer: &Issuer,
        has_secret: bool,
        until: Instant,
    ) -> Result<Provider, ProviderError> {
        let url = issuer.discovery_url();
        let body = self.get(&url, None, ("its description", DISCOVERY_MAX_BYTES), until)?;
        Provider::from_json(&body, issuer, has_secret).map_err(unusable)
    }

    /// The provider's keys.
    pub(super) fn keys(
        &self,
        provider: &Provider,
        until: Instant,
    ) -> Result<KeySet, ProviderError> {
        let body = self.get(&provider.jwks_uri, None, ("its keys", KEYS_MAX_BYTES), until)?;
        KeySet::from_json(&body).map_err(unusable)
    }

    /// What the provider says of whoever this token is for.
    pub(super) fn userinfo(
        &self,
        url: &str,
        access_token: &str,
        until: Instant,
    ) -> Result<Map<String, Value>, ProviderError> {
        let bearer = format!("Bearer {access_token}");
        let what = ("who somebody is", ANSWER_MAX_BYTES);
        let body = self.get(url, Some(&bearer), what, until)?;
        serde_json::from_slice(&body).map_err(|_| silent("who somebody is is no object of JSON"))
    }

    /// Exchanges a code. A code is good once, so this is tried once.
    pub(super) fn tokens(
        &self,
        provider: &Provider,
        (code, ends): (&str, (&Redirect, &Verifier)),
        credentials: (&str, &str),
        until: Instant,
    ) -> Result<Tokens, NoTokens> {
        let (form, header) = provider.token_request(code, ends, credentials);
        let request = self
            .agent
            .post(&provider.token_endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json");
        let request = match &header {
            Some(header) => request.header("authorization", header),
            None => request,
        };
        let answer = within(request, until)?.send(&form).map_err(unreachable)?;
        let status = answer.status();
        let body = read(answer, ANSWER_MAX_BYTES + TOKEN_MAX_BYTES)?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        let no_token = |_| silent("there is no id_token in it; does this client get one?");
        Ok(serde_json::from_slice(&body).map_err(no_token)?)
    }

    fn get(
        &self,
        url: &str,
        authorization: Option<&str>,
        (what, max_bytes): (&'static str, usize),
        until: Instant,
    ) -> Result<Vec<u8>, ProviderError> {
        let request = self.agent.get(url).header("accept", "application/json");
        let request = match authorization {
            Some(header) => request.header("authorization", header),
            None => request,
        };
        let answer = within(request, until)?.call().map_err(unreachable)?;
        let status = answer.status();
        if status != StatusCode::OK {
            return Err(ProviderError::Status { what, status: status.as_u16() });
        }
        read(answer, max_bytes)
    }
}

fn within<B>(
    request: RequestBuilder<B>,
    until: Instant,
) -> Result<RequestBuilder<B>, ProviderError> {
    let left = until.saturating_duration_since(Instant::now());
    match left < Duration::from_millis(10) {
        true => Err(ProviderError::Late),
        false => Ok(request.config().timeout_global(Some(left)).build()),
    }
}

fn read(mut answer: Response<Body>, max_bytes: usize) -> Result<Vec<u8>, ProviderError> {
    let limit = u64::try_from(max_bytes).unwrap_or(u64::MAX);
    answer.body_mut().with_config().limit(limit).read_to_vec().map_err(unreachable)
}

fn unreachable(error: ureq::Error) -> ProviderError {
    match error {
        ureq::Error::Timeout(_) => ProviderError::Late,
        error => ProviderError::Unreachable(chain(&error)),
    }
}

#[allow(clippy::needless_pass_by_value)] // as an argument of map_err
fn unusable(error: impl std::error::Error) -> ProviderError {
    ProviderError::Answer(chain(&error).chars().take(WHY_MAX_CHARS).collect())
}

/// What is wrong, without a word of an answer that may hold a secret.
fn silent(why: &str) -> ProviderError {
    ProviderError::Answer(why.to_owned())
}

/// Who is to blame (RFC 6749, 5.2).
fn refusal(status: StatusCode, body: &[u8]) -> NoTokens {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let error = serde_json::from_slice(body).map(|Refusal { error }| error).unwrap_or_default();
    let is_word = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    match error.as_str() {
        "invalid_grant" => NoTokens::Code,
        "invalid_client"
        | "unauthorized_client"
        | "unsupported_grant_type"
        | "invalid_request"
        | "invalid_scope" => ProviderError::Client(error).into(),
        word if status == StatusCode::UNAUTHORIZED => {
            let why = if is_word(word) { word } else { "" };
            ProviderError::Client(format!("401 {why}").trim_end().to_owned()).into()
        }
        _ => ProviderError::Status { what: "a token", status: status.as_u16() }.into(),
    }
}
