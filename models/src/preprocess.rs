//! From what an application has to what a model takes: runs the manifest's pipelines.
//!
//! The input's datatype decides. What the model takes as it is goes through unchanged. `BYTES` is
//! what a file or a text is: encoded images, WAV files, UTF-8. Pixels and samples may come as
//! numbers. Each kind has its module and its feature: `image`, `audio` and `text`; [`steps`] is what a pipeline may say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use protocol::manifest::{Manifest, Pipeline, TensorSpec};
use protocol::tensor::Tensor;

use crate::error::{InvalidRequest, RunError};

#[cfg(feature = "audio")]
pub mod audio;
#[cfg(feature = "image")]
pub mod image;
#[cfg_attr(not(all(feature = "audio", feature = "text", feature = "image")), allow(dead_code))]
pub mod steps;
#[cfg(feature = "text")]
pub mod text;

pub use steps::InvalidPipeline;
use steps::Kind;

/// The bundle's files that steps read, by name.
pub type StepFiles = BTreeMap<String, Vec<u8>>;

/// The pipelines of one model, checked. Clones share what is large.
#[derive(Debug, Clone, Default)]
pub struct Preprocess(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    feeds: Vec<Feed>,
    /// What the model itself takes.
    inputs: Vec<TensorSpec>,
    /// What an application sends, for messages.
    served: Vec<TensorSpec>,
}

/// What feeds one or several inputs of the model from one of an application's.
#[derive(Debug)]
struct Feed {
    input: String,
    /// What the model takes under the same name.
    own: Option<TensorSpec>,
    /// The inputs that are fed.
    targets: Vec<String>,
    make: Make,
}

#[derive(Debug)]
#[cfg_attr(not(any(feature = "audio", feature = "text", feature = "image")), allow(dead_code))]
enum Make {
    #[cfg(feature = "image")]
    Image(image::ImageFeed),
    #[cfg(feature = "audio")]
    Audio(audio::AudioFeed),
    #[cfg(feature = "text")]
    Text(text::TextFeed),
    /// A build without any kind makes nothing.
    #[cfg(not(any(feature = "audio", feature = "text", feature = "image")))]
    Nothing(std::convert::Infallible),
}

/// The model's inputs, ready but for constants and state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prepared {
    /// Inputs that are the same in every run of the request.
    pub tensors: Vec<Tensor>,
    /// The input that holds frames.
    pub frames: Option<Frames>,
}

/// Frames of a sound: the model's batch, or one run each.
#[derive(Debug, Clone, PartialEq)]
pub struct Frames {
    /// All frames, `FP32` `[frames, ...]` under the name of the model's input.
    pub tensor: Tensor,
    /// The samples from which the next piece of a stream goes on.
    pub tail: Vec<f32>,
}

/// When a request is worked on: at which place of a stream, and for how long.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment<'m> {
    /// The samples that an earlier piece of the same stream left over; without it the request is a
    /// whole.
    pub tail: Option<&'m [f32]>,
    /// It is the stream's last piece: what fills no frame is padded with silence, as in a whole.
    pub last: bool,
    /// When the answer stops being of use. Looked at between two items, so that many small files
    /// that unpack to large ones cost no more than one of them beyond it.
    pub deadline: Option<Instant>,
}

#[cfg_attr(not(any(feature = "audio", feature = "text", feature = "image")), allow(dead_code))]
impl Moment<'_> {
    pub(crate) fn check(&self) -> Result<(), RunError> {
        let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        if late { Err(RunError::Expired) } else { Ok(()) }
    }
}

impl Preprocess {
    /// Checks the pipelines of a model; `files` holds at least those that the steps read.
    ///
    /// # Errors
    /// [`InvalidPipeline`].
    pub fn new(manifest: &Manifest, files: &StepFiles) -> Result<Self, InvalidPipeline> {
        let served = manifest.served_inputs();
        Self::build((&manifest.preprocess, files), &manifest.inputs, served)
    }

    /// The same for a model without a manifest; `inputs` are what the model itself takes.
    ///
    /// # Errors
    /// [`InvalidPipeline`].
    pub fn for_inputs(
        pipelines: &[Pipeline],
        inputs: &[TensorSpec],
        files: &StepFiles,
    ) -> Result<Self, InvalidPipeline> {
        Self::build((pipelines, files), inputs, inputs.to_vec())
    }

    fn build(
        (pipelines, files): (&[Pipeline], &StepFiles),
        inputs: &[TensorSpec],
        served: Vec<TensorSpec>,
    ) -> Result<Self, InvalidPipeline> {
        let feeds = pipelines.iter().map(|p| Feed::new(p, inputs, files));
        let feeds: Vec<Feed> = feeds.collect::<Result<_, _>>()?;
        if feeds.iter().filter(|feed| feed.cuts_frames()).count() > 1 {
            return Err(InvalidPipeline::Frames);
        }
        let inputs = inputs.to_vec();
        Ok(Self(Arc::new(Parts { feeds, inputs, served })))
    }

