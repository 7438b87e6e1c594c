//! Texts: `BYTES` `[n]` of UTF-8 becomes token numbers, mask and types, each `INT64` or `INT32`
//! `[n,tokens]` as the model's inputs are.
//!
//! Texts are padded at the end to the longest of the batch, or to the model's own length where that
//! is fixed; what the tokenizer's file says about padding and truncation is left aside, but for the
//! number that stands for padding.

use std::sync::Arc;

use bytes::Bytes;
use protocol::limits::TENSORS_MAX_BYTES;
use protocol::manifest::{Part, Pipeline, Step, TensorSpec};
use protocol::tensor::{DataType, Tensor, TensorMeta};
use tokenizers::{Encoding, Tokenizer, TruncationParams};

use super::steps::{InvalidPipeline, target};
use super::{Moment, StepFiles};
use crate::backend::describe_type;
use crate::error::text::{TEXT_MAX_BYTES, TEXTS_MAX, TOKENS_MAX};
use crate::error::{InvalidRequest, RunError, TextError};

/// Tokens that mean padding, where the tokenizer does not say which.
const PADDING_TOKENS: [&str; 3] = ["[PAD]", "<pad>", "<|endoftext|>"];
const PARTS: &str = "ids, and if wanted mask and types";

/// A pipeline over texts.
#[derive(Debug, Clone)]
pub struct TextFeed {
    input: String,
    targets: Vec<Target>,
    /// The model's own length, where it has one.
    fixed: Option<usize>,
    tokenizer: Arc<Tokenizer>,
    padding: Padding,
}

#[derive(Debug, Clone)]
struct Target {
    part: Part,
    spec: TensorSpec,
}

#[derive(Debug, Clone, Copy)]
struct Padding {
    id: u32,
    type_id: u32,
}

impl TextFeed {
    /// Checks the pipeline of a model with these inputs, and reads its tokenizer.
    ///
    /// # Errors
    /// [`InvalidPipeline`].
    pub fn new(
        pipeline: &Pipeline,
        inputs: &[TensorSpec],
        files: &StepFiles,
    ) -> Result<Self, InvalidPipeline> {
        let targets = pipeline.feeds().map(|(part, name)| Target::new(part, name, inputs));
        let targets: Vec<Target> = targets.collect::<Result<_, _>>()?;
        let parts: Vec<Part> = targets.iter().map(|target| target.part).collect();
        if !parts.contains(&Part::Ids) || parts.contains(&Part::Values) {
            let input = pipeline.input.clone();
            return Err(InvalidPipeline::Parts { input, has: PARTS });
        }
        let [Step::Tokenize { file, max_tokens }] = pipeline.steps.as_slice() else {
            return Err(InvalidPipeline::Needs { step: "text", needs: "tokenize" });
        };
        let fixed = fixed_length(&targets)?;
        if !(1..=TOKENS_MAX).contains(max_tokens) {
            return Err(InvalidPipeline::Size { step: "tokenize", limits: "1 to 32768 tokens" });
        }
        let max_tokens = fixed.unwrap_or(usize::MAX).min(*max_tokens as usize);
        let (tokenizer, padding) = open(file, files, max_tokens)?;
        let tokenizer = Arc::new(tokenizer);
        Ok(Self { input: pipeline.input.clone(), targets, fixed, tokenizer, padding })
    }

    /// Turns texts into the model's inputs.
    ///
    /// # Errors
    /// [`RunError::Request`] or [`RunError::Text`].
    pub fn apply(&self, input: &Tensor, moment: &Moment<'_>) -> Result<Vec<Tensor>, RunError> {
        let fail = |item: i64, source| {
            let (input, item) = (self.input.clone(), usize::try_from(item).unwrap_or(0));
            RunError::Text { input, item, source }
        };
        let items = match (input.datatype(), input.shape()) {
            (DataType::Bytes, &[items @ 1..=i64::MAX]) => items,
            _ => return Err(refuse(input)),
        };
        if items > TEXTS_MAX {
            return Err(fail(items - 1, TextError::Many(items)));
        }
        let mut encodings = Vec::new();
        for (item, text) in (0..items).zip(input.byte_elements()) {
            encodings.push(self.encode(&text).map_err(|source| fail(item, source))?);
            moment.check()?;
        }
        let longest = encodings.iter().map(Encoding::len).max().unwrap_or(0);
        let len = self.fixed.unwrap_or(longest);
        let size_bytes = encodings.len() as u64 * len as u64 * 8 * self.targets.len() as u64;
        if size_bytes > TENSORS_MAX_BYTES {
            return Err(fail(items - 1, TextError::Batch(size_bytes)));
        }
        self.targets.iter().map(|target| target.tensor(&encodings, len, self.padding)).collect()
    }

