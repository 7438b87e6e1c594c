//! Devices: what they should run, what they say they run, and who is shut out.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, State};
use fleet::access::Permission;
use fleet::desired::{Assignment, desired_for};
use fleet::rollout::query::{Labels, Query};
use protocol::carrier::Carrier;
use protocol::id::{DeviceId, InvalidName, ModelName, Version};
use protocol::wire::{Inventory, ReportedAgent, ReportedModel};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use super::groups;
use crate::rollouts::{self, candidates};
use crate::state::{Cloud, DENIED, now_s};
use crate::store::devices::DeviceRecord;
use crate::store::releases::ReleaseAssignment;
use crate::store::rollouts::Told;
use crate::store::{Store, StoreError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// Only those that this query asks for.
    query: Option<Query>,
}

pub(super) async fn list(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    asked: Result<axum::extract::Query<Asked>, QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let asked = asked.map_err(|rejection| ApiError::invalid(rejection.body_text()))?.0;
    let fleet = Fleet::read(&cloud).await?;
    let is_asked = |device: &&DeviceRecord| {
        asked.query.as_ref().is_none_or(|query| query.matches(&fleet.labels_of(device)))
    };
    let devices = fleet.devices.iter().filter(is_asked);
    let devices: Vec<_> = devices.map(|device| fleet.describe(&cloud, device)).collect();
    Ok(Json(json!({ "devices": devices })))
}

pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(device): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::View)?;
    let id = parse(&device)?;
    let fleet = Fleet::read(&cloud).await?;
    let device = fleet.devices.iter().find(|own| own.id == id).ok_or_else(|| absent(&id))?;
    Ok(Json(fleet.describe(&cloud, device)))
}

fn parse(device: &str) -> Result<DeviceId, ApiError> {
    device.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))
}

fn absent(device: &DeviceId) -> ApiError {
    ApiError::not_found(format!("there is no device {device}"))
        .hint("see what there is: outrigger device list")
}

/// All that is known of all devices.
struct Fleet {
    devices: Vec<DeviceRecord>,
    labels: BTreeMap<DeviceId, Labels>,
    assignments: Vec<Assignment>,
    releases: Vec<ReleaseAssignment>,
    told: Vec<Told>,
}

impl Fleet {
    async fn read(cloud: &Cloud) -> Result<Self, StoreError> {
        let read = |store: &Store| {
            Ok(Self {
                devices: store.devices()?,
                labels: store.labels()?,
                assignments: store.assignments()?,
                releases: store.release_assignments()?,
                told: store.told()?,
            })
        };
        cloud.db.call(read).await
    }

    fn given(&self, device: &DeviceRecord) -> Labels {
        self.labels.get(&device.id).cloned().unwrap_or_default()
    }

    fn labels_of(&self, device: &DeviceRecord) -> Labels {
        candidates::labels_of(device, &self.given(device))
    }

    fn describe(&self, cloud: &Cloud, device: &DeviceRecord) -> Value {
        let online = cloud.online.contains(&device.id);
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
            "labels": self.given(device),
            "known_as": self.labels_of(device),
            "inventory": device.reported.inventory.as_ref().map(inventory),
            "desired": self.desired(device),
            "reported": device.reported.models.iter().map(reported).collect::<Vec<_>>(),
            "agent": agent(device, &self.releases),
        })
    }

    /// What it should run, by which roll-out where one has told it, and why it does not.
    fn desired(&self, device: &DeviceRecord) -> Vec<Value> {
        let own: Vec<&Told> = self.told.iter().filter(|told| told.device == device.id).collect();
        let mut desired = desired_for(&device.id, &self.assignments);
        desired.extend(own.iter().map(|told| (told.model.clone(), told.version)));
        let describe = |(model, version): (ModelName, Version)| {
            let rollout = own.iter().find(|told| told.model == model).map(|told| &told.rollout);
            let difference = difference(device, &model, version);
            json!({
                "model": model, "version": version, "rollout": rollout, "difference": difference,
            })
        };
        desired.into_iter().map(describe).collect()
    }
}

/// Why a device does not answer with what it should; empty where it does.
fn difference(device: &DeviceRecord, model: &ModelName, version: Version) -> String {
    let own = device.reported.models.iter().find(|own| own.name == model.as_str());
    match own {
        Some(own) if own.active_version == version.get() => String::new(),
        Some(own) if own.target_version == version.get() && own.reason.is_empty() => {
            own.phase.clone()
        }
        Some(own) if own.target_version == version.get() => {
            format!("{}: {}", own.phase, own.reason)
        }
        _ if device.last_seen_s.is_none() => "it has never connected".to_owned(),
        _ => "it has not heard of it yet".to_owned(),
    }
}

fn inventory(own: &Inventory) -> Value {
    json!({
        "processor": own.processor, "cores": own.cores, "memory_bytes": own.memory_bytes,
        "cpu_features": own.cpu_features, "gpu": own.gpu, "providers": own.providers,
        "runtime": own.runtime,
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
    let device = parse(&device)?;
    let (by, id) = (caller.by(), device.clone());
    if !cloud.db.call(move |store| store.deny_device(&by, &id, denied)).await? {
        return Err(absent(&device));
    }
    if denied {
        cloud.sites.deny(&device);
        cloud.online.expel(&device, DENIED);
    }
    Ok(Json(json!({ "id": device, "denied": denied })))
}

/// Forgets a device for good. First it counts as failed in every roll-out: that it was one of them must not be forgotten.
pub(super) async fn remove(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(device): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Enrol)?;
    let (device, by) = (parse(&device)?, caller.by());
    let id = device.clone();
    if cloud.db.call(move |store| store.known_device(&id)).await?.is_none() {
        return Err(absent(&device));
    }
    rollouts::remove_device(&cloud, &device, &by).await?;
    let id = device.clone();
    if !cloud.db.call(move |store| store.remove_device(&by, &id)).await? {
        return Err(absent(&device));
    }
    cloud.questions.forget(&device);
    cloud.sites.deny(&device);
    cloud.online.expel(&device, "this device was removed from the fleet by the operator");
    Ok(Json(json!({ "id": device, "removed": true })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relabelling {
    #[serde(default)]
    set: Labels,
    #[serde(default)]
    remove: Vec<String>,
}

pub(super) async fn label(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(device): Path<String>,
    Body(Relabelling { set, remove }): Body<Relabelling>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Enrol)?;
    let (device, by) = (parse(&device)?, caller.by());
    let id = device.clone();
    let labelled = move |store: &Store| store.label_device(&by, &id, &set, &remove);
    let labels = cloud.db.call(labelled).await.map_err(groups::refuse)?;
    Ok(Json(json!({ "id": device, "labels": labels })))
}
