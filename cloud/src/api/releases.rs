//! Releases of the agent: taken in when the signature is trusted and the program is here; and who should run which.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleet::access::Permission;
use protocol::id::DeviceId;
use protocol::release::{InvalidRelease, ReleaseVersion, SignedRelease};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::{Body, RawBody};
use crate::state::Cloud;
use crate::store::Store;
use crate::store::models::Pushed;
use crate::store::releases::{ReleaseError, ReleaseRecord};

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let releases = cloud.db.call(Store::releases).await?;
    let assignments = cloud.db.call(Store::release_assignments).await?;
    let assignments =
        assignments.iter().map(|a| json!({ "device": a.device, "version": a.version }));
    Ok(Json(json!({
        "releases": releases.iter().map(describe).collect::<Vec<_>>(),
        "assignments": assignments.collect::<Vec<_>>(),
    })))
}

fn describe(record: &ReleaseRecord) -> Value {
    json!({
        "version": record.version,
        "target": record.target,
        "size_bytes": record.size_bytes,
        "pushed_at_s": record.pushed_at_s,
        "signed": record.signed,
    })
}

pub(super) async fn push(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    RawBody(body): RawBody,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::Push)?;
    let signed = SignedRelease::from_json(&body).map_err(|e| refuse(&e))?;
    let trusted = cloud.db.call(Store::signer_keys).await?;
    let release = signed.verify(&trusted).map_err(|e| refuse(&e))?;
    let here = cloud.blobs.size_bytes(release.program.sha256).map_err(ApiError::internal)?;
    match here {
        Some(size) if size == release.program.size_bytes => {}
        Some(size) => {
            let text = format!("it has {size} bytes here, {} there", release.program.size_bytes);
            return Err(ApiError::unprocessable("wrong_size", text));
        }
        None => {
            let text = "the program was not pushed";
            return Err(
                ApiError::unprocessable("missing_blobs", text).hint("PUT /v1/blobs/SHA256 first")
            );
        }
    }
    let (by, own_signed, own) = (caller.by(), signed.clone(), release.clone());
    let pushed = cloud.db.call(move |store| store.push_release(&by, &own_signed, &own)).await;
    let pushed = pushed.map_err(refuse_store)?;
    cloud.publish_desired().await?;
    let status = if pushed == Pushed::Added { StatusCode::CREATED } else { StatusCode::OK };
    let added = pushed == Pushed::Added;
    let answer = json!({ "version": release.version, "target": release.target, "added": added });
    Ok((status, Json(answer)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// `null` leaves it to the device's owner.
    #[serde(deserialize_with = "Option::deserialize")]
    version: Option<ReleaseVersion>,
    /// `null` for every device; it must be said, so that the fleet is never meant by accident.
    #[serde(deserialize_with = "Option::deserialize")]
    device: Option<DeviceId>,
}

pub(super) async fn assign(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(Wanted { version, device }): Body<Wanted>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Assign)?;
    let (by, own) = (caller.by(), device.clone());
    let assigned = move |store: &Store| store.assign_release(&by, own.as_ref(), version);
    cloud.db.call(assigned).await.map_err(refuse_store)?;
    cloud.publish_desired().await?;
    Ok(Json(json!({ "version": version, "device": device })))
}

fn refuse(error: &InvalidRelease) -> ApiError {
    let text = error.to_string();
    match error {
        InvalidRelease::UnknownKey(_) => ApiError::unprocessable("untrusted_signer", text)
            .hint("an admin can trust this signer: POST /v1/signers, or outrigger login as admin"),
        InvalidRelease::Forged => ApiError::unprocessable("forged_signature", text),
        _ => ApiError::invalid(text),
    }
}

fn refuse_store(error: ReleaseError) -> ApiError {
    let text = error.to_string();
    match error {
        ReleaseError::OtherBuild { .. } => {
            ApiError::conflict("version_taken", text).hint("give this build a version of its own")
        }
        ReleaseError::TooMany(_) => ApiError::unprocessable("too_many", text),
        ReleaseError::Absent(_) => {
            ApiError::not_found(text).hint("see what there is: outrigger agent status")
        }
        ReleaseError::NoDevice(_) => {
            ApiError::not_found(text).hint("see what there is: outrigger device list")
        }
        ReleaseError::Store(error) => error.into(),
    }
}
