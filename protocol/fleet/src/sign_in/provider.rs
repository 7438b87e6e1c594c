//! What a provider says of itself (OpenID Connect Discovery 1.0), and what it is asked.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use serde::Deserialize;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::ticket::{Begun, Challenge, Redirect, Verifier};

/// The longest answer that is read.
pub const DISCOVERY_MAX_BYTES: usize = 256 << 10;
/// The longest URL of a provider.
const URL_MAX_BYTES: usize = 1024;

/// The URL that a provider is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer(String);

/// The URL of no provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no issuer: that is a URL of https without user, query and fragment (of http on loopback only)"
)]
pub struct InvalidIssuer(String);

impl FromStr for Issuer {
    type Err = InvalidIssuer;
    fn from_str(text: &str) -> Result<Self, InvalidIssuer> {
        let invalid = || InvalidIssuer(text.to_owned());
        let place = Place::of(text).ok_or_else(invalid)?;
        if place.has_query || !place.is_safe(true) {
            return Err(invalid());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Issuer {
    /// As it has to stand in tokens, letter by letter.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it says what else it is.
    pub fn discovery_url(&self) -> String {
        format!("{}/.well-known/openid-configuration", self.0.trim_end_matches('/'))
    }

    /// Whether it is on this machine, where no proxy leads.
    pub fn is_local(&self) -> bool {
        Place::of(&self.0).is_some_and(|place| place.is_loopback)
    }

    /// Whether it is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.0.starts_with("https://")
    }
}

/// What a URL says of where it leads.
struct Place {
    is_tls: bool,
    is_loopback: bool,
    has_query: bool,
}

impl Place {
    fn of(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let is_plain = text.len() <= URL_MAX_BYTES
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b'\\');
        let authority = uri.authority()?;
        if !is_plain || authority.as_str().contains('@') || uri.host()?.is_empty() {
            return None;
        }
        Some(Self { is_tls, is_loopback: is_loopback(uri.host()?), has_query: text.contains('?') })
    }

    fn is_safe(&self, may_be_loopback: bool) -> bool {
        self.is_tls || (may_be_loopback && self.is_loopback)
    }
}

/// Whether a browser may be sent there: over TLS, or to this machine.
pub fn may_be_opened(url: &str) -> bool {
    Place::of(url).is_some_and(|place| place.is_safe(true))
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

/// How this cloud shows at the token endpoint who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// It has no secret.
    None,
    /// In a header.
    Basic,
    /// In the form.
    Post,
}

/// A provider, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    /// Where a browser goes.
    pub authorization_endpoint: String,
    /// Where a code becomes a token.
    pub token_endpoint: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Where more is said of a person, if anywhere.
    pub userinfo_endpoint: Option<String>,
    /// Whether it names itself where a browser ends (RFC 9207).
    pub names_itself: bool,
    /// How this cloud shows who it is.
    pub client_auth: ClientAuth,
}

