//! What each device should run: the assignment that names the device, else the fleet's.

use protocol::id::{DeviceId, ModelName, Version};
use std::collections::BTreeMap;

/// One assignment: a version of a model for one device, or for every device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The device, or `None` for the whole fleet.
    pub device: Option<DeviceId>,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: Version,
}

/// The version of every model that this device should run.
pub fn desired_for(device: &DeviceId, assignments: &[Assignment]) -> BTreeMap<ModelName, Version> {
    let for_all = assignments.iter().filter(|a| a.device.is_none());
    let for_this = assignments.iter().filter(|a| a.device.as_ref() == Some(device));
    for_all.chain(for_this).map(|a| (a.model.clone(), a.version)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_beats_the_fleet() {
        let a = |device: Option<&str>, model: &str, version| Assignment {
            device: device.map(|d| d.parse().unwrap()),
            model: model.parse().unwrap(),
            version: Version::new(version).unwrap(),
        };
        let assignments =
            [a(Some("d1"), "m", 2), a(None, "m", 1), a(None, "n", 5), a(Some("d2"), "o", 9)];
        let check = |device: &str| {
            let desired = desired_for(&device.parse().unwrap(), &assignments);
            desired.iter().map(|(m, v)| format!("{m}@{v}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(check("d1"), "m@2 n@5");
        assert_eq!(check("d2"), "m@1 n@5 o@9");
        assert_eq!(check("d3"), "m@1 n@5");
    }
}
