//! Pushed bundles: taken in when the signature is trusted, every file is here, the version is
//! newer, and, for a cloud variant, the model loads and answers its probes.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fleet::access::Permission;
use protocol::id::Variant;
use protocol::manifest::{Bound, InvalidSignature, Manifest, SignedManifest};
use protocol::residency::Standing;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::RawBody;
use crate::serving::{Newcomer, Residence, ServeError};
use crate::state::Cloud;
use crate::store::Store;
use crate::store::models::{BundleRecord, PushError, Pushed};

/// The largest version that JSON numbers carry everywhere (RFC 8259, section 6).
const VERSION_MAX: u64 = (1 << 53) - 1;

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let bundles = cloud.db.call(Store::bundles).await?;
    let residences = cloud.serving.residences();
    let residences: BTreeMap<_, _> = residences.iter().map(|own| (own.bundle, own)).collect();
    let resides = |record: &BundleRecord| residences.get(&record.bundle).copied();
    let models: Result<Vec<_>, _> =
        bundles.iter().map(|record| describe(record, resides(record))).collect();
    let policies = cloud.db.call(Store::policies).await?;
    let policies: serde_json::Map<_, _> =
        policies.into_iter().map(|(model, policy)| (model.into(), json!(policy))).collect();
    let models = models.map_err(ApiError::internal)?;
    Ok(Json(json!({ "models": models, "policies": policies })))
}

fn describe(
    record: &BundleRecord,
    residence: Option<&Residence>,
) -> Result<Value, protocol::manifest::InvalidManifest> {
    let manifest = Manifest::from_json(record.signed.manifest.as_bytes())?;
    let calibration = manifest.calibration.as_ref();
    let bound = calibration.and_then(|calibration| calibration.bound.as_ref());
    let on_demand = (record.variant == Variant::Cloud).then_some(Standing::OnDemand.as_str());
    Ok(json!({
        "model": record.model,
        "version": record.version,
        "variant": record.variant,
        "bundle": record.bundle,
        "size_bytes": record.size_bytes,
        "signer": record.signed.key_id,
        "threshold": calibration.map(|c| c.threshold),
        "deferral_rate": calibration.map(|c| c.deferral_rate),
        "risk": bound.map(|bound| bound.risk),
        "disagreement": bound.and_then(Bound::disagreement),
        "pushed_at_s": record.pushed_at_s,
        "memory": residence.map(|residence| residence.standing).or(on_demand),
        "memory_bytes": residence.and_then(|residence| residence.memory_bytes),
    }))
}

pub(super) async fn push(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    RawBody(body): RawBody,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::Push)?;
    let signed = SignedManifest::from_json(&body).map_err(|e| refuse_signature(&e))?;
    let trusted = cloud.db.call(Store::signer_keys).await?;
    let manifest = signed.verify(&trusted).map_err(|e| refuse_signature(&e))?;
    if manifest.version.get() > VERSION_MAX {
        return Err(ApiError::invalid(format!("a version is at most {VERSION_MAX}")));
    }
    let _permit = cloud.limits.pushes.acquire().await; // never closed
    let pushed = take_in(&cloud, &caller, &signed, &manifest).await?;
    let status = if pushed == Pushed::Added { StatusCode::CREATED } else { StatusCode::OK };
    let answer = json!({
        "model": manifest.model,
        "version": manifest.version,
        "variant": manifest.variant,
        "bundle": signed.bundle(),
        "added": pushed == Pushed::Added,
    });
    Ok((status, Json(answer)))
}

async fn take_in(
    cloud: &Arc<Cloud>,
    caller: &Caller,
    signed: &SignedManifest,
    manifest: &Manifest,
) -> Result<Pushed, ApiError> {
    let (bundle, by) = (signed.bundle(), caller.by());
    let (own_signed, own) = (signed.clone(), manifest.clone());
    let early = cloud.db.call(move |store| store.check_push(bundle, &own)).await;
    if early.map_err(refuse_push)? == Pushed::Unchanged {
        return Ok(Pushed::Unchanged);
    }
    check_blobs(cloud, manifest)?;
    let loaded = try_cloud_variant(cloud, signed, manifest).await?;
    let own = manifest.clone();
    let pushed = cloud.db.call(move |store| store.push_bundle(&by, &own_signed, &own)).await;
    let pushed = pushed.map_err(refuse_push)?;
    if manifest.variant == Variant::Cloud {
        cloud.serving.add(signed, loaded).map_err(ApiError::internal)?;
    }
    cloud.publish_desired().await?;
    Ok(pushed)
}

fn check_blobs(cloud: &Cloud, manifest: &Manifest) -> Result<(), ApiError> {
    let mut missing = Vec::new();
    for (name, file) in &manifest.files {
        match cloud.blobs.size_bytes(file.sha256).map_err(ApiError::internal)? {
            None => missing.push(name.as_str()),
            Some(size) if size != file.size_bytes => {
                let text = format!("{name} has {size} bytes here, {} there", file.size_bytes);
                return Err(ApiError::unprocessable("wrong_size", text));
            }
            Some(_) => {}
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("these files of the bundle were not pushed: {}", missing.join(", "));
    Err(ApiError::unprocessable("missing_blobs", text).hint("PUT /v1/blobs/SHA256 first"))
}

async fn try_cloud_variant(
    cloud: &Cloud,
    signed: &SignedManifest,
    manifest: &Manifest,
) -> Result<Option<Newcomer>, ApiError> {
    if manifest.variant != Variant::Cloud {
        return Ok(None);
    }
    let loaded = cloud.serving.load(signed.bundle(), manifest.clone()).await;
    loaded.map(Some).map_err(|error| match error {
        ServeError::NoRuntime => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_runtime", error.to_string())
                .hint("start outrigger-cloud with --runtime, or push the edge variant only")
        }
        ServeError::LayOut(error) => ApiError::internal(error),
        ServeError::NoRoom(why) => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_room", why.to_string()).hint(
                "push it when the other models are asked less, or raise [runtime] memory_budget_mb",
            )
        }
        error => {
            let text =
                format!("the cloud variant does not work: {}", protocol::problem::chain(&error));
            ApiError::unprocessable("unusable_model", text)
        }
    })
}

fn refuse_signature(error: &InvalidSignature) -> ApiError {
    let text = error.to_string();
    match error {
        InvalidSignature::UnknownKey(_) => ApiError::unprocessable("untrusted_signer", text)
            .hint("an admin can trust this signer: POST /v1/signers, or outrigger login as admin"),
        InvalidSignature::Forged => ApiError::unprocessable("forged_signature", text),
        InvalidSignature::Malformed | InvalidSignature::Manifest(_) => ApiError::invalid(text),
    }
}

fn refuse_push(error: PushError) -> ApiError {
    let text = error.to_string();
    match error {
        PushError::NotNewer { newest, .. } => ApiError::conflict("version_not_newer", text)
            .hint(format!("push version {} or later", newest.get() + 1)),
        PushError::Store(error) => error.into(),
    }
}
