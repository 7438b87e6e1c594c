//! How inputs travel, as messages say it.

use super::inference::model_infer_request::InferInputTensor;
use super::{InputTransport, Transport};
use crate::limits::{NAME_MAX_BYTES, TENSORS_MAX_COUNT};
use crate::problem::{Problem as Failure, ProblemCode};
use crate::transport::{Allowance, Allowances, InvalidTransport, Transport as Form};

impl From<InvalidTransport> for Failure {
    fn from(error: InvalidTransport) -> Self {
        let hint = match error {
            InvalidTransport::Unknown { .. } => "one of the two programs is too old",
            _ => "", // a fault in the program that sent it
        };
        Failure::new(ProblemCode::Protocol, error.to_string()).hint(hint)
    }
}

impl From<Form> for Transport {
    fn from(form: Form) -> Self {
        match form {
            Form::Raw => Self::Raw,
            Form::Float16 => Self::Float16,
            Form::Int8 => Self::Int8,
        }
    }
}

impl From<Transport> for Form {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Raw => Self::Raw,
            Transport::Float16 => Self::Float16,
            Transport::Int8 => Self::Int8,
        }
    }
}

/// What a device is told of the inputs that may travel packed.
pub fn input_transports(allowed: &Allowances) -> Vec<InputTransport> {
    let tell = |(input, allowance): (&String, &Allowance)| InputTransport {
        input: input.clone(),
        transport: Transport::from(allowance.transport).into(),
        extent_max: allowance.extent_max,
    };
    allowed.iter().map(tell).collect()
}

/// What a cloud said of them; a form that this build does not know is left out, so that the input
/// travels raw.
pub fn allowances(told: &[InputTransport]) -> Allowances {
    let read = |told: &InputTransport| {
        let transport = Transport::try_from(told.transport).ok()?.into();
        Some((told.input.clone(), Allowance { transport, extent_max: told.extent_max }))
    };
    told.iter().take(TENSORS_MAX_COUNT).filter_map(read).collect()
}

/// The form of each of `inputs`.
pub(super) fn forms(
    told: &[i32],
    inputs: &[InferInputTensor],
) -> Result<Vec<Form>, InvalidTransport> {
    if told.is_empty() {
        return Ok(vec![Form::Raw; inputs.len()]);
    }
    if told.len() != inputs.len() {
        return Err(InvalidTransport::Count { forms: told.len(), inputs: inputs.len() });
    }
    let read = |(number, input): (&i32, &InferInputTensor)| {
        let unknown = |_| InvalidTransport::Unknown {
            name: input.name.chars().take(NAME_MAX_BYTES).collect(),
            number: *number,
        };
        Transport::try_from(*number).map(Form::from).map_err(unknown)
    };
    told.iter().zip(inputs).map(read).collect()
}