    fn encode(&self, text: &[u8]) -> Result<Encoding, TextError> {
        if text.len() > TEXT_MAX_BYTES {
            return Err(TextError::Long { size_bytes: text.len() });
        }
        let text = std::str::from_utf8(text).map_err(|e| TextError::Utf8(e.valid_up_to()))?;
        let failed = |e: tokenizers::Error| TextError::Tokenizer(e.to_string());
        self.tokenizer.encode_fast(text, true).map_err(failed)
    }
}

fn refuse(input: &Tensor) -> RunError {
    RunError::Request(InvalidRequest::WrongInput {
        name: input.name().to_owned(),
        actual: describe_type(input.datatype(), input.shape()),
        takes: "UTF-8 text as BYTES [n]".to_owned(),
    })
}

impl Target {
    fn new(part: Part, name: &str, inputs: &[TensorSpec]) -> Result<Self, InvalidPipeline> {
        let spec = target(name, inputs)?.clone();
        let fits =
            matches!(spec.datatype, DataType::Int64 | DataType::Int32) && spec.shape.len() == 2;
        if !fits {
            let makes = "tokens as INT64 or INT32 of 2 dimensions";
            return Err(InvalidPipeline::Target { input: spec.name, makes });
        }
        Ok(Self { part, spec })
    }

    /// `[n,len]` of this part.
    fn tensor(
        &self,
        encodings: &[Encoding],
        len: usize,
        padding: Padding,
    ) -> Result<Tensor, RunError> {
        let mut data = Vec::with_capacity(encodings.len() * len * 8);
        for encoding in encodings {
            let (own, fill) = match self.part {
                Part::Mask => (encoding.get_attention_mask(), 0),
                Part::Types => (encoding.get_type_ids(), padding.type_id),
                Part::Ids | Part::Values => (encoding.get_ids(), padding.id),
            };
            for token in own.iter().copied().chain(std::iter::repeat(fill)).take(len) {
                match self.spec.datatype {
                    DataType::Int32 => data.extend_from_slice(&token.to_le_bytes()),
                    _ => data.extend_from_slice(&u64::from(token).to_le_bytes()),
                }
            }
        }
        let shape = [encodings.len(), len].map(|d| i64::try_from(d).unwrap_or(i64::MAX)).to_vec();
        let build = || {
            let meta = TensorMeta::new(&self.spec.name, self.spec.datatype, shape)?;
            Tensor::new(meta, Bytes::from(data))
        };
        build().map_err(|e| RunError::Failed(e.to_string()))
    }
}

/// The length that the model's inputs have, if it is not any.
fn fixed_length(targets: &[Target]) -> Result<Option<usize>, InvalidPipeline> {
    let lengths = targets.iter().map(|target| usize::try_from(target.spec.shape[1]).ok());
    let fixed: Vec<usize> = lengths.flatten().collect();
    let limits = "the model's inputs have one length, of at least 1";
    let agree = fixed.iter().all(|len| *len == fixed[0] && *len > 0);
    agree.then(|| fixed.first().copied()).ok_or(InvalidPipeline::Size { step: "tokenize", limits })
}

fn open(
    file: &str,
    files: &StepFiles,
    max_length: usize,
) -> Result<(Tokenizer, Padding), InvalidPipeline> {
    let unusable = |reason: String| InvalidPipeline::Tokenizer { file: file.to_owned(), reason };
    let json = files.get(file).ok_or_else(|| unusable("it is missing".to_owned()))?;
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|e| unusable(e.to_string()))?;
    let padding = padding(&tokenizer);
    let truncation = TruncationParams { max_length, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|e| unusable(e.to_string()))?;
    tokenizer.with_padding(None);
    Ok((tokenizer, padding))
}

fn padding(tokenizer: &Tokenizer) -> Padding {
    if let Some(own) = tokenizer.get_padding() {
        return Padding { id: own.pad_id, type_id: own.pad_type_id };
    }
    let id = PADDING_TOKENS.iter().find_map(|token| tokenizer.token_to_id(token));
    Padding { id: id.unwrap_or(0), type_id: 0 }
}

#[cfg(test)]
mod tests;
