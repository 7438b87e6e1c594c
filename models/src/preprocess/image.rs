//! Images: `UINT8` `[n,h,w]` or `[n,h,w,c]` is pixels and skips decoding; `BYTES` `[n]` is encoded
//! images. The result is one `FP32` tensor, `[n,c,h,w]` or `[n,h,w,c]`.
//!
//! Read [`plan`] for what the steps may say, [`picture`] for decoding and geometry.

use bytes::Bytes;
use protocol::limits::TENSORS_MAX_BYTES;
use protocol::manifest::{Pipeline, TensorSpec};
use protocol::tensor::{DataType, Tensor, TensorMeta};

use super::Moment;
use super::steps::{InvalidPipeline, values_target};
use crate::backend::describe_type;
use crate::error::{ImageError, InvalidRequest, RunError};

mod jpeg;
pub mod picture;
pub mod plan;

use picture::Picture;
use plan::Plan;

/// A pipeline over images.
#[derive(Debug, Clone)]
pub struct ImageFeed {
    input: String,
    spec: TensorSpec,
    plan: Plan,
}

impl ImageFeed {
    /// Checks the pipeline of a model with these inputs.
    ///
    /// # Errors
    /// [`InvalidPipeline`].
    pub fn new(pipeline: &Pipeline, inputs: &[TensorSpec]) -> Result<Self, InvalidPipeline> {
        let spec = values_target(pipeline, inputs, &[4], "images as FP32 of 4 dimensions")?;
        let plan = Plan::new(&pipeline.steps)?;
        Ok(Self { input: pipeline.input.clone(), spec: spec.clone(), plan })
    }

    /// Turns pixels or encoded images into the model's input.
    ///
    /// # Errors
    /// [`RunError::Request`] or [`RunError::Image`].
    pub fn apply(&self, input: &Tensor, moment: &Moment<'_>) -> Result<Tensor, RunError> {
        match (input.datatype(), input.shape()) {
            (_, [0, ..]) => Err(self.refuse(input)),
            (DataType::Uint8, &[_, height, width]) => {
                self.pixels(input, [height, width, 1], moment)
            }
            (DataType::Uint8, &[_, height, width, channels]) => {
                self.pixels(input, [height, width, channels], moment)
            }
            (DataType::Bytes, &[_]) if self.plan.color.is_some() => self.encoded(input, moment),
            _ => Err(self.refuse(input)),
        }
    }

    fn refuse(&self, input: &Tensor) -> RunError {
        let encoded = match self.plan.color {
            Some(_) => ", or JPEG or PNG files as BYTES [n]",
            None => "",
        };
        let own = describe_type(self.spec.datatype, &self.spec.shape);
        RunError::Request(InvalidRequest::WrongInput {
            name: input.name().to_owned(),
            actual: describe_type(input.datatype(), input.shape()),
            takes: format!("{own}, or pixels as UINT8 [n,h,w] or [n,h,w,c]{encoded}"),
        })
    }

    /// Pixels `[n,h,w,c]`: `size` is `[h,w,c]`.
    fn pixels(
        &self,
        input: &Tensor,
        size: [i64; 3],
        moment: &Moment<'_>,
    ) -> Result<Tensor, RunError> {
        let item_len = size.iter().try_fold(1usize, |product, dimension| {
            product.checked_mul(usize::try_from(*dimension).ok()?)
        });
        let item_len = item_len.filter(|len| *len > 0).ok_or_else(|| self.refuse(input))?;
        let pictures =
            input.data().chunks(item_len).map(|item| Picture::from_pixels(item, size, &self.plan));
        self.stack(pictures, moment)
    }

    fn encoded(&self, input: &Tensor, moment: &Moment<'_>) -> Result<Tensor, RunError> {
        let elements: Vec<Bytes> = input.byte_elements().collect();
        self.stack(elements.iter().map(|item| Picture::decode(item, &self.plan)), moment)
    }

    /// Runs the plan on each item and stacks the results.
    fn stack(
        &self,
        pictures: impl Iterator<Item = Result<Picture, ImageError>>,
        moment: &Moment<'_>,
    ) -> Result<Tensor, RunError> {
        let mut batch = Batch::default();
        for (item, picture) in pictures.enumerate() {
            let added = picture
                .and_then(|p| p.shape_up(&self.plan))
                .and_then(|p| batch.add(&p, &self.plan));
            added.map_err(|source| RunError::Image { input: self.input.clone(), item, source })?;
            moment.check()?;
        }
        batch.into_tensor(&self.spec.name, &self.plan)
    }
}

/// The items so far, as little-endian `f32`.
#[derive(Default)]
struct Batch {
    data: Vec<u8>,
    items: i64,
    /// Height, width and channels of the first item, and so of all.
    size: [u32; 3],
}

impl Batch {
    fn add(&mut self, picture: &Picture, plan: &Plan) -> Result<(), ImageError> {
        let size = picture.size();
        if self.items > 0 && size != self.size {
            return Err(ImageError::Sizes { first: self.size, this: size });
        }
        let grown = self.data.len() as u64 + picture.len() as u64 * 4;
        if grown > TENSORS_MAX_BYTES {
            return Err(ImageError::Batch { size_bytes: grown });
        }
        (self.size, self.items) = (size, self.items + 1);
        plan.write(picture, &mut self.data)
    }

    fn into_tensor(self, name: &str, plan: &Plan) -> Result<Tensor, RunError> {
        let shape = plan.shape(self.items, self.size);
        let build = || Tensor::new(TensorMeta::new(name, DataType::Fp32, shape)?, self.data.into());
        build().map_err(|e| RunError::Failed(e.to_string()))
    }
}

#[cfg(test)]
mod tests;