/// Why a provider cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// More than is read.
    #[error("what the provider says of itself is larger than {} KiB", DISCOVERY_MAX_BYTES >> 10)]
    TooLarge,
    /// No such document.
    #[error("what the provider says of itself cannot be read")]
    Json(#[from] serde_json::Error),
    /// It is another one.
    #[error("the provider calls itself {found:?}, not {expected:?}")]
    Issuer {
        /// What it calls itself.
        found: String,
        /// What the settings call it.
        expected: String,
    },
    /// Where nothing secret may be sent.
    #[error("the provider's {0} is no URL of https")]
    Endpoint(&'static str),
    /// It lacks something.
    #[error("the provider does not know {0}")]
    Lacks(&'static str),
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    response_types_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Provider {
    /// Reads what a provider says of itself.
    ///
    /// # Errors
    /// [`DiscoveryError`].
    pub fn from_json(
        bytes: &[u8],
        issuer: &Issuer,
        has_secret: bool,
    ) -> Result<Self, DiscoveryError> {
        if bytes.len() > DISCOVERY_MAX_BYTES {
            return Err(DiscoveryError::TooLarge);
        }
        let document: Document = serde_json::from_slice(bytes)?;
        if document.issuer != issuer.0 {
            let (found, expected) = (document.issuer, issuer.0.clone());
            return Err(DiscoveryError::Issuer { found, expected });
        }
        let knows = |list: &Option<Vec<String>>, wanted: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|known| known == wanted))
        };
        if !knows(&document.response_types_supported, "code") {
            return Err(DiscoveryError::Lacks("the authorization code flow"));
        }
        if !knows(&document.code_challenge_methods_supported, "S256") {
            return Err(DiscoveryError::Lacks("PKCE with S256"));
        }
        let client_auth = document.client_auth(has_secret)?;
        let end = |what, url: String| endpoint(what, url, issuer);
        let userinfo = document.userinfo_endpoint;
        Ok(Self {
            authorization_endpoint: end("authorization_endpoint", document.authorization_endpoint)?,
            token_endpoint: end("token_endpoint", document.token_endpoint)?,
            jwks_uri: end("jwks_uri", document.jwks_uri)?,
            userinfo_endpoint: userinfo.map(|url| end("userinfo_endpoint", url)).transpose()?,
            names_itself: document.authorization_response_iss_parameter_supported,
            client_auth,
        })
    }

    /// Where a browser goes to sign in.
    pub fn authorization_url(
        &self,
        (client_id, scopes): (&str, &str),
        (redirect, challenge): (&Redirect, &Challenge),
        begun: &Begun,
    ) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", redirect.as_str())
            .append_pair("scope", scopes)
            .append_pair("state", &begun.state)
            .append_pair("nonce", &begun.nonce)
            .append_pair("code_challenge", &challenge.to_string())
            .append_pair("code_challenge_method", "S256");
        let joint = if self.authorization_endpoint.contains('?') { '&' } else { '?' };
        format!("{}{joint}{}", self.authorization_endpoint, query.finish())
    }

    /// What a code is exchanged for a token with: a form, and the header that goes with it, if any.
    pub fn token_request(
        &self,
        code: &str,
        (redirect, verifier): (&Redirect, &Verifier),
        (client_id, secret): (&str, &str),
    ) -> (String, Option<String>) {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", redirect.as_str())
            .append_pair("code_verifier", verifier.reveal());
        let header = match self.client_auth {
            ClientAuth::Basic => Some(basic(client_id, secret)),
            ClientAuth::None => {
                form.append_pair("client_id", client_id);
                None
            }
            ClientAuth::Post => {
                form.append_pair("client_id", client_id).append_pair("client_secret", secret);
                None
            }
        };
        (form.finish(), header)
    }

    /// Whether an answer of a browser may be this provider's, by the issuer that it names (RFC 9207).
    pub fn may_have_answered(&self, issuer: &Issuer, named: Option<&str>) -> bool {
        named.map_or(!self.names_itself, |named| named == issuer.0)
    }
}

impl Document {
    /// By the standard a provider that says nothing takes the header.
    fn client_auth(&self, has_secret: bool) -> Result<ClientAuth, DiscoveryError> {
        let methods = self.token_endpoint_auth_methods_supported.as_deref();
        let knows = |wanted: &str| methods.is_some_and(|m| m.iter().any(|known| known == wanted));
        match has_secret {
            false => Ok(ClientAuth::None),
            true if methods.is_none() || knows("client_secret_basic") => Ok(ClientAuth::Basic),
            true if knows("client_secret_post") => Ok(ClientAuth::Post),
            true => Err(DiscoveryError::Lacks("client_secret_basic or client_secret_post")),
        }
    }
}

/// Both are encoded as in a form first (RFC 6749, 2.3.1).
fn basic(client_id: &str, secret: &str) -> String {
    let part = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", part(client_id), part(secret))))
}

fn endpoint(what: &'static str, url: String, issuer: &Issuer) -> Result<String, DiscoveryError> {
    let may_be_loopback = issuer.is_local() && !issuer.is_tls();
    match Place::of(&url).is_some_and(|place| place.is_safe(may_be_loopback)) {
        true => Ok(url),
        false => Err(DiscoveryError::Endpoint(what)),
    }
}
