//! Models that labs want timed on devices: an order goes in, a report comes out.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fleet::access::Permission;
use protocol::manifest::FileRef;
use protocol::measurement::{InvalidOrder, Order, SignedOrder};
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::RawBody;
use crate::state::{Cloud, now_s};
use crate::store::Store;
use crate::store::measurements::{MeasurementRecord, OrderError};

/// Takes an order in, as its device will judge it: what that would refuse is refused here at once.
pub(super) async fn order(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    RawBody(body): RawBody,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::Push)?;
    let signed = SignedOrder::from_json(&body).map_err(|e| refuse_signed(&e))?;
    let trusted = cloud.db.call(Store::signer_keys).await?;
    let device = signed.read().map_err(|e| refuse_signed(&e))?.device;
    let order = signed.verify(&trusted, &device, now_s()).map_err(|e| refuse_signed(&e))?;
    check_files(&cloud, &order)?;
    let (by, own) = (caller.by(), order.clone());
    let ordered = cloud.db.call(move |store| store.order_measurement(&by, &signed, &own)).await;
    cloud.blobs.remove(&ordered.map_err(refuse)?);
    cloud.publish_desired().await?;
    let answer = json!({ "id": order.id, "device": order.device });
    Ok((StatusCode::CREATED, Json(answer)))
}

fn check_files(cloud: &Cloud, order: &Order) -> Result<(), ApiError> {
    for FileRef { sha256, size_bytes } in order.files() {
        let found = cloud.blobs.size_bytes(*sha256).map_err(ApiError::internal)?;
        if found != Some(*size_bytes) {
            let text = format!("there is no file {sha256} of {size_bytes} bytes here");
            return Err(
                ApiError::unprocessable("missing_blobs", text).hint("PUT /v1/blobs/SHA256 first")
            );
        }
    }
    Ok(())
}

pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let own = id.clone();
    let record = cloud.db.call(move |store| store.measurement(&own)).await?;
    let record = record.ok_or_else(|| ApiError::not_found(format!("there is no order {id}")))?;
    Ok(Json(describe(&id, &record, now_s())))
}

fn describe(id: &str, record: &MeasurementRecord, now_s: i64) -> Value {
    let state = match &record.report {
        Some(_) => "done",
        None if record.expires_at_s <= now_s => "expired",
        None => "waiting",
    };
    json!({ "id": id, "device": record.device, "state": state, "report": record.report })
}

fn refuse_signed(error: &InvalidOrder) -> ApiError {
    let text = error.to_string();
    match error {
        InvalidOrder::UnknownKey(_) => ApiError::unprocessable("untrusted_signer", text)
            .hint("whoever delegates must be trusted here: outrigger login as admin"),
        InvalidOrder::Forged(_) => ApiError::unprocessable("forged_signature", text),
        InvalidOrder::Expired(_) => ApiError::unprocessable("expired", text)
            .hint("outrigger lab delegate makes a new delegation; are the clocks right?"),
        InvalidOrder::NotDelegated => ApiError::unprocessable("not_delegated", text)
            .hint("outrigger lab delegate --device ID for this device too"),
        _ => ApiError::invalid(text),
    }
}

fn refuse(error: OrderError) -> ApiError {
    let text = error.to_string();
    match error {
        OrderError::NoDevice(_) => {
            ApiError::not_found(text).hint("see what there is: outrigger device list")
        }
        OrderError::Known(_) => ApiError::conflict("known_order", text),
        OrderError::Waiting(_) => ApiError::conflict("too_many_orders", text)
            .hint("is the device connected? Orders that it never gets end by themselves"),
        OrderError::Store(error) => error.into(),
    }
}
