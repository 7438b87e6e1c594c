//! The parameters of a request and of its outputs: the same ones over HTTP and gRPC.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

use super::sequence::SequenceOptions;
use crate::infer::PlacementHint;
use crate::limits::{DEADLINE_MAX_MS, NAME_MAX_BYTES, PARAMETERS_MAX_COUNT, TENSORS_MAX_COUNT};
use crate::problem::{Problem, ProblemCode};
use crate::tensor::InvalidTensor;

/// In which form each output is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputForm {
    all_binary: bool,
    binary: BTreeSet<String>,
    json: BTreeSet<String>,
    classes: BTreeMap<String, usize>,
    final_response: bool,
}

impl OutputForm {
    /// Whether this output is wanted as raw bytes behind the JSON.
    pub fn is_binary(&self, output: &str) -> bool {
        self.binary.contains(output) || (self.all_binary && !self.json.contains(output))
    }

    /// How many of its greatest elements are wanted of this output in place of the whole of it.
    pub fn classes(&self, output: &str) -> Option<usize> {
        self.classes.get(output).copied()
    }

    /// Whether any output is wanted as classes.
    pub fn wants_classes(&self) -> bool {
        !self.classes.is_empty()
    }

    /// Whether the last response of a stream should say that it is the last.
    pub fn wants_final_response(&self) -> bool {
        self.final_response
    }

    fn set(&mut self, output: &str, key: &str, value: &Value) -> Result<(), Problem> {
        match (key, value) {
            ("binary_data", Value::Bool(true)) => drop(self.binary.insert(output.to_owned())),
            ("binary_data", Value::Bool(false)) => drop(self.json.insert(output.to_owned())),
            ("binary_data", _) => return Err(invalid("binary_data is true or false")),
            ("classification", _) => {
                let count = usize::try_from(whole(key, value)?).unwrap_or(usize::MAX);
                if count > 0 {
                    self.classes.insert(output.to_owned(), count);
                }
            }
            _ => return Err(unknown("output parameter", key, "binary_data, classification")),
        }
        Ok(())
    }
}

/// The parameters of a request that are understood, gathered one by one.
#[derive(Debug, Default)]
pub struct Options {
    pub(super) form: OutputForm,
    pub(super) outputs: Vec<String>,
    pub(super) deadline_ms: Option<u32>,
    pub(super) priority: u8,
    pub(super) hint: PlacementHint,
    pub(super) sequence: SequenceOptions,
}

impl Options {
    pub(super) fn parse(parameters: &Map<String, Value>) -> Result<Self, Problem> {
        check_count(parameters.len())?;
        let mut options = Self::default();
        for (key, value) in parameters {
            options.set(key, value)?;
        }
        Ok(options)
    }

    pub(super) fn set(&mut self, key: &str, value: &Value) -> Result<(), Problem> {
        match key {
            "binary_data_output" => self.form.all_binary = boolean(key, value)?,
            // Schedule policy extension: microseconds; 0 stands for the server's default.
            "timeout" => self.deadline_ms = deadline_from_timeout(whole(key, value)?),
            "priority" => self.priority = u8::try_from(whole(key, value)?).unwrap_or(u8::MAX),
            "triton_enable_empty_final_response" => {
                self.form.final_response = boolean(key, value)?;
            }
            "placement" => {
                self.hint = serde_json::from_value(value.clone())
                    .map_err(|_| invalid("placement is \"auto\", \"edge\" or \"cloud\""))?;
            }
            _ if self.sequence.set(key, value)? => {}
            _ => {
                let known = "binary_data_output, timeout (microseconds), priority, placement, \
                             sequence_id, sequence_start, sequence_end";
                return Err(unknown("request parameter", key, known));
            }
        }
        Ok(())
    }

    /// Takes one more wanted output with its parameters.
    pub(super) fn want<'a>(
        &mut self,
        output: String,
        parameters: impl ExactSizeIterator<Item = (&'a str, Value)>,
    ) -> Result<(), Problem> {
        if self.outputs.len() >= TENSORS_MAX_COUNT {
            return Err(InvalidTensor::Count(self.outputs.len() + 1).into());
        }
        check_count(parameters.len())?;
        for (key, value) in parameters {
            self.form.set(&output, key, &value)?;
        }
        self.outputs.push(output);
        Ok(())
    }

    /// A caller that waits no longer than this, whatever the parameters say.
    pub(super) fn limit_deadline(&mut self, limit_ms: u32) {
        self.deadline_ms = Some(self.deadline_ms.map_or(limit_ms, |ms| ms.min(limit_ms)));
    }
}

pub(super) fn check_count(parameters: usize) -> Result<(), Problem> {
    if parameters > PARAMETERS_MAX_COUNT {
        let text = format!("at most {PARAMETERS_MAX_COUNT} parameters are taken");
        return Err(Problem::new(ProblemCode::TooLarge, text).hint("leave out what is not needed"));
    }
    Ok(())
}

pub(super) fn invalid(text: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::InvalidRequest, text)
}

fn deadline_from_timeout(timeout_us: u64) -> Option<u32> {
    let ms = timeout_us.div_ceil(1000).min(DEADLINE_MAX_MS.into());
    u32::try_from(ms).ok().filter(|ms| *ms > 0)
}

pub(super) fn boolean(key: &str, value: &Value) -> Result<bool, Problem> {
    value.as_bool().ok_or_else(|| invalid(format!("{key} is true or false")))
}

pub(super) fn whole(key: &str, value: &Value) -> Result<u64, Problem> {
    let text = value.as_str().and_then(|s| s.parse().ok());
    value.as_u64().or(text).ok_or_else(|| invalid(format!("{key} is a whole number")))
}

pub(super) fn unknown(what: &str, key: &str, known: &str) -> Problem {
    let key: String = key.chars().take(NAME_MAX_BYTES).collect();
    invalid(format!("unknown {what} {key:?}")).hint(format!("known here: {known}"))
}
