//! The protobuf messages, and their meaning: conversion to and from the types of this crate.

use bytes::Bytes;
use std::collections::BTreeMap;

use crate::id::{ModelName, Version};
use crate::infer::{InferRequest, InferResponse, PlacementHint};
use crate::limits::{DEADLINE_MAX_MS, NAME_MAX_BYTES, PARAMETERS_MAX_COUNT, TENSORS_MAX_COUNT};
use crate::problem::{Problem as Failure, ProblemCode};
use crate::tensor::{InvalidTensor, Tensor, TensorMeta, check_totals};
use crate::trace::TraceContext as Traced;
use crate::transport::{Parcel, Transport as Form};

mod transports;
use transports::forms;
pub use transports::{allowances, input_transports};

/// The Open Inference Protocol's own messages.
#[allow(missing_docs, clippy::all, unused_qualifications)]
pub mod inference {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// An enumeration whose JSON form is the name of its value.
trait Named: TryFrom<i32> {
    fn name(&self) -> &'static str;
}

macro_rules! named {
    ($($type:ty),+) => {$(
        impl Named for $type {
            fn name(&self) -> &'static str {
                self.as_str_name()
            }
        }
    )+};
}
named!(inference::DataType, inference::model_input::Format, inference::model_instance_group::Kind);

/// How generated code writes an enumeration as JSON.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn json_name<E: Named, S: serde::Serializer>(
    value: &i32,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let known = E::try_from(*value).map_err(|_| serde::ser::Error::custom("an unknown value"))?;
    serializer.serialize_str(known.name())
}

mod outrigger {
    pub(super) mod v1 {
        #![allow(missing_docs, clippy::all, unused_qualifications)]
        include!(concat!(env!("OUT_DIR"), "/outrigger.v1.rs"));
    }
}
pub use outrigger::v1::*;

use inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use inference::model_infer_response::InferOutputTensor;
use inference::{ModelInferRequest, ModelInferResponse};

impl From<InvalidTensor> for Failure {
    fn from(error: InvalidTensor) -> Self {
        let code = match error {
            InvalidTensor::Total(_) | InvalidTensor::Count(_) => ProblemCode::TooLarge,
            _ => ProblemCode::InvalidRequest,
        };
        let hint = match error {
            InvalidTensor::Count(_) => "send the items of one request as one tensor",
            InvalidTensor::Total(_) => "send fewer items per request",
            InvalidTensor::DataType(_) | InvalidTensor::Elements { .. } => "", // the message says it
            InvalidTensor::Name => "the model's metadata has its names",
            InvalidTensor::Rank { .. }
            | InvalidTensor::Shape { .. }
            | InvalidTensor::Size { .. } => "the model's metadata has its datatypes and shapes",
        };
        Failure::new(code, error.to_string()).hint(hint)
    }
}

fn raw_sizes(tensors: &[Tensor]) -> Vec<u64> {
    tensors.iter().map(|t| t.data().len() as u64).collect()
}

/// The header of a deferral; the parcel's pieces follow it, in order.
pub fn infer_open(
    request: &InferRequest,
    parcel: &Parcel,
    version: Version,
    deadline_ms: u32,
) -> InferOpen {
    let packed = parcel.transports().any(|form| form != Form::Raw);
    let transports = parcel.transports().filter(|_| packed).map(|f| Transport::from(f).into());
    let input = |t: &Tensor| InferInputTensor {
        name: t.name().to_owned(),
        datatype: t.datatype().to_string(),
        shape: t.shape().to_vec(),
        ..Default::default()
    };
    let output = |name: &String| InferRequestedOutputTensor {
        name: name.clone(),
        parameters: BTreeMap::new(),
    };
    InferOpen {
        request: Some(ModelInferRequest {
            model_name: request.model.to_string(),
            model_version: version.to_string(),
            id: request.id.clone(),
            inputs: request.inputs.iter().map(input).collect(),
            outputs: request.outputs.iter().map(output).collect(),
            ..Default::default()
        }),
        tensor_sizes: parcel.pieces().map(|piece| piece.len() as u64).collect(),
        deadline_ms,
        priority: request.priority.into(),
        trace: None, // whoever sends it knows
        background: false,
        transports: transports.collect(), // none at all is what older clouds know
    }
}

/// An inference request whose header arrived and whose tensor bytes did not yet.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingRequest {
    request: InferRequest,
    version: Version,
    metas: Vec<TensorMeta>,
    transports: Vec<Form>,
    /// The length of each tensor as it travels, in the order in which they follow; their sum is bounded.
    pub tensor_sizes: Vec<u64>,
    /// The asker's place in a trace.
    pub trace: Option<Traced>,
    /// Nobody waits for the answer.
    pub background: bool,
}

