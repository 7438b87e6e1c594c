//! What is said about a model: its metadata and its configuration, in the standard's own messages.

use crate::id::{ModelName, Version};
use crate::limits::{SEQUENCE_IDLE_S, SEQUENCES_MAX, TENSORS_MAX_BYTES};
use crate::manifest::{MODEL_FILE, Manifest, TensorSpec};
use crate::tensor::DataType;
use crate::versions::VersionPolicy;
use crate::wire::inference::model_metadata_response::TensorMetadata;
use crate::wire::inference::model_sequence_batching::StrategyOldest;
use crate::wire::inference::{
    self, ModelConfig, ModelInput, ModelInstanceGroup, ModelMetadataResponse, ModelOutput,
    ModelSequenceBatching, ModelTransactionPolicy, ModelVersionPolicy, model_instance_group,
    model_version_policy,
};
use std::time::Duration;

/// The largest batch that is ever announced.
const BATCH_MAX: u64 = 4096;

/// A model as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelDescription {
    /// The model.
    pub name: ModelName,
    /// The version that answers.
    pub version: Version,
    /// What an application sends.
    pub inputs: Vec<TensorSpec>,
    /// What it may get.
    pub outputs: Vec<TensorSpec>,
    /// The output whose elements are classes.
    pub classes: Option<String>,
    /// The labels of those classes, in their order; may be empty.
    pub labels: Vec<String>,
    /// How many requests run at once.
    pub instances: usize,
    /// On what kind of processor.
    pub kind: model_instance_group::Kind,
    /// Every version that answers, in order.
    pub versions: Vec<Version>,
    /// Which versions those are meant to be.
    pub policy: VersionPolicy,
    /// Whether it keeps state from one request of a sequence to the next.
    pub takes_sequences: bool,
}

/// How many sequences are kept, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceLimits {
    /// Sequences at a time.
    pub count: usize,
    /// Without a request.
    pub idle: Duration,
}

impl Default for SequenceLimits {
    fn default() -> Self {
        Self { count: SEQUENCES_MAX, idle: Duration::from_secs(SEQUENCE_IDLE_S.into()) }
    }
}

const PLATFORM: &str = "onnxruntime_onnx";

impl ModelDescription {
    /// What a manifest says, with the labels that its bundle holds.
    pub fn new(manifest: &Manifest, labels: &[String], instances: usize) -> Self {
        Self {
            name: manifest.model.clone(),
            version: manifest.version,
            inputs: manifest.served_inputs(),
            outputs: manifest.served_outputs(),
            classes: manifest.classes.as_ref().map(|classes| classes.logits.clone()),
            labels: labels.to_vec(),
            instances,
            versions: vec![manifest.version],
            policy: VersionPolicy::default(),
            takes_sequences: manifest.takes_sequences(),
            kind: model_instance_group::Kind::Auto,
        }
    }

    /// The same model on a processor that is known.
    #[must_use]
    pub fn on(mut self, kind: model_instance_group::Kind) -> Self {
        self.kind = kind;
        self
    }

    /// How many items one request may hold, where the first dimension of every tensor counts
    /// items; 0 for a model that takes no batches.
    pub fn max_batch_size(&self) -> u32 {
        let batched = |spec: &TensorSpec| spec.shape.first() == Some(&-1);
        // What keeps state takes the pieces of one stream at a time.
        if self.takes_sequences || !self.inputs.iter().chain(&self.outputs).all(batched) {
            return 0;
        }
        let item = self.inputs.iter().map(item_size_bytes).max().unwrap_or(1).max(1);
        u32::try_from((TENSORS_MAX_BYTES / item).clamp(1, BATCH_MAX)).unwrap_or(1)
    }

    /// The labels of an output's elements; none for any output but the classes.
    pub fn labels_of(&self, output: &str) -> &[String] {
        if self.classes.as_deref() == Some(output) { &self.labels } else { &[] }
    }

    /// `GET /v2/models/{model}` and `ModelMetadata`.
    pub fn metadata(&self) -> ModelMetadataResponse {
        ModelMetadataResponse {
            name: self.name.to_string(),
            versions: self.versions.iter().map(ToString::to_string).collect(),
            platform: PLATFORM.into(),
            inputs: self.inputs.iter().map(tensor_metadata).collect(),
            outputs: self.outputs.iter().map(tensor_metadata).collect(),
        }
    }

