//! Devices: what they should run, what they say they run, and who is shut out.

use axum::Json;
use axum::extract::{Path, State};
use fleet::access::Permission;
use fleet::desired::{Assignment, desired_for};
use protocol::carrier::Carrier;
use protocol::id::{DeviceId, InvalidName};
use protocol::wire::{ReportedAgent, ReportedModel};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::state::{Cloud, now_s};
use crate::store::Store;
use crate::store::devices::DeviceRecord;
use crate::store::releases::ReleaseAssignment;

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let devices = cloud.db.call(Store::devices).await?;
    let assignments = cloud.db.call(Store::assignments).await?;
    let releases = cloud.db.call(Store::release_assignments).await?;
    let describe = |device: &DeviceRecord| {
        let mut described = describe(&cloud, device, &assignments);
        described["agent"] = agent(device, &releases);
        described
    };
    let devices: Vec<_> = devices.iter().map(describe).collect();
    Ok(Json(json!({ "devices": devices })))
}

fn describe(cloud: &Cloud, device: &DeviceRecord, assignments: &[Assignment]) -> Value {
    let online = cloud.online.contains(&device.id);
    let desired: Vec<_> = desired_for(&device.id, assignments)
        .into_iter()
        .map(|(model, version)| json!({ "model": model, "version": version }))
        .collect();
    let name = if device.label.is_empty() { &device.hostname } else { &device.label };
    json!({
        "id": device.id,
        "name": name,
        "hostname": device.hostname,
        "tenant": device.tenant,
        "online": online,
        "carrier": cloud.online.carrier(&device.id).map(Carrier::as_str),
        "carrier_reason": if online { device.reported.carrier_reason.as_str() } else { "" },
        "last_seen_s": if online { Some(now_s()) } else { device.last_seen_s },
        "enrolled_at_s": device.enrolled_at_s,
        "agent_version": device.agent_version,
        "os": device.os,
        "arch": device.arch,
        "denied": device.denied,
        "ca": which_ca(cloud, &device.ca_hash),
        "desired": desired,
        "reported": device.reported.models.iter().map(reported).collect::<Vec<_>>(),
    })
}

/// The device's agent: which version it should run, and what it says of that.
fn agent(device: &DeviceRecord, assigned: &[ReleaseAssignment]) -> Value {
    let of = |whom: Option<&DeviceId>| assigned.iter().find(|own| own.device.as_ref() == whom);
    let wanted = of(Some(&device.id)).or_else(|| of(None)).map(|own| own.version);
    let ReportedAgent { target, installed, wanted: next, phase, reason, .. } =
        device.reported.agent.clone().unwrap_or_default();
    json!({
        "desired": wanted, "target": target, "installed": installed, "next": next, "phase": phase,
        "reason": reason,
    })
}

/// Which fleet CA has signed the certificate that a device showed last.
fn which_ca(cloud: &Cloud, ca_hash: &str) -> &'static str {
    match ca_hash {
        "" => "unknown",
        hash if hash == cloud.ca.hash().to_string() => "current",
        _ => "previous",
    }
}

fn reported(model: &ReportedModel) -> Value {
    let version = |number: u64| (number > 0).then_some(number);
    json!({
        "model": model.name,
        "active_version": version(model.active_version),
        "active_bundle": model.active_bundle,
        "target_version": version(model.target_version),
        "phase": model.phase,
        "reason": model.reason,
        "checked": model.checked,
        "disagreed": model.disagreed,
        "alarms": model.alarms,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Denial {
    denied: bool,
}

pub(super) async fn deny(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(device): Path<String>,
    Body(Denial { denied }): Body<Denial>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Enrol)?;
    let device: DeviceId =
        device.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))?;
    let (by, id) = (caller.by(), device.clone());
    if !cloud.db.call(move |store| store.deny_device(&by, &id, denied)).await? {
        return Err(ApiError::not_found(format!("there is no device {device}")));
    }
    if denied {
        cloud.sites.deny(&device);
        cloud.online.expel(&device);
    }
    Ok(Json(json!({ "id": device, "denied": denied })))
}