impl PendingRequest {
    /// Checks a header: names, shapes and sizes, before a byte of tensor data is read.
    ///
    /// # Errors
    /// A [`Failure`] that says what is wrong.
    pub fn from_open(open: InferOpen) -> Result<Self, Failure> {
        let message = open
            .request
            .ok_or_else(|| Failure::new(ProblemCode::Protocol, "an InferOpen without a request"))?;
        check_totals(open.tensor_sizes.iter().copied())?;
        check_request_bounds(&message)?;
        if message.inputs.len() != open.tensor_sizes.len() {
            return Err(Failure::new(ProblemCode::Protocol, "one size per input is needed"));
        }
        let transports = forms(&open.transports, &message.inputs)?;
        let mut metas = Vec::with_capacity(message.inputs.len());
        for ((input, size), form) in message.inputs.iter().zip(&open.tensor_sizes).zip(&transports)
        {
            let meta = TensorMeta::new(&input.name, input.datatype.parse()?, input.shape.clone())?;
            match form {
                Form::Raw => meta.check_size(*size)?,
                packed => packed.check_size(&meta, *size)?,
            }
            metas.push(meta);
        }
        check_totals(held_sizes(&metas, &open.tensor_sizes))?;
        let invalid =
            |e: crate::id::InvalidName| Failure::new(ProblemCode::InvalidRequest, e.to_string());
        let version = message.model_version.parse().map_err(invalid)?;
        let request = InferRequest {
            model: message.model_name.parse().map_err(invalid)?,
            version: Some(version),
            id: message.id,
            inputs: Vec::new(),
            outputs: message.outputs.into_iter().map(|o| o.name).collect(),
            deadline_ms: Some(open.deadline_ms.min(DEADLINE_MAX_MS)),
            priority: u8::try_from(open.priority).unwrap_or(u8::MAX),
            hint: PlacementHint::Cloud,
            sequence: None,
        };
        Ok(Self {
            request,
            version,
            metas,
            transports,
            tensor_sizes: open.tensor_sizes,
            trace: open.trace.as_ref().and_then(Traced::from_wire),
            background: open.background,
        })
    }

    /// The model that is asked, for admission.
    pub fn model(&self) -> &ModelName {
        &self.request.model
    }

    /// The version that is asked: the one whose edge answer was deferred.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its items: the first dimension of its inputs.
    pub fn items(&self) -> u32 {
        let first = self.metas.first().and_then(|meta| meta.shape.first());
        first.and_then(|items| u32::try_from(*items).ok()).unwrap_or(1)
    }

    /// Bytes of its tensors once they are unpacked.
    pub fn held_bytes(&self) -> u64 {
        held_sizes(&self.metas, &self.tensor_sizes).sum()
    }

    /// Whether any of its inputs travels packed.
    pub fn is_packed(&self) -> bool {
        self.transports.iter().any(|form| *form != Form::Raw)
    }

    /// How urgent it is.
    pub fn priority(&self) -> u8 {
        self.request.priority
    }

    /// The milliseconds that are left for it.
    pub fn deadline_ms(&self) -> u32 {
        self.request.deadline_ms.unwrap_or(0)
    }

    /// The whole request, once the bytes of every tensor arrived: unpacked, whatever they travelled as.
    ///
    /// # Errors
    /// BYTES data whose inner lengths do not add up; numbers that cannot have been packed.
    pub fn with_data(mut self, data: Vec<Bytes>) -> Result<InferRequest, Failure> {
        let sent = self.metas.iter().zip(&self.transports).zip(data);
        let unpacked = sent.map(|((meta, form), bytes)| form.unpack(meta, &bytes));
        let unpacked = unpacked.collect::<Result<_, _>>()?;
        self.request.inputs = zip_tensors(self.metas, unpacked)?;
        Ok(self.request)
    }
}

/// What tensors take in memory: what their shapes ask for, or `BYTES` what came.
fn held_sizes(metas: &[TensorMeta], sent: &[u64]) -> impl ExactSizeIterator<Item = u64> {
    metas.iter().zip(sent).map(|(meta, sent)| meta.size_bytes().unwrap_or(*sent))
}

fn zip_tensors(metas: Vec<TensorMeta>, data: Vec<Bytes>) -> Result<Vec<Tensor>, Failure> {
    let pairs = metas.into_iter().zip(data);
    Ok(pairs.map(|(meta, data)| Tensor::new(meta, data)).collect::<Result<_, _>>()?)
}

/// Refuses more parameters, outputs or bytes of id than the limits allow.
pub(crate) fn check_request_bounds(message: &ModelInferRequest) -> Result<(), Failure> {
    let parameters = message.inputs.iter().map(|i| i.parameters.len()).max().unwrap_or(0);
    if parameters.max(message.parameters.len()) > PARAMETERS_MAX_COUNT {
        let text = format!("at most {PARAMETERS_MAX_COUNT} parameters are taken");
        return Err(Failure::new(ProblemCode::TooLarge, text));
    }
    if message.outputs.len() > TENSORS_MAX_COUNT {
        return Err(InvalidTensor::Count(message.outputs.len()).into());
    }
    if message.id.len() > NAME_MAX_BYTES {
        let text = format!("a request id has at most {NAME_MAX_BYTES} bytes");
        return Err(Failure::new(ProblemCode::InvalidRequest, text));
    }
    Ok(())
}

