//! The tables of the dataset: which columns each has, and which rows a record becomes.
//!
//! Every table has `device`, `segment`, `number` (grows with every record of a device: their order, whatever its clock
//! says) and `observed` (the device's clock); `day` and `model` are folders, and columns in SQL. A column is never
//! renamed; new ones are added, and are null in older files.

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use prost::Message;
use protocol::id::ModelName;
use serde::Serialize;
use std::sync::Arc;
use telemetry::segment::Header;
use telemetry::wire::record::What;
use telemetry::wire::{Histogram, Record};

/// A type that a column can have.
trait Column {
    const TYPE: DataType;
}

macro_rules! columns {
    ($($rust:ty => $arrow:expr),* $(,)?) => {
        $(impl Column for $rust { const TYPE: DataType = $arrow; })*
    };
}

columns! {
    String => DataType::Utf8,
    u64 => DataType::UInt64,
    i64 => DataType::Int64,
    f64 => DataType::Float64,
    bool => DataType::Boolean,
    Observed => DataType::Timestamp(TimeUnit::Millisecond, None),
    Packed => DataType::Binary,
}

impl<T: Column> Column for Option<T> {
    const TYPE: DataType = T::TYPE;
}

/// Unix milliseconds by the device's clock.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub(crate) struct Observed(i64);

/// A message as it was encoded: hexadecimal digits on their way into a column of bytes.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Packed(String);

macro_rules! table {
    ($(#[$doc:meta])* $name:ident { $($column:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize)]
        pub(crate) struct $name {
            device: String,
            segment: u64,
            number: u64,
            observed: Observed,
            $($column: $type),*
        }

        impl $name {
            fn fields() -> Vec<Field> {
                fn field<T: Column>(name: &str) -> Field {
                    // What an older file does not have is null, so any column may be.
                    Field::new(name, T::TYPE, true)
                }
                vec![
                    field::<String>("device"),
                    field::<u64>("segment"),
                    field::<u64>("number"),
                    field::<Observed>("observed"),
                    $(field::<$type>(stringify!($column))),*
                ]
            }
        }
    };
}

table! {
    /// Single requests that were sampled; `weight` says how many stand behind one.
    Inference {
        version: u64, placement: String, reason: String, error: String, confidence: Option<f64>,
        total_us: u64, queue_us: u64, infer_us: u64, network_us: u64, input_bytes: u64, output_bytes: u64,
        execution_provider: String, sampled: String, weight: f64,
    }
}
table! {
    /// Histograms of a while; [`crate::query`] reads them with `histogram_quantile`.
    Aggregates {
        version: u64, placement: String, reason: String, from_unix_ms: u64, to_unix_ms: u64, requests: u64,
        total_us: Option<Packed>, queue_us: Option<Packed>, infer_us: Option<Packed>, network_us: Option<Packed>,
        confidence: Option<Packed>,
    }
}
table! {
    /// What was counted, for every request.
    Counters {
        version: u64, placement: String, reason: String, requests: u64, failures: u64, from_unix_ms: u64, to_unix_ms: u64,
    }
}
table! {
    /// Records that devices gave up, and why.
    Dropped { class: String, reason: String, records: u64, bytes: u64 }
}
table! {
    /// How agents do.
    Health { agent_version: String, uptime_s: u64, connected: bool, carrier: String }
}
table! {
    /// What agents use.
    Resources {
        cpu_s: f64, memory_bytes: u64, memory_available_bytes: u64, temperature_c: Option<f64>, load_1m: Option<f64>,
        disk_available_bytes: u64,
    }
}
table! {
    /// What became of versions.
    Rollouts { version: u64, phase: String, reason: String }
}
table! {
    /// Inputs worth learning from; `inputs` is the record's protobuf message.
    Samples {
        version: u64, sampled: String, confidence: Option<f64>, label: String, cloud_label: String, inputs: Packed,
    }
}

/// One row of some table.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub(crate) enum Row {
    Inference(Inference),
    Aggregates(Aggregates),
    Counters(Counters),
    Dropped(Dropped),
    Health(Health),
    Resources(Resources),
    Rollouts(Rollouts),
    Samples(Samples),
}

/// A table of the dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Single requests.
    Inference,
    /// Histograms.
    Aggregates,
    /// Sums.
    Counters,
    /// Records that were given up.
    Dropped,
    /// How agents do.
    Health,
    /// What they use.
    Resources,
    /// What became of versions.
    Rollouts,
    /// Inputs worth learning from.
    Samples,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 8] = [
        Table::Inference,
        Table::Aggregates,
        Table::Counters,
        Table::Dropped,
        Table::Health,
        Table::Resources,
        Table::Rollouts,
        Table::Samples,
    ];

    /// Its name in SQL, and its folder.
    pub fn as_str(self) -> &'static str {
        match self {
            Table::Inference => "inference",
            Table::Aggregates => "aggregates",
            Table::Counters => "counters",
            Table::Dropped => "dropped",
            Table::Health => "health",
            Table::Resources => "resources",
            Table::Rollouts => "rollouts",
            Table::Samples => "samples",
        }
    }

    /// Its columns, but for the folders' `day` and `model`.
    pub fn schema(self) -> SchemaRef {
        Arc::new(Schema::new(match self {
            Table::Inference => Inference::fields(),
            Table::Aggregates => Aggregates::fields(),
            Table::Counters => Counters::fields(),
            Table::Dropped => Dropped::fields(),
            Table::Health => Health::fields(),
            Table::Resources => Resources::fields(),
            Table::Rollouts => Rollouts::fields(),
            Table::Samples => Samples::fields(),
        }))
    }
}

/// A row, and where it belongs.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) table: Table,
    pub(crate) model: String,
    pub(crate) observed_unix_ms: u64,
    pub(crate) row: Row,
}