    /// `GET /v2/models/{model}/config` and `ModelConfig`. The dimensions of a model that takes
    /// batches stand there without the batch.
    pub fn config(&self, sequences: SequenceLimits) -> ModelConfig {
        let max_batch_size = self.max_batch_size();
        let dims = |spec: &TensorSpec| spec.shape[usize::from(max_batch_size > 0)..].to_vec();
        let input = |spec: &TensorSpec| ModelInput {
            name: spec.name.clone(),
            data_type: config_type(spec.datatype).into(),
            dims: dims(spec),
            ..ModelInput::default()
        };
        let output = |spec: &TensorSpec| ModelOutput {
            name: spec.name.clone(),
            data_type: config_type(spec.datatype).into(),
            dims: dims(spec),
            ..ModelOutput::default()
        };
        ModelConfig {
            name: self.name.to_string(),
            platform: PLATFORM.into(),
            backend: "onnxruntime".into(),
            version_policy: Some(policy_message(&self.policy)),
            max_batch_size: i32::try_from(max_batch_size).unwrap_or(i32::MAX),
            input: self.inputs.iter().map(input).collect(),
            output: self.outputs.iter().map(output).collect(),
            instance_group: vec![ModelInstanceGroup {
                name: self.name.to_string(),
                count: i32::try_from(self.instances).unwrap_or(i32::MAX),
                kind: self.kind.into(),
            }],
            sequence_batching: self.takes_sequences.then(|| sequence_batching(sequences)),
            default_model_filename: MODEL_FILE.into(),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        }
    }
}

fn policy_message(policy: &VersionPolicy) -> ModelVersionPolicy {
    use model_version_policy::{All, Latest, Specific};
    let mut message = ModelVersionPolicy::default();
    match policy {
        VersionPolicy::Latest(count) => message.latest = Some(Latest { num_versions: *count }),
        VersionPolicy::All => message.all = Some(All {}),
        VersionPolicy::Listed(listed) => {
            let number = |version: &Version| i64::try_from(version.get()).unwrap_or(i64::MAX);
            message.specific = Some(Specific { versions: listed.iter().map(number).collect() });
        }
    }
    message
}

fn sequence_batching(limits: SequenceLimits) -> ModelSequenceBatching {
    let idle_us = u64::try_from(limits.idle.as_micros()).unwrap_or(u64::MAX);
    let count = i32::try_from(limits.count).unwrap_or(i32::MAX);
    let oldest = StrategyOldest { max_candidate_sequences: count, preserve_ordering: true };
    ModelSequenceBatching { max_sequence_idle_microseconds: idle_us, oldest: Some(oldest) }
}

/// Bytes of one item; a dimension of any size counts as 1.
fn item_size_bytes(spec: &TensorSpec) -> u64 {
    let unit = spec.datatype.size_bytes().unwrap_or(4) as u64;
    let dimensions = spec.shape.iter().skip(1).map(|d| u64::try_from(*d).unwrap_or(1));
    dimensions.fold(unit, u64::saturating_mul)
}

fn tensor_metadata(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.to_string(),
        shape: spec.shape.clone(),
    }
}

fn config_type(datatype: DataType) -> inference::DataType {
    use inference::DataType as Config;
    match datatype {
        DataType::Bool => Config::TypeBool,
        DataType::Uint8 => Config::TypeUint8,
        DataType::Uint16 => Config::TypeUint16,
        DataType::Uint32 => Config::TypeUint32,
        DataType::Uint64 => Config::TypeUint64,
        DataType::Int8 => Config::TypeInt8,
        DataType::Int16 => Config::TypeInt16,
        DataType::Int32 => Config::TypeInt32,
        DataType::Int64 => Config::TypeInt64,
        DataType::Fp16 => Config::TypeFp16,
        DataType::Bf16 => Config::TypeBf16,
        DataType::Fp32 => Config::TypeFp32,
        DataType::Fp64 => Config::TypeFp64,
        DataType::Bytes => Config::TypeString,
    }
}