fn output_meta(t: &Tensor) -> InferOutputTensor {
    InferOutputTensor {
        name: t.name().to_owned(),
        datatype: t.datatype().to_string(),
        shape: t.shape().to_vec(),
        ..Default::default()
    }
}

/// The header of a cloud answer; the outputs' bytes follow it raw, in order.
pub fn infer_reply(response: &InferResponse) -> InferReply {
    let verdict = &response.verdict;
    InferReply {
        response: Some(ModelInferResponse {
            model_name: response.model.to_string(),
            model_version: verdict.version.to_string(),
            id: response.id.clone(),
            outputs: response.outputs.iter().map(output_meta).collect(),
            ..Default::default()
        }),
        tensor_sizes: raw_sizes(&response.outputs),
        confidence: verdict.confidence,
        queue_us: verdict.timing.queue_us,
        infer_us: verdict.timing.infer_us,
        label: verdict.label.clone().unwrap_or_default(),
        wait_us: 0, // the node's, not the answer's: whoever sends it knows
    }
}

/// A cloud answer whose header arrived and whose tensor bytes did not yet.
#[derive(Debug, Clone, PartialEq)]
pub struct PendingReply {
    metas: Vec<TensorMeta>,
    /// The length of each tensor, in the order in which they follow; their sum is bounded.
    pub tensor_sizes: Vec<u64>,
    /// The version that answered.
    pub version: Version,
    /// The header, without its response.
    pub reply: InferReply,
}

impl PendingReply {
    /// Checks a reply's header before a byte of tensor data is read.
    ///
    /// # Errors
    /// A [`Failure`] that says how the cloud broke the protocol.
    pub fn from_reply(mut reply: InferReply) -> Result<Self, Failure> {
        let response = reply.response.take().ok_or_else(|| {
            Failure::new(ProblemCode::Protocol, "an InferReply without a response")
        })?;
        check_totals(reply.tensor_sizes.iter().copied())?;
        if response.outputs.len() != reply.tensor_sizes.len() {
            return Err(Failure::new(ProblemCode::Protocol, "one size per output is needed"));
        }
        let mut metas = Vec::with_capacity(response.outputs.len());
        for (output, size) in response.outputs.into_iter().zip(&reply.tensor_sizes) {
            let meta = TensorMeta::new(&output.name, output.datatype.parse()?, output.shape)?;
            meta.check_size(*size)?;
            metas.push(meta);
        }
        let version = response
            .model_version
            .parse()
            .map_err(|_| Failure::new(ProblemCode::Protocol, "an InferReply without a version"))?;
        Ok(Self { metas, tensor_sizes: reply.tensor_sizes.clone(), version, reply })
    }

    /// The outputs, once the bytes of every one arrived.
    ///
    /// # Errors
    /// BYTES data whose inner lengths do not add up.
    pub fn with_data(self, data: Vec<Bytes>) -> Result<Vec<Tensor>, Failure> {
        zip_tensors(self.metas, data)
    }
}

impl Probe {
    /// A probe from inputs and the outputs that were measured for them.
    pub fn new(inputs: &[Tensor], outputs: &[Tensor]) -> Self {
        let raw = |tensors: &[Tensor]| tensors.iter().map(|t| t.data().clone()).collect();
        let input = |t: &Tensor| InferInputTensor {
            name: t.name().to_owned(),
            datatype: t.datatype().to_string(),
            shape: t.shape().to_vec(),
            ..Default::default()
        };
        Self {
            request: Some(ModelInferRequest {
                inputs: inputs.iter().map(input).collect(),
                raw_input_contents: raw(inputs),
                ..Default::default()
            }),
            expected: Some(ModelInferResponse {
                outputs: outputs.iter().map(output_meta).collect(),
                raw_output_contents: raw(outputs),
                ..Default::default()
            }),
        }
    }

    /// The inputs and the expected outputs.
    ///
    /// # Errors
    /// A probe that is not whole.
    pub fn tensors(self) -> Result<(Vec<Tensor>, Vec<Tensor>), Failure> {
        let absent =
            || Failure::new(ProblemCode::InvalidRequest, "a probe without request or answer");
        let request = self.request.ok_or_else(absent)?;
        let expected = self.expected.ok_or_else(absent)?;
        let mut metas = Vec::new();
        for i in request.inputs {
            metas.push(TensorMeta::new(&i.name, i.datatype.parse()?, i.shape)?);
        }
        let inputs = zip_tensors(metas, request.raw_input_contents)?;
        let mut metas = Vec::new();
        for o in expected.outputs {
            metas.push(TensorMeta::new(&o.name, o.datatype.parse()?, o.shape)?);
        }
        let outputs = zip_tensors(metas, expected.raw_output_contents)?;
        if inputs.is_empty() || outputs.is_empty() {
            return Err(absent());
        }
        Ok((inputs, outputs))
    }
}
