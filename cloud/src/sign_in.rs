//! Operators sign in at a provider: what `fleet::sign_in` decides, carried out.
//!
//! A sign-in begins without anything being kept of it, and ends with one exchange with the provider, on a thread
//! that may block. Few run at a time, each for a bounded time, so that nobody without a key takes more than that;
//! what the provider says of itself, and its keys, are kept for a while. Who failed too often waits before the
//! provider is asked again: their failures are counted apart from wrong keys, so that neither shuts out the other.

use fleet::access::{Person, Role};
use fleet::attempts::Attempts;
use fleet::sign_in::id_token::{Claims, Expected, TokenError, verify};
use fleet::sign_in::jwk::KeySet;
use fleet::sign_in::provider::{Issuer, Provider};
use fleet::sign_in::roles::{ClaimPath, NoRole, Rules};
use fleet::sign_in::ticket::{Challenge, Redirect, TicketError, Tickets, Verifier};
use fleet::sign_in::{EXCHANGE_MAX, EXCHANGES_MAX};
use protocol::problem::chain;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

use crate::backup::{SecretError, read_line};
use crate::settings::Oidc;
use crate::state::now_s;

mod kept;
mod provider;

use kept::Kept;
pub use provider::ProviderError;
use provider::{Client, NoTokens};

/// How long it is kept what the provider says of itself, and its keys.
const KEPT: Duration = Duration::from_secs(600);

/// Why nobody can sign in.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// A setting.
    #[error("[oidc] makes no sense: {0}")]
    Settings(String),
    /// The file of the secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The certificates that the provider is trusted by.
    #[error(transparent)]
    Roots(#[from] link::roots::RootsError),
}

/// Why somebody was not signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// As many are under way as may be.
    #[error("{EXCHANGES_MAX} sign-ins are under way")]
    Busy,
    /// The address failed too often.
    #[error("too many sign-ins from this address failed")]
    TooOften(Duration),
    /// Begun by nobody, or too long ago.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The browser was sent back by somebody else.
    #[error("it was not the provider that sent the browser back")]
    Issuer,
    /// The provider does not know the code.
    #[error("the provider does not take this code: it is used up, or too old")]
    Code,
    /// The provider says nothing that holds.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// They may do nothing here.
    #[error("{name} has signed in, but {why}")]
    Role {
        /// Who.
        person: Person,
        /// What they are called.
        name: String,
        /// Why not.
        why: NoRole,
    },
    /// The provider, or how it is set up.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The server is ending.
    #[error("the server is ending")]
    Ending,
}

impl SignInError {
    /// Whether it may be the doing of whoever asks.
    pub(crate) fn is_theirs(&self) -> bool {
        matches!(
            self,
            Self::Ticket(_) | Self::Issuer | Self::Code | Self::Token(_) | Self::Role { .. }
        )
    }
}

/// Somebody who signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) person: Person,
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// Where a browser ended.
pub(crate) struct Ended {
    pub(crate) code: String,
    pub(crate) state: String,
    pub(crate) verifier: Verifier,
    pub(crate) redirect: Redirect,
    pub(crate) issuer: Option<String>,
}

/// The provider, and how people get from there to a key.
pub struct SignIn {
    relying: Arc<Relying>,
    tickets: Tickets,
    exchanges: Arc<Semaphore>,
    attempts: Mutex<Attempts>,
    started: Instant,
    session_h: u32,
}

/// This cloud as the provider's client.
struct Relying {
    issuer: Issuer,
    client: Client,
    client_id: String,
    client_secret: Option<String>,
    scopes: String,
    rules: Rules,
    provider: Kept<Provider>,
    keys: Kept<KeySet>,
}