/// What stands in the path of rows that belong to no model, or to one whose name is none.
const NO_MODEL: &str = "none";

/// The rows that a record becomes; none for a kind that this program does not know.
pub(crate) fn rows_of(header: &Header, record: &Record) -> Vec<Placed> {
    let at = At { header, record };
    match &record.what {
        None => Vec::new(),
        Some(What::Counters(counters)) => at.counters(counters),
        Some(What::Inference(event)) => {
            vec![at.place(Table::Inference, &event.model, at.inference(event))]
        }
        Some(What::Aggregate(read)) => {
            vec![at.place(Table::Aggregates, &read.model, at.aggregate(read))]
        }
        Some(What::Health(health)) => vec![at.place(Table::Health, "", at.health(health))],
        Some(What::Resources(used)) => vec![at.place(Table::Resources, "", at.resources(used))],
        Some(What::Rollout(event)) => {
            vec![at.place(Table::Rollouts, &event.model, at.rollout(event))]
        }
        Some(What::Sample(sample)) => {
            vec![at.place(Table::Samples, &sample.model, at.sample(sample))]
        }
    }
}

/// Fills in what every table has, then the columns.
macro_rules! row {
    ($at:ident, $name:ident { $($column:ident: $value:expr),* $(,)? }) => {
        Row::$name($name {
            device: $at.header.device.to_string(),
            segment: $at.header.segment,
            number: $at.record.number,
            observed: Observed(i64::try_from($at.record.observed_unix_ms).unwrap_or(i64::MAX)),
            $($column: $value),*
        })
    };
}

struct At<'a> {
    header: &'a Header,
    record: &'a Record,
}

impl At<'_> {
    fn place(&self, table: Table, model: &str, row: Row) -> Placed {
        let model = match model.parse::<ModelName>() {
            Ok(model) => model.to_string(),
            Err(_) => NO_MODEL.to_owned(),
        };
        Placed { table, model, observed_unix_ms: self.record.observed_unix_ms, row }
    }

    fn counters(&self, counters: &telemetry::wire::Counters) -> Vec<Placed> {
        let (from_unix_ms, to_unix_ms) = (counters.from_unix_ms, counters.to_unix_ms);
        let models = counters.models.iter().map(|of| {
            let row = row!(
                self,
                Counters {
                    version: of.version,
                    placement: of.placement.clone(),
                    reason: of.reason.clone(),
                    requests: of.requests,
                    failures: of.failures,
                    from_unix_ms: from_unix_ms,
                    to_unix_ms: to_unix_ms,
                }
            );
            self.place(Table::Counters, &of.model, row)
        });
        let dropped = counters.dropped.iter().map(|of| {
            let row = row!(
                self,
                Dropped {
                    class: of.class().as_str().to_owned(),
                    reason: of.reason.clone(),
                    records: of.records,
                    bytes: of.bytes,
                }
            );
            self.place(Table::Dropped, "", row)
        });
        models.chain(dropped).collect()
    }

    fn inference(&self, event: &telemetry::wire::InferenceEvent) -> Row {
        row!(
            self,
            Inference {
                version: event.version,
                placement: event.placement.clone(),
                reason: event.reason.clone(),
                error: event.error.clone(),
                confidence: event.confidence.map(f64::from),
                total_us: event.total_us,
                queue_us: event.queue_us,
                infer_us: event.infer_us,
                network_us: event.network_us,
                input_bytes: event.input_bytes,
                output_bytes: event.output_bytes,
                execution_provider: event.execution_provider.clone(),
                sampled: event.sampled.clone(),
                weight: event.weight,
            }
        )
    }

    fn aggregate(&self, read: &telemetry::wire::Aggregate) -> Row {
        let packed = |histogram: &Option<Histogram>| histogram.as_ref().map(packed);
        row!(
            self,
            Aggregates {
                version: read.version,
                placement: read.placement.clone(),
                reason: read.reason.clone(),
                from_unix_ms: read.from_unix_ms,
                to_unix_ms: read.to_unix_ms,
                requests: read.total.as_ref().map_or(0, |total| total.count),
                total_us: packed(&read.total),
                queue_us: packed(&read.queue),
                infer_us: packed(&read.infer),
                network_us: packed(&read.network),
                confidence: packed(&read.confidence),
            }
        )
    }

    fn health(&self, health: &telemetry::wire::Health) -> Row {
        row!(
            self,
            Health {
                agent_version: health.agent_version.clone(),
                uptime_s: health.uptime_s,
                connected: health.connected,
                carrier: health.carrier.clone(),
            }
        )
    }

    fn resources(&self, used: &telemetry::wire::Resources) -> Row {
        row!(
            self,
            Resources {
                cpu_s: used.cpu_s,
                memory_bytes: used.memory_bytes,
                memory_available_bytes: used.memory_available_bytes,
                temperature_c: used.temperature_c.map(f64::from),
                load_1m: used.load_1m.map(f64::from),
                disk_available_bytes: used.disk_available_bytes,
            }
        )
    }

    fn rollout(&self, event: &telemetry::wire::RolloutEvent) -> Row {
        row!(
            self,
            Rollouts {
                version: event.version,
                phase: event.phase.clone(),
                reason: event.reason.clone(),
            }
        )
    }

    fn sample(&self, sample: &telemetry::wire::Sample) -> Row {
        row!(
            self,
            Samples {
                version: sample.version,
                sampled: sample.sampled.clone(),
                confidence: sample.confidence.map(f64::from),
                label: sample.label.clone(),
                cloud_label: sample.cloud_label.clone(),
                inputs: packed(sample),
            }
        )
    }
}

fn packed(message: &impl Message) -> Packed {
    Packed(hex::encode(message.encode_to_vec()))
}
