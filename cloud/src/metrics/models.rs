//! What is in memory, what it takes, and what became of the workers that have it.

use link::metrics::{Exposition, Kind};

use crate::serving::{Moves, Residence};
use crate::state::Cloud;
#[cfg(target_os = "linux")]
use crate::workers::{WorkerStatus, Workers};

pub(super) fn render(cloud: &Cloud, out: &mut Exposition) {
    let residences = cloud.serving.residences();
    let labelled = |residence: &Residence| {
        (residence.model.to_string(), residence.version.to_string(), residence.clone())
    };
    let all: Vec<_> = residences.iter().map(labelled).collect();
    let help = "Whether each version of each model is in memory.";
    let mut family = out.family("outrigger_cloud_model_loaded", help, Kind::Gauge);
    for (model, version, residence) in &all {
        family.sample(&[("model", model), ("version", version)], u8::from(residence.is_loaded));
    }
    let help = "What each version in memory was found to take.";
    let mut family = out.family("outrigger_cloud_model_memory_bytes", help, Kind::Gauge);
    for (model, version, residence) in &all {
        if let Some(bytes) = residence.memory_bytes {
            family.sample(&[("model", model), ("version", version)], bytes);
        }
    }
    let help = "What all models in memory may take together.";
    let mut family = out.family("outrigger_cloud_memory_budget_bytes", help, Kind::Gauge);
    if let Some(bytes) = cloud.serving.memory_budget_bytes() {
        family.sample(&[], bytes);
    }
    let Moves { loads, evictions } = cloud.serving.moves();
    let help = "Models that were loaded into memory.";
    out.family("outrigger_cloud_model_loads_total", help, Kind::Counter).sample(&[], loads);
    let help = "Models that were unloaded because others needed their memory.";
    out.family("outrigger_cloud_model_evictions_total", help, Kind::Counter).sample(&[], evictions);
    #[cfg(target_os = "linux")]
    if let Some(workers) = cloud.engine.workers() {
        of_workers(workers, &residences, out);
    }
}

/// Each worker by the model that it has; a model that is being tried is not known yet, and has no name.
#[cfg(target_os = "linux")]
fn of_workers(workers: &Workers, residences: &[Residence], out: &mut Exposition) {
    let counters = workers.counters();
    let help = "Worker processes that were started.";
    out.family("outrigger_cloud_worker_starts_total", help, Kind::Counter)
        .sample(&[], counters.started);
    let help = "Worker processes that were started in the place of one that had ended.";
    out.family("outrigger_cloud_worker_restarts_total", help, Kind::Counter)
        .sample(&[], counters.restarted);
    let help = "Worker processes that ended before their model was unloaded.";
    let mut family = out.family("outrigger_cloud_worker_ends_total", help, Kind::Counter);
    let how = [("killed", counters.killed), ("crashed", counters.crashed), ("hung", counters.hung)];
    for (how, count) in how {
        family.sample(&[("how", how)], count);
    }
    let help =
        "Times that a model was left alone for a while because its workers failed too often.";
    out.family("outrigger_cloud_worker_holds_total", help, Kind::Counter)
        .sample(&[], counters.held_back);
    let help = "Runs that were lost with their worker, and asked of the next one.";
    out.family("outrigger_cloud_worker_lost_runs_total", help, Kind::Counter)
        .sample(&[], counters.lost_runs);

    let statuses = workers.statuses();
    let statuses = by_model(&statuses, residences);
    let mut family = |name: &str, help: &str, of: &dyn Fn(&WorkerStatus) -> Option<u64>| {
        let mut family = out.family(name, help, Kind::Gauge);
        for NamedWorker { model, version, device, status } in &statuses {
            if let Some(value) = of(status) {
                let labels = [("model", &**model), ("version", version), ("device", device)];
                family.sample(&labels, value);
            }
        }
    };
    let help = "Whether each model's worker answers, on each device that it runs on.";
    family("outrigger_cloud_worker_up", help, &|status| Some(u64::from(status.process.is_some())));
    let help = "Sessions of each model's worker, on each device.";
    family("outrigger_cloud_worker_sessions", help, &|status| Some(status.sessions as u64));
    let help = "Memory of each model's worker now, on each device, shared pages by its share.";
    family("outrigger_cloud_worker_memory_bytes", help, &|status| status.memory_bytes);
}

/// A worker, and whose it is. A model has one on the CPU, or one on each GPU.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct NamedWorker<'s> {
    model: String,
    version: String,
    device: String,
    status: &'s WorkerStatus,
}

/// A worker's label is the beginning of its bundle's hash. While a model is loaded anew its last worker may
/// be about to end: of two on one device the one that runs is shown.
#[cfg(target_os = "linux")]
fn by_model<'s>(statuses: &'s [WorkerStatus], residences: &[Residence]) -> Vec<NamedWorker<'s>> {
    let named = |status: &'s WorkerStatus| {
        let own = |residence: &&Residence| residence.bundle.to_string().starts_with(&status.label);
        let Residence { model, version, .. } = residences.iter().find(own)?;
        let device = status.gpu.map_or_else(|| "cpu".to_owned(), |gpu| format!("gpu{gpu}"));
        Some(NamedWorker { model: model.to_string(), version: version.to_string(), device, status })
    };
    let mut all: Vec<_> = statuses.iter().filter_map(named).collect();
    let whose =
        |own: &NamedWorker<'_>| (own.model.clone(), own.version.clone(), own.device.clone());
    all.sort_by_key(|own| (whose(own), own.status.process.is_none()));
    all.dedup_by_key(|own| whose(own));
    all
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use protocol::id::{ContentHash, Version};

    fn worker(bundle: ContentHash, gpu: Option<u32>, process: Option<u32>) -> WorkerStatus {
        let label = bundle.to_string()[..12].to_owned();
        let (model, why_not, memory_bytes) = ("m".into(), None, None);
        WorkerStatus { label, model, gpu, process, why_not, sessions: 1, memory_bytes }
    }

    #[test]
    fn each_worker_is_shown_on_its_device() {
        let [here, there, gone] = [b"here", b"ther", b"gone"].map(|own| ContentHash::of(own));
        let residence = |bundle, model: &str| Residence {
            model: model.parse().unwrap(),
            version: Version::FIRST,
            bundle,
            is_loaded: true,
            standing: "resident",
            memory_bytes: None,
        };
        let residences = [residence(here, "here"), residence(there, "there")];
        let statuses = [
            worker(here, Some(1), Some(11)),
            worker(here, Some(0), Some(10)),
            worker(there, None, None),
            worker(there, None, Some(12)),
            worker(gone, None, Some(13)),
        ];
        let shown = by_model(&statuses, &residences);
        let shown: Vec<_> =
            shown.iter().map(|own| (&*own.model, &*own.device, own.status.process)).collect();
        let expected =
            [("here", "gpu0", Some(10)), ("here", "gpu1", Some(11)), ("there", "cpu", Some(12))];
        assert_eq!(shown, expected);
    }
}
