//! From what an application has to what a model takes: runs the manifest's pipelines.
//!
//! The input's datatype decides. What the model takes as it is goes through unchanged; `UINT8`
//! `[n,h,w]` or `[n,h,w,c]` is pixels and skips decoding; `BYTES` `[n]` is encoded images. The
//! result is one `FP32` tensor, `[n,c,h,w]` or `[n,h,w,c]`.
//!
//! Read [`plan`] for what a pipeline may say, [`picture`] for decoding and geometry.

use bytes::Bytes;
use protocol::limits::TENSORS_MAX_BYTES;
use protocol::manifest::{Pipeline, TensorSpec};
use protocol::tensor::{DataType, Tensor, TensorMeta};

use crate::backend::describe_type;
use crate::error::{InvalidRequest, RunError};

mod jpeg;
pub mod picture;
pub mod plan;

use picture::Picture;
pub use picture::{ENCODED_MAX_BYTES, ImageError, PIXELS_MAX, SIDE_MAX};
pub use plan::InvalidPipeline;
use plan::Plan;

/// The pipelines of one model, checked.
#[derive(Debug, Clone, Default)]
pub struct Preprocess {
    feeds: Vec<Feed>,
}

#[derive(Debug, Clone)]
struct Feed {
    spec: TensorSpec,
    plan: Plan,
}

impl Preprocess {
    /// Checks the pipelines of a model with these inputs.
    ///
    /// # Errors
    /// [`InvalidPipeline`].
    pub fn new(pipelines: &[Pipeline], inputs: &[TensorSpec]) -> Result<Self, InvalidPipeline> {
        let mut feeds = Vec::with_capacity(pipelines.len());
        for pipeline in pipelines {
            let spec = inputs.iter().find(|spec| spec.name == pipeline.input).cloned();
            let spec = spec.ok_or_else(|| InvalidPipeline::Input(pipeline.input.clone()))?;
            if spec.datatype != DataType::Fp32 || spec.shape.len() != 4 {
                return Err(InvalidPipeline::Target(pipeline.input.clone()));
            }
            feeds.push(Feed { spec, plan: Plan::new(&pipeline.steps)? });
        }
        Ok(Self { feeds })
    }

    /// Turns an application's inputs into the model's. Inputs without a pipeline, and those that
    /// the model takes as they are, go through uncopied.
    ///
    /// # Errors
    /// [`RunError::Request`] or [`RunError::Image`].
    pub fn apply(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        inputs.iter().map(|input| self.apply_one(input)).collect()
    }

    fn apply_one(&self, input: &Tensor) -> Result<Tensor, RunError> {
        match self.feeds.iter().find(|feed| feed.spec.name == input.name()) {
            Some(feed) if !feed.spec.accepts(input.datatype(), input.shape()) => feed.apply(input),
            _ => Ok(input.clone()),
        }
    }
}

impl Feed {
    fn apply(&self, input: &Tensor) -> Result<Tensor, RunError> {
        match (input.datatype(), input.shape()) {
            (_, [0, ..]) => Err(self.refuse(input)),
            (DataType::Uint8, &[_, height, width]) => self.pixels(input, [height, width, 1]),
            (DataType::Uint8, &[_, height, width, channels]) => {
                self.pixels(input, [height, width, channels])
            }
            (DataType::Bytes, &[_]) if self.plan.color.is_some() => self.encoded(input),
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
    fn pixels(&self, input: &Tensor, size: [i64; 3]) -> Result<Tensor, RunError> {
        let item_len = size.iter().try_fold(1usize, |product, dimension| {
            product.checked_mul(usize::try_from(*dimension).ok()?)
        });
        let item_len = item_len.filter(|len| *len > 0).ok_or_else(|| self.refuse(input))?;
        let pictures =
            input.data().chunks(item_len).map(|item| Picture::from_pixels(item, size, &self.plan));
        self.stack(pictures)
    }

    fn encoded(&self, input: &Tensor) -> Result<Tensor, RunError> {
        let elements: Vec<Bytes> = input.byte_elements().collect();
        self.stack(elements.iter().map(|item| Picture::decode(item, &self.plan)))
    }

    /// Runs the plan on each item and stacks the results.
    fn stack(
        &self,
        pictures: impl Iterator<Item = Result<Picture, ImageError>>,
    ) -> Result<Tensor, RunError> {
        let mut batch = Batch::default();
        for (item, picture) in pictures.enumerate() {
            let added = picture
                .and_then(|p| p.shape_up(&self.plan))
                .and_then(|p| batch.add(&p, &self.plan));
            added.map_err(|source| RunError::Image {
                input: self.spec.name.clone(),
                item,
                source,
            })?;
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
