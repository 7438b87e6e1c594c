//! The repository of models: files that operators signed come in, and whoever looks after it sees them.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fleet::access::Permission;
use fleet::repository::{File, ONLINE};
use protocol::id::{ContentHash, InvalidName};
use protocol::limits::TUF_ROLE_KEYS_MAX;
use protocol::manifest::SignedManifest;
use protocol::tuf::introduction::Introduction;
use protocol::tuf::metadata::ROOT;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::Cloud;
use crate::store::Store;
use crate::store::repository::TakeError;

/// Root and all targets in one body.
pub(super) const BODY_MAX_BYTES: usize = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Offer {
    /// The text of each role's file.
    files: BTreeMap<String, String>,
    /// An operator's word for the root, where this begins a repository.
    #[serde(default)]
    introduction: Option<Introduction>,
}

pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let newest = cloud.db.call(Store::repository).await?;
    let text = |bytes: Vec<u8>| Value::from(String::from_utf8_lossy(&bytes).into_owned());
    let files: Map<String, Value> = newest.into_iter().map(|(role, f)| (role, text(f))).collect();
    let keys: Map<String, Value> = ONLINE
        .into_iter()
        .filter_map(|role| Some((role.to_owned(), json!(cloud.repository.newest_key(role)?))))
        .collect();
    Ok(Json(json!({ "online_keys": keys, "files": files })))
}

pub(super) async fn take(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(Offer { files, introduction }): Body<Offer>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Push)?;
    if files.contains_key(ROOT) {
        caller.need(Permission::TrustSigner)?;
    }
    check_introduction(&cloud, files.get(ROOT), introduction.as_ref()).await?;
    let offered = files.into_iter().map(|(role, text)| (role, text.into_bytes())).collect();
    let (by, repository) = (caller.by(), cloud.repository.clone());
    let taken =
        cloud.db.call(move |store| repository.take(store, &by, &offered, introduction.as_ref()));
    let taken = taken.await.map_err(refuse)?;
    cloud.publish_desired().await?;
    let versions: Map<String, Value> =
        taken.into_iter().map(|File { role, version, .. }| (role, version.into())).collect();
    Ok(Json(json!({ "versions": versions })))
}

/// The first root comes with an operator's word, which devices will want to see; later ones do not.
async fn check_introduction(
    cloud: &Cloud,
    root: Option<&String>,
    introduction: Option<&Introduction>,
) -> Result<(), ApiError> {
    let begins = cloud.db.call(Store::introduction).await?.is_none();
    let (introduction, root) = match (begins, introduction, root) {
        (true, Some(introduction), Some(root)) => (introduction, root),
        (true, _, _) => {
            let text = "a repository begins with root, targets and an operator's introduction";
            return Err(ApiError::invalid(text).hint("outrigger repo init"));
        }
        (false, None, _) => return Ok(()),
        (false, Some(_), _) => {
            let text = "this fleet has a repository already";
            return Err(ApiError::conflict("repository_exists", text).hint("outrigger repo show"));
        }
    };
    let trusted = cloud.db.call(Store::signer_keys).await?;
    let named = introduction.verify(&trusted).map_err(|error| {
        ApiError::unprocessable("untrusted_signer", error.to_string())
            .hint("an admin can trust this signer: outrigger login as admin")
    })?;
    if named != ContentHash::of(root.as_bytes()) {
        return Err(ApiError::invalid("the introduction is for another root"));
    }
    Ok(())
}

/// One more key of a role that is online, for root (or targets, for the director) to name.
pub(super) async fn make_key(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(role): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::TrustSigner)?;
    let known = ONLINE.into_iter().find(|known| *known == role);
    let role = known.ok_or_else(|| ApiError::not_found(format!("{role} has no key online")))?;
    let key = cloud.repository.make_key(role).map_err(ApiError::internal)?;
    let key = key.ok_or_else(|| {
        ApiError::conflict("too_many_keys", format!("there are {TUF_ROLE_KEYS_MAX} keys of {role}"))
    })?;
    let by = caller.by();
    cloud.db.call(move |store| store.note(&by, "repository.key", role)).await?;
    Ok((StatusCode::CREATED, Json(json!({ "role": role, "key": key }))))
}

/// The signed manifest of a bundle, for whoever names it in targets.
pub(super) async fn bundle(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(bundle): Path<String>,
) -> Result<Json<SignedManifest>, ApiError> {
    caller.need(Permission::View)?;
    let bundle: ContentHash =
        bundle.parse().map_err(|error: InvalidName| ApiError::invalid(error.to_string()))?;
    let signed = cloud.db.call(move |store| store.signed_manifest(bundle)).await?;
    signed.map(Json).ok_or_else(|| ApiError::not_found("there is no such bundle"))
}

fn refuse(error: TakeError) -> ApiError {
    match error {
        TakeError::Refused(refused) => {
            ApiError::unprocessable("refused_metadata", refused.to_string())
                .hint("outrigger repo show says what is there")
        }
        TakeError::Store(error) => error.into(),
    }
}
