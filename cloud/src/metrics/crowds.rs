//! The fleet as a whole, out of what devices count in the clear.

use link::metrics::{Exposition, Kind};

use crate::telemetry::{Crowds, OTHERS};

pub(super) fn render(crowds: &Crowds, out: &mut Exposition) {
    let labelled: Vec<_> = crowds
        .shown
        .iter()
        .map(|crowd| {
            let of_all = crowd.model.is_empty();
            let model = if of_all { OTHERS } else { &crowd.model };
            let version = if of_all { OTHERS.to_owned() } else { crowd.version.to_string() };
            (model, version, crowd)
        })
        .collect();
    let help = "Requests that devices have answered or refused, in steps of several devices.";
    let mut family = out.family("outrigger_cloud_fleet_requests_total", help, Kind::Counter);
    for (model, version, crowd) in &labelled {
        let labels = [("model", *model), ("version", version), ("placement", &crowd.placement)];
        family.sample(&labels, crowd.requests);
    }
    let help = "Those of them that ended in no answer.";
    let mut family = out.family("outrigger_cloud_fleet_failures_total", help, Kind::Counter);
    for (model, version, crowd) in &labelled {
        let labels = [("model", *model), ("version", version), ("placement", &crowd.placement)];
        family.sample(&labels, crowd.failures);
    }
    let help =
        "Groups of the fleet's figures; too few devices have added to those that are hidden.";
    let mut family = out.family("outrigger_cloud_fleet_groups", help, Kind::Gauge);
    family.sample(&[("state", "shown")], crowds.shown.len());
    family.sample(&[("state", "hidden")], crowds.hidden);
}
