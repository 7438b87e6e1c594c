//! Operators sign in: begun and ended without a key, which they do not have yet.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleet::access::KeyRecord;
use fleet::sign_in::ticket::{Challenge, InvalidProof, InvalidRedirect, Redirect, Verifier};
use protocol::id::TenantName;
use protocol::pattern::ModelPatterns;
use protocol::token::Token;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

use super::ApiError;
use super::auth::{Caller, Remote};
use super::error::Body;
use super::keys::describe_record;
use crate::sign_in::{Ended, ProviderError, SignIn, SignInError, Signed};
use crate::state::{Cloud, now_s};
use crate::store::audit::By;
use crate::store::keys::Revoked;
use crate::store::sign_ins::SignedIn;

/// The longest code or state that is handed on to the provider.
const CODE_MAX_BYTES: usize = 4096;
/// After which time it is tried again where too many sign in at once.
const BUSY_MS: u32 = 2000;
/// As the audit log names what makes keys of sign-ins.
const ACTOR: &str = "sign-in";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    redirect_uri: String,
    code_challenge: String,
}

pub(super) async fn begin(
    State(cloud): State<Arc<Cloud>>,
    Remote(remote): Remote,
    Body(wanted): Body<Begin>,
) -> Result<Json<Value>, ApiError> {
    let redirect: Redirect = wanted.redirect_uri.parse().map_err(invalid_redirect)?;
    let challenge: Challenge = wanted.code_challenge.parse().map_err(invalid_proof)?;
    let begun = sign_in(&cloud)?.begin((&redirect, &challenge), remote).await;
    match begun {
        Ok(url) => Ok(Json(json!({ "authorization_url": url }))),
        Err(error) => Err(refuse(&cloud, remote, error).await),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Finish {
    code: String,
    state: String,
    code_verifier: String,
    redirect_uri: String,
    /// The issuer, where the provider has named itself.
    iss: Option<String>,
}

pub(super) async fn finish(
    State(cloud): State<Arc<Cloud>>,
    Remote(remote): Remote,
    Body(wanted): Body<Finish>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let redirect: Redirect = wanted.redirect_uri.parse().map_err(invalid_redirect)?;
    let verifier: Verifier = wanted.code_verifier.parse().map_err(invalid_proof)?;
    if !(1..=CODE_MAX_BYTES).contains(&wanted.code.len()) {
        let text = format!("a code has 1 to {CODE_MAX_BYTES} bytes");
        return Err(ApiError::invalid(text));
    }
    let Finish { code, state, iss, .. } = wanted;
    let ended = Ended { code, state, verifier, redirect, issuer: iss };
    // A task of its own: who hangs up has failed all the same.
    let whole = tokio::spawn(async move {
        let sign_in = sign_in(&cloud)?;
        match sign_in.finish(ended, remote).await {
            Ok(signed) => keep(&cloud, signed, sign_in.session_s()).await,
            Err(error) => Err(refuse(&cloud, remote, error).await),
        }
    });
    whole.await.unwrap_or_else(|panic| Err(ApiError::internal(panic)))
}

/// Gives somebody who signed in their key.
async fn keep(
    cloud: &Cloud,
    Signed { person, name, role }: Signed,
    session_s: i64,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let by = By { actor: ACTOR.to_owned(), now_s: now_s() };
    let token = Token::from_entropy(link::entropy(), link::entropy(), cloud.ca.hash());
    let record = KeyRecord {
        id: token.id.clone(),
        digest: token.secret.digest(),
        role,
        name,
        tenant: TenantName::default(),
        models: ModelPatterns::all(),
        expires_at_s: Some(by.now_s + session_s),
        person: Some(person.clone()),
    };
    let (own, who) = (record.clone(), person.clone());
    match cloud.db.call(move |store| store.add_sign_in(&by, &own, &who)).await? {
        SignedIn::TooMany => {
            let text = "there are too many sign-ins, or keys, that can be used";
            return Err(ApiError::conflict("too_many_keys", text).hint("try again later"));
        }
        SignedIn::Now(ended) => ended.iter().for_each(|id| cloud.access.remove(id)),
    }
    cloud.events.signed_in(&person, &record.id, &role);
    let mut answer = describe_record(&record);
    answer["key"] = token.reveal().into();
    cloud.access.add(record);
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn end(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    if caller.0.record.person.is_none() {
        let text = "this key was made by an admin, and nobody signed in for it";
        let hint = "an admin revokes it: outrigger key revoke ID";
        return Err(ApiError::conflict("not_a_sign_in", text).hint(hint));
    }
    let (by, id) = (caller.by(), caller.0.record.id.clone());
    let own = id.clone();
    match cloud.db.call(move |store| store.revoke_api_key(&by, &own)).await? {
        Revoked::Now | Revoked::Absent | Revoked::LastAdmin => cloud.access.remove(&id),
    }
    Ok(Json(json!({ "id": id, "state": "revoked" })))
}

fn sign_in(cloud: &Cloud) -> Result<&SignIn, ApiError> {
    cloud.sign_in.get().ok_or_else(|| {
        ApiError::not_found("nobody signs in to this cloud: it has no provider")
            .hint("log in with a key, or name a provider in [oidc] of cloud.toml")
    })
}

#[allow(clippy::needless_pass_by_value)] // as an argument of map_err
fn invalid_redirect(error: InvalidRedirect) -> ApiError {
    ApiError::invalid(error.to_string())
}

#[allow(clippy::needless_pass_by_value)] // as an argument of map_err
fn invalid_proof(error: InvalidProof) -> ApiError {
    ApiError::invalid(error.to_string())
}

/// Counts and logs a sign-in that came to nothing; what the caller hears of it.
async fn refuse(cloud: &Cloud, remote: IpAddr, error: SignInError) -> ApiError {
    if error.is_theirs() {
        let failed = cloud.sign_in.get().map_or(Ok(()), |sign_in| sign_in.failed(remote));
        match (&failed, &error) {
            (Err(_), _) => cloud.events.api_throttled(),
            (Ok(()), SignInError::Role { person, why, .. }) => {
                cloud.events.sign_in_refused(remote, why, person.subject());
                let by = By { actor: ACTOR.to_owned(), now_s: now_s() };
                let (subject, detail) = (person.to_string(), why.to_string());
                let note = move |store: &crate::store::Store| {
                    store.note_detail(&by, "sign-in.refuse", &subject, &detail)
                };
                if let Err(fault) = cloud.db.call(note).await {
                    cloud.events.internal_error(&fault);
                }
            }
            (Ok(()), error) => cloud.events.sign_in_refused(remote, error, ""),
        }
    }
    describe(cloud, error)
}

fn describe(cloud: &Cloud, error: SignInError) -> ApiError {
    let text = error.to_string();
    let again = "begin again: outrigger login --oidc";
    match error {
        SignInError::Busy | SignInError::Ending => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text)
                .retry_after_ms(BUSY_MS)
                .hint(again)
        }
        SignInError::TooOften(wait) => {
            cloud.events.api_throttled();
            let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", text)
                .retry_after_ms(wait_ms)
        }
        SignInError::Ticket(_)
        | SignInError::Issuer
        | SignInError::Code
        | SignInError::Token(_) => ApiError::unauthorised(text).hint(again),
        SignInError::Role { .. } => ApiError::new(StatusCode::FORBIDDEN, "no_role", text)
            .hint("an admin says in [oidc] roles of cloud.toml who has which role"),
        SignInError::Provider(error) => {
            cloud.events.sign_in_failed(&error);
            let hint = match error {
                ProviderError::Client(_) => {
                    "see [oidc] in cloud.toml, and this client at the provider"
                }
                _ => "keys go on working: outrigger login --key-file FILE",
            };
            ApiError::new(StatusCode::BAD_GATEWAY, "provider_failed", text).hint(hint)
        }
    }
}
