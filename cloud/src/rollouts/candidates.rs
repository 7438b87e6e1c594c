//! The fleet as queries see it.

use fleet::labels::{self, Facts};
use fleet::rollout::cohort::Candidate;
use fleet::rollout::query::Labels;
use protocol::id::{ModelName, Version};

use crate::state::Cloud;
use crate::store::devices::DeviceRecord;
use crate::store::{Store, StoreError};

/// Every device that is not shut out, with the version of this model that answers there.
pub(crate) async fn all(
    cloud: &Cloud,
    model: Option<&ModelName>,
) -> Result<Vec<Candidate>, StoreError> {
    let read = |store: &Store| Ok::<_, StoreError>((store.devices()?, store.labels()?));
    let (devices, mut given) = cloud.db.call(read).await?;
    let candidate = |device: DeviceRecord| Candidate {
        labels: labels_of(&device, &given.remove(&device.id).unwrap_or_default()),
        active: model.and_then(|model| active(&device, model)),
        is_online: cloud.online.contains(&device.id),
        agent_version: device.agent_version,
        device: device.id,
    };
    Ok(devices.into_iter().filter(|device| !device.denied).map(candidate).collect())
}

/// Everything that a device can be asked for by.
pub(crate) fn labels_of(device: &DeviceRecord, given: &Labels) -> Labels {
    let name = if device.label.is_empty() { &device.hostname } else { &device.label };
    let facts = Facts {
        device: device.id.as_str(),
        name,
        tenant: device.tenant.as_str(),
        arch: &device.arch,
        os: &device.os,
        agent: &device.agent_version,
        inventory: device.reported.inventory.as_ref(),
    };
    labels::of(&facts, given)
}

fn active(device: &DeviceRecord, model: &ModelName) -> Option<Version> {
    let own = device.reported.models.iter().find(|own| own.name == model.as_str())?;
    Version::new(own.active_version)
}