impl SignIn {
    /// Reads what the settings name; nothing where nobody signs in. The provider is asked later, since keys go on
    /// without it.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn open(settings: &Oidc) -> Result<Option<Self>, SetupError> {
        if settings.issuer.is_empty() {
            return Ok(None);
        }
        let wrong = |error: &dyn std::error::Error| SetupError::Settings(chain(error));
        let issuer: Issuer = settings.issuer.parse().map_err(|e| wrong(&e))?;
        let claim: ClaimPath = settings.claim.parse().map_err(|e| wrong(&e))?;
        let relying = Relying {
            client: Client::new(&issuer, &settings.ca_file)?,
            issuer,
            client_id: settings.client_id.clone(),
            client_secret: settings.secret_file().map(read_line).transpose()?,
            scopes: settings.scopes.clone(),
            rules: Rules { claim, rules: settings.roles.clone() },
            provider: Kept::default(),
            keys: Kept::default(),
        };
        Ok(Some(Self {
            relying: Arc::new(relying),
            tickets: Tickets::from_entropy(&link::entropy()),
            exchanges: Arc::new(Semaphore::new(EXCHANGES_MAX)),
            attempts: Mutex::default(),
            started: Instant::now(),
            session_h: settings.session_h,
        }))
    }

    /// How long somebody stays signed in, in seconds.
    pub(crate) fn session_s(&self) -> i64 {
        3600 * i64::from(self.session_h)
    }

    /// Counts a failure of an address.
    ///
    /// # Errors
    /// How long it should wait, when it failed too often.
    pub(crate) fn failed(&self, address: IpAddr) -> Result<(), Duration> {
        let now = self.started.elapsed();
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).failed(address, now)
    }

    fn check_address(&self, address: IpAddr) -> Result<(), SignInError> {
        let now = self.started.elapsed();
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.wait(address, now).map_or(Ok(()), |wait| Err(SignInError::TooOften(wait)))
    }

    /// Where a browser goes to sign in.
    ///
    /// # Errors
    /// [`SignInError`].
    pub(crate) async fn begin(
        &self,
        (redirect, challenge): (&Redirect, &Challenge),
        address: IpAddr,
    ) -> Result<String, SignInError> {
        self.check_address(address)?;
        let provider = match self.relying.provider.peek(KEPT) {
            Some(known) => known?,
            None => self.exchange(|relying, until| Ok(relying.provider(until)?)).await?,
        };
        let begun = self.tickets.begin((redirect, challenge), link::entropy(), now_s());
        let Relying { client_id, scopes, .. } = &*self.relying;
        Ok(provider.authorization_url((client_id, scopes), (redirect, challenge), &begun))
    }

    /// Who has signed in.
    ///
    /// # Errors
    /// [`SignInError`].
    pub(crate) async fn finish(
        &self,
        ended: Ended,
        address: IpAddr,
    ) -> Result<Signed, SignInError> {
        self.check_address(address)?;
        let ends = (&ended.redirect, &ended.verifier);
        let nonce = self.tickets.end(&ended.state, ends, now_s())?;
        self.exchange(move |relying, until| relying.signed(&ended, &nonce, until)).await
    }

    /// Asks the provider something, on a thread that may block; it counts until that is done, whoever still waits.
    async fn exchange<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Relying, Instant) -> Result<T, SignInError> + Send + 'static,
    ) -> Result<T, SignInError> {
        let permit = self.exchanges.clone().try_acquire_owned().map_err(|_| SignInError::Busy)?;
        let (relying, until) = (self.relying.clone(), Instant::now() + EXCHANGE_MAX);
        let asked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            ask(&relying, until)
        });
        let asked = asked.await;
        asked.unwrap_or(Err(SignInError::Ending))
    }
}

impl Relying {
    fn provider(&self, until: Instant) -> Result<Arc<Provider>, ProviderError> {
        let has_secret = self.client_secret.is_some();
        self.provider.get(KEPT, || self.client.discover(&self.issuer, has_secret, until))
    }

    fn signed(&self, ended: &Ended, nonce: &str, until: Instant) -> Result<Signed, SignInError> {
        let provider = self.provider(until)?;
        if !provider.may_have_answered(&self.issuer, ended.issuer.as_deref()) {
            return Err(SignInError::Issuer);
        }
        let code = (ended.code.as_str(), (&ended.redirect, &ended.verifier));
        let credentials = (self.client_id.as_str(), self.client_secret.as_deref().unwrap_or(""));
        let tokens = self.client.tokens(&provider, code, credentials, until);
        let tokens = tokens.map_err(|error| match error {
            NoTokens::Code => SignInError::Code,
            NoTokens::Provider(error) => error.into(),
        })?;
        let claims = self.verified(&provider, (&tokens.id_token, nonce), until)?;
        let more = self.more(&provider, &claims, tokens.access_token.as_deref(), until)?;
        let more = more.as_ref().unwrap_or(&claims);
        let person = Person::new(&self.issuer, &claims.subject);
        let name = claims.name().or(more.name());
        let name = name.map_or_else(|| claims.nameless(), str::to_owned);
        match self.rules.role(if self.rules.lack(&claims) { more } else { &claims }) {
            Ok(role) => Ok(Signed { person, name, role }),
            Err(why) => Err(SignInError::Role { person, name, why }),
        }
    }

    /// What the ID token says. It may be signed by a key that the provider has had for a short time: that is asked at
    /// once, and nobody but the provider, from whom the token came, can make a cloud ask.
    fn verified(
        &self,
        provider: &Provider,
        (token, nonce): (&str, &str),
        until: Instant,
    ) -> Result<Claims, SignInError> {
        let (issuer, client_id) = (self.issuer.as_str(), self.client_id.as_str());
        let expected = Expected { issuer, client_id, nonce, now_s: now_s() };
        let keys = |age| self.keys.get(age, || self.client.keys(provider, until));
        match verify(token, &*keys(KEPT)?, &expected) {
            Err(error) if error.may_be_newer_key() => {
                Ok(verify(token, &*keys(Duration::ZERO)?, &expected)?)
            }
            verified => Ok(verified?),
        }
    }

    /// What the provider says elsewhere of the same person, where the ID token does not name their groups, or them.
    /// Without a name it goes on.
    fn more(
        &self,
        provider: &Provider,
        claims: &Claims,
        access_token: Option<&str>,
        until: Instant,
    ) -> Result<Option<Claims>, SignInError> {
        let (Some(url), Some(token)) = (&provider.userinfo_endpoint, access_token) else {
            return Ok(None);
        };
        let is_needed = self.rules.lack(claims);
        if !is_needed && claims.name().is_some() {
            return Ok(None);
        }
        match self.client.userinfo(url, token, until) {
            Ok(all) => {
                let more = claims.of_userinfo(all).ok_or(TokenError::Claim("sub of userinfo"))?;
                Ok(Some(more))
            }
            Err(_) if !is_needed => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
