//! What a pipeline may say: which kind of thing its steps are about, in which order they stand, and
//! which parts of the result go to which inputs. Checked once, at load.

use protocol::manifest::{Part, Pipeline, Step, TensorSpec};
use protocol::tensor::DataType;

/// Why a pipeline is refused at load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPipeline {
    /// It feeds something that is no input.
    #[error("a pipeline feeds {0:?}, which is no input of the model")]
    Input(String),
    /// It feeds an input that takes something else.
    #[error("a pipeline makes {makes}, but the input {input:?} takes something else")]
    Target {
        /// The input.
        input: String,
        /// What the pipeline makes.
        makes: &'static str,
    },
    /// Parts that its kind does not have, or none that its kind needs.
    #[error("the pipeline of {input:?} has the wrong targets; it makes {has}")]
    Parts {
        /// The application's input.
        input: String,
        /// What its kind has.
        has: &'static str,
    },
    /// Steps in another order, or one of them twice, or of different kinds.
    #[error("the step {step} stands in the wrong place; the order is {order}")]
    Order {
        /// The step.
        step: &'static str,
        /// The steps of this kind.
        order: &'static str,
    },
    /// A size outside its limits.
    #[error("the step {step} has a number outside its limits: {limits}")]
    Size {
        /// The step.
        step: &'static str,
        /// What it may be.
        limits: &'static str,
    },
    /// A step that needs another one.
    #[error("the step {step} needs the step {needs} as well")]
    Needs {
        /// The step.
        step: &'static str,
        /// The one that is absent.
        needs: &'static str,
    },
    /// Numbers that cannot be divided by, or of another count than there are channels.
    #[error(
        "normalize needs one mean and std for all channels (or bands) or one for each, and no std \
         of 0"
    )]
    Normalize,
    /// Frames under a name under which the model takes frames too.
    #[error(
        "the pipeline of {0:?} cuts frames, so its input needs another name than the model's: a \
         request could mean either"
    )]
    Ambiguous(String),
    /// Two pipelines that cut frames.
    #[error("only one pipeline of a model can cut frames")]
    Frames,
    /// A tokenizer that cannot be used.
    #[error("the tokenizer {file:?} is unusable: {reason}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A step that was left out of this build.
    #[error(
        "this program was built without the feature {0:?}, which this model's pipeline needs; \
         install one that was built with it"
    )]
    NotBuilt(&'static str),
}

/// What a pipeline takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Audio,
    Text,
}

impl Kind {
    pub(super) fn of(steps: &[Step]) -> Self {
        let kinds = |kind| steps.iter().any(|step| place(step).0 == Some(kind));
        [Self::Text, Self::Audio].into_iter().find(|kind| kinds(*kind)).unwrap_or(Self::Image)
    }

    fn order(self) -> &'static str {
        match self {
            Self::Image => "decode, resizes and crops, normalize, layout",
            Self::Audio => "decode-wav, resample, fit, frame or log-mel, normalize",
            Self::Text => "tokenize",
        }
    }
}

/// The kind that a step belongs to (`None`: several), where in its order it stands, and its name.
fn place(step: &Step) -> (Option<Kind>, u8, &'static str) {
    match step {
        Step::Decode { .. } => (Some(Kind::Image), 0, "decode"),
        Step::ResizeShorter { .. } => (Some(Kind::Image), GEOMETRY, "resize-shorter"),
        Step::Resize { .. } => (Some(Kind::Image), GEOMETRY, "resize"),
        Step::CenterCrop { .. } => (Some(Kind::Image), GEOMETRY, "center-crop"),
        Step::Layout { .. } => (Some(Kind::Image), 6, "layout"),
        Step::DecodeWav => (Some(Kind::Audio), 0, "decode-wav"),
        Step::Resample { .. } => (Some(Kind::Audio), 2, "resample"),
        Step::Fit { .. } => (Some(Kind::Audio), 3, "fit"),
        Step::Frame { .. } => (Some(Kind::Audio), 4, "frame"),
        Step::LogMel(_) => (Some(Kind::Audio), 4, "log-mel"),
        Step::Tokenize { .. } => (Some(Kind::Text), 0, "tokenize"),
        Step::Normalize { .. } => (None, 5, "normalize"),
    }
}

/// The place of changes of size, of which there may be several.
const GEOMETRY: u8 = 1;

/// Refuses steps of another kind, in another order, or twice.
pub(super) fn check_order(kind: Kind, steps: &[Step]) -> Result<(), InvalidPipeline> {
    let mut last = None;
    for step in steps {
        let (own, this, name) = place(step);
        let foreign = own.is_some_and(|own| own != kind) || (own.is_none() && kind == Kind::Text);
        if foreign || last.is_some_and(|last| this < last || (this == last && this != GEOMETRY)) {
            return Err(InvalidPipeline::Order { step: name, order: kind.order() });
        }
        last = Some(this);
    }
    Ok(())
}

/// The one input that takes the numbers of an image or a sound: `FP32` of one of these ranks.
pub(super) fn values_target<'m>(
    pipeline: &Pipeline,
    inputs: &'m [TensorSpec],
    ranks: &[usize],
    makes: &'static str,
) -> Result<&'m TensorSpec, InvalidPipeline> {
    let feeds: Vec<(Part, &str)> = pipeline.feeds().collect();
    let [(Part::Values, name)] = feeds.as_slice() else {
        return Err(InvalidPipeline::Parts { input: pipeline.input.clone(), has: "values" });
    };
    let spec = target(name, inputs)?;
    if spec.datatype != DataType::Fp32 || !ranks.contains(&spec.shape.len()) {
        return Err(InvalidPipeline::Target { input: spec.name.clone(), makes });
    }
    Ok(spec)
}

/// The model's input of that name.
pub(super) fn target<'m>(
    name: &str,
    inputs: &'m [TensorSpec],
) -> Result<&'m TensorSpec, InvalidPipeline> {
    let spec = inputs.iter().find(|spec| spec.name == name);
    spec.ok_or_else(|| InvalidPipeline::Input(name.to_owned()))
}

/// Whether each number can become `(x - mean) / std`, with one pair or `channels` pairs.
pub(super) fn check_normalize(
    mean: &[f32],
    std: &[f32],
    channels: &[usize],
) -> Result<(), InvalidPipeline> {
    let usable = std.iter().all(|s| s.is_normal()) && mean.iter().all(|m| m.is_finite());
    let count = mean.len() == 1 || channels.contains(&mean.len());
    let good = mean.len() == std.len() && count && usable;
    good.then_some(()).ok_or(InvalidPipeline::Normalize)
}