    /// Turns an application's inputs into the model's. Inputs without a pipeline, and those that
    /// the model takes as they are, go through uncopied.
    ///
    /// # Errors
    /// [`RunError`] of a request that cannot be used.
    pub fn apply(&self, inputs: &[Tensor], moment: &Moment<'_>) -> Result<Prepared, RunError> {
        let mut prepared = Prepared::default();
        for input in inputs {
            match self.0.feeds.iter().find(|feed| feed.input == input.name()) {
                Some(feed) if !feed.accepts_as_it_is(input) => {
                    feed.apply(input, moment, &mut prepared)?;
                }
                _ => prepared.tensors.push(self.known(input)?.clone()),
            }
        }
        self.check_fed(inputs, &prepared)?;
        Ok(prepared)
    }

    /// Whether all of these inputs go through unchanged.
    pub fn takes_as_it_is(&self, inputs: &[Tensor]) -> bool {
        inputs.iter().all(|input| {
            let feed = self.0.feeds.iter().find(|feed| feed.input == input.name());
            feed.is_none_or(|feed| feed.accepts_as_it_is(input))
        })
    }

    /// Whether an input is cut into frames.
    pub fn cuts_frames(&self) -> bool {
        self.0.feeds.iter().any(Feed::cuts_frames)
    }

    fn known<'t>(&self, input: &'t Tensor) -> Result<&'t Tensor, InvalidRequest> {
        let known = self.0.inputs.iter().any(|spec| spec.name == input.name());
        if known || self.0.inputs.is_empty() {
            return Ok(input);
        }
        Err(InvalidRequest::unknown_input(input.name(), &self.0.served))
    }

    /// Names the application's own input where nothing has fed the model's.
    fn check_fed(&self, inputs: &[Tensor], prepared: &Prepared) -> Result<(), InvalidRequest> {
        for feed in &self.0.feeds {
            let sent = inputs.iter().any(|input| input.name() == feed.input);
            let fed = |target: &String| prepared.tensors.iter().any(|t| t.name() == target);
            if !sent && !feed.targets.iter().any(fed) {
                return Err(InvalidRequest::missing_input(&feed.input, &self.0.served));
            }
        }
        Ok(())
    }
}

impl Feed {
    fn new(
        pipeline: &Pipeline,
        inputs: &[TensorSpec],
        files: &StepFiles,
    ) -> Result<Self, InvalidPipeline> {
        let kind = Kind::of(&pipeline.steps);
        steps::check_order(kind, &pipeline.steps)?;
        let feed = Self {
            input: pipeline.input.clone(),
            own: inputs.iter().find(|spec| spec.name == pipeline.input).cloned(),
            targets: pipeline.feeds().map(|(_, target)| target.to_owned()).collect(),
            make: Make::new(kind, pipeline, inputs, files)?,
        };
        if feed.cuts_frames() && feed.own.is_some() {
            return Err(InvalidPipeline::Ambiguous(feed.input));
        }
        Ok(feed)
    }

    fn cuts_frames(&self) -> bool {
        match &self.make {
            #[cfg(feature = "audio")]
            Make::Audio(audio) => audio.cuts_frames(),
            _ => false,
        }
    }

    fn accepts_as_it_is(&self, input: &Tensor) -> bool {
        self.own.as_ref().is_some_and(|spec| spec.accepts(input.datatype(), input.shape()))
    }

    #[cfg_attr(
        not(any(feature = "audio", feature = "text", feature = "image")),
        allow(unused_variables, unreachable_code)
    )]
    fn apply(
        &self,
        input: &Tensor,
        moment: &Moment<'_>,
        prepared: &mut Prepared,
    ) -> Result<(), RunError> {
        match &self.make {
            #[cfg(feature = "image")]
            Make::Image(image) => prepared.tensors.push(image.apply(input, moment)?),
            #[cfg(feature = "audio")]
            Make::Audio(audio) => audio.apply(input, moment, prepared)?,
            #[cfg(feature = "text")]
            Make::Text(text) => prepared.tensors.extend(text.apply(input, moment)?),
            #[cfg(not(any(feature = "audio", feature = "text", feature = "image")))]
            Make::Nothing(never) => match *never {},
        }
        Ok(())
    }
}

impl Make {
    #[cfg_attr(
        not(all(feature = "audio", feature = "text", feature = "image")),
        allow(unused_variables)
    )]
    fn new(
        kind: Kind,
        pipeline: &Pipeline,
        inputs: &[TensorSpec],
        files: &StepFiles,
    ) -> Result<Self, InvalidPipeline> {
        match kind {
            #[cfg(feature = "image")]
            Kind::Image => Ok(Self::Image(image::ImageFeed::new(pipeline, inputs)?)),
            #[cfg(not(feature = "image"))]
            Kind::Image => Err(InvalidPipeline::NotBuilt("image")),
            #[cfg(feature = "audio")]
            Kind::Audio => Ok(Self::Audio(audio::AudioFeed::new(pipeline, inputs)?)),
            #[cfg(not(feature = "audio"))]
            Kind::Audio => Err(InvalidPipeline::NotBuilt("audio")),
            #[cfg(feature = "text")]
            Kind::Text => Ok(Self::Text(text::TextFeed::new(pipeline, inputs, files)?)),
            #[cfg(not(feature = "text"))]
            Kind::Text => Err(InvalidPipeline::NotBuilt("text")),
        }
    }
}

#[cfg(test)]
mod tests;
