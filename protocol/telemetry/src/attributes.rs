//! Records for other tools: one JSON object each, with the names that traces have too (OpenTelemetry's, and
//! `outrigger.` before what it has no name for).

use crate::segment::Header;
use crate::wire::record::What;
use crate::wire::{
    Aggregate, Counters, Health, Histogram, InferenceEvent, Record, Resources, RolloutEvent, Sample,
};
use serde_json::{Map, Value, json};

impl Record {
    /// The record, and whose it is.
    pub fn to_json(&self, header: &Header) -> Value {
        let (event, attributes) = match &self.what {
            None => ("outrigger.unknown", Map::new()),
            Some(What::Counters(counters)) => ("outrigger.counters", of_counters(counters)),
            Some(What::Aggregate(aggregate)) => ("outrigger.aggregate", of_aggregate(aggregate)),
            Some(What::Inference(event)) => ("outrigger.inference", of_inference(event)),
            Some(What::Health(health)) => ("outrigger.health", of_health(health)),
            Some(What::Resources(used)) => ("outrigger.resources", of_resources(used)),
            Some(What::Rollout(rollout)) => ("outrigger.rollout", of_rollout(rollout)),
            Some(What::Sample(sample)) => ("outrigger.sample", of_sample(sample)),
        };
        json!({
            "device": header.device.as_str(),
            "segment": header.segment,
            "number": self.number,
            "observed_unix_ms": self.observed_unix_ms,
            "class": header.class.as_str(),
            "event": event,
            "attributes": attributes,
        })
    }
}

fn object(pairs: &[(&str, Value)]) -> Map<String, Value> {
    let kept = pairs.iter().filter(|(_, value)| !is_empty(value));
    kept.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// What a record does not say is no attribute of it.
fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

fn of_model(
    model: &str,
    version: u64,
    placement: &str,
    reason: &str,
) -> [(&'static str, Value); 4] {
    [
        ("outrigger.model.name", json!(model)),
        ("outrigger.model.version", json!(version)),
        ("outrigger.placement", json!(placement)),
        ("outrigger.reason", json!(reason)),
    ]
}

fn of_counters(counters: &Counters) -> Map<String, Value> {
    let models = counters.models.iter().map(|row| {
        let mut pairs = of_model(&row.model, row.version, &row.placement, &row.reason).to_vec();
        pairs.push(("requests", json!(row.requests)));
        pairs.push(("failures", json!(row.failures)));
        Value::Object(object(&pairs))
    });
    let dropped = counters.dropped.iter().map(|row| {
        json!({ "class": row.class().as_str(), "reason": row.reason, "records": row.records, "bytes": row.bytes })
    });
    object(&[
        ("from_unix_ms", json!(counters.from_unix_ms)),
        ("to_unix_ms", json!(counters.to_unix_ms)),
        ("models", models.collect()),
        ("dropped", dropped.collect()),
    ])
}

fn of_aggregate(aggregate: &Aggregate) -> Map<String, Value> {
    let Aggregate { model, version, placement, reason, .. } = aggregate;
    let mut pairs = of_model(model, *version, placement, reason).to_vec();
    pairs.push(("from_unix_ms", json!(aggregate.from_unix_ms)));
    pairs.push(("to_unix_ms", json!(aggregate.to_unix_ms)));
    let histograms = [
        ("outrigger.total_us", &aggregate.total),
        ("outrigger.queue_us", &aggregate.queue),
        ("outrigger.infer_us", &aggregate.infer),
        ("outrigger.network_us", &aggregate.network),
        ("outrigger.confidence", &aggregate.confidence),
    ];
    pairs.extend(histograms.map(|(name, histogram)| (name, of_histogram(histogram.as_ref()))));
    object(&pairs)
}

fn of_histogram(histogram: Option<&Histogram>) -> Value {
    let Some(read) = histogram else { return Value::Null };
    json!({
        "scale": read.scale, "offset": read.offset, "bucket_counts": read.buckets, "zero_count": read.zeros,
        "count": read.count, "sum": read.sum, "min": read.min, "max": read.max,
    })
}

fn of_inference(event: &InferenceEvent) -> Map<String, Value> {
    let mut pairs = of_model(&event.model, event.version, &event.placement, &event.reason).to_vec();
    pairs.extend([
        ("error.type", json!(event.error)),
        ("outrigger.confidence", json!(event.confidence)),
        ("outrigger.total_us", json!(event.total_us)),
        ("outrigger.queue_us", json!(event.queue_us)),
        ("outrigger.infer_us", json!(event.infer_us)),
        ("outrigger.network_us", json!(event.network_us)),
        ("outrigger.input_bytes", json!(event.input_bytes)),
        ("outrigger.output_bytes", json!(event.output_bytes)),
        ("outrigger.execution_provider", json!(event.execution_provider)),
        ("outrigger.sampled", json!(event.sampled)),
        ("outrigger.weight", json!(event.weight)),
    ]);
    object(&pairs)
}

fn of_health(health: &Health) -> Map<String, Value> {
    object(&[
        ("service.version", json!(health.agent_version)),
        ("process.uptime_s", json!(health.uptime_s)),
        ("outrigger.connected", json!(health.connected)),
        ("outrigger.carrier", json!(health.carrier)),
    ])
}

fn of_resources(used: &Resources) -> Map<String, Value> {
    object(&[
        ("process.cpu.time_s", json!(used.cpu_s)),
        ("process.memory.usage", json!(used.memory_bytes)),
        ("system.memory.available", json!(used.memory_available_bytes)),
        ("hw.temperature", json!(used.temperature_c)),
        ("system.load_1m", json!(used.load_1m)),
        ("system.filesystem.available", json!(used.disk_available_bytes)),
    ])
}

fn of_rollout(rollout: &RolloutEvent) -> Map<String, Value> {
    let mut pairs = of_model(&rollout.model, rollout.version, "", &rollout.reason).to_vec();
    pairs.push(("outrigger.phase", json!(rollout.phase)));
    object(&pairs)
}

fn of_sample(sample: &Sample) -> Map<String, Value> {
    let inputs = sample.inputs.iter().map(|input| {
        json!({
            "name": input.name, "datatype": input.datatype, "shape": input.shape,
            "data_hex": hex::encode(&input.data),
        })
    });
    object(&[
        ("outrigger.model.name", json!(sample.model)),
        ("outrigger.model.version", json!(sample.version)),
        ("outrigger.sampled", json!(sample.sampled)),
        ("outrigger.confidence", json!(sample.confidence)),
        ("outrigger.label", json!(sample.label)),
        ("outrigger.cloud_label", json!(sample.cloud_label)),
        ("inputs", inputs.collect()),
    ])
}
