//! A pipeline's steps, checked once at load and put in the only order that makes sense: decode,
//! geometry on pixels, then numbers.

use protocol::manifest::{Color, Layout, Step};

use super::picture::{ImageError, Picture};

/// A pipeline in the form in which it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The colours to decode to; `None` leaves encoded images out.
    pub color: Option<Color>,
    /// Changes of size, in order.
    pub geometry: Vec<Geometry>,
    /// The order of the result's axes; `[n,h,w,c]` unless a step says otherwise.
    pub layout: Layout,
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// A change of size, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the manifest's steps of the same names
pub enum Geometry {
    ResizeShorter { size: u32 },
    Resize { width: u32, height: u32 },
    CenterCrop { width: u32, height: u32 },
}

/// Why a pipeline is refused at load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPipeline {
    /// It feeds something that is no input.
    #[error("a pipeline feeds {0:?}, which is no input of the model")]
    Input(String),
    /// It feeds an input that is no batch of images.
    #[error("a pipeline makes FP32 of 4 dimensions, but the input {0:?} takes something else")]
    Target(String),
    /// Steps in another order, or one of them twice.
    #[error(
        "the step {0} stands in the wrong place; the order is decode, resizes and crops, \
         normalize, layout"
    )]
    Order(&'static str),
    /// A size of 0.
    #[error("the step {0} has a size of 0")]
    Size(&'static str),
    /// Numbers that cannot be divided by, or of another count than there are channels.
    #[error("normalize needs one mean and std for all channels or one for each, and no std of 0")]
    Normalize,
}

/// Where in the order a step stands, and its name.
fn place(step: &Step) -> (u8, &'static str) {
    match step {
        Step::Decode { .. } => (0, "decode"),
        Step::ResizeShorter { .. } => (1, "resize-shorter"),
        Step::Resize { .. } => (1, "resize"),
        Step::CenterCrop { .. } => (1, "center-crop"),
        Step::Normalize { .. } => (2, "normalize"),
        Step::Layout { .. } => (3, "layout"),
    }
}

fn check_order(steps: &[Step]) -> Result<(), InvalidPipeline> {
    for pair in steps.windows(2) {
        let ((before, _), (after, name)) = (place(&pair[0]), place(&pair[1]));
        if after < before || (after == before && after != 1) {
            return Err(InvalidPipeline::Order(name));
        }
    }
    Ok(())
}

impl Plan {
    /// Checks the steps.
    ///
    /// # Errors
    /// [`InvalidPipeline`].
    pub fn new(steps: &[Step]) -> Result<Self, InvalidPipeline> {
        check_order(steps)?;
        let (mean, std) = (vec![0.0], vec![1.0]);
        let mut plan = Self { color: None, geometry: Vec::new(), layout: Layout::Nhwc, mean, std };
        for step in steps {
            plan.take(step);
        }
        plan.check_geometry()?;
        plan.check_numbers()?;
        Ok(plan)
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Decode { color } => self.color = Some(*color),
            Step::ResizeShorter { size } => {
                self.geometry.push(Geometry::ResizeShorter { size: *size });
            }
            &Step::Resize { width, height } => {
                self.geometry.push(Geometry::Resize { width, height });
            }
            &Step::CenterCrop { width, height } => {
                self.geometry.push(Geometry::CenterCrop { width, height });
            }
            Step::Normalize { mean, std } => {
                (self.mean, self.std) = (mean.clone(), std.clone());
            }
            Step::Layout { order } => self.layout = *order,
        }
    }

    fn check_geometry(&self) -> Result<(), InvalidPipeline> {
        for geometry in &self.geometry {
            match geometry {
                Geometry::ResizeShorter { size: 0 } => {
                    return Err(InvalidPipeline::Size("resize-shorter"));
                }
                Geometry::Resize { width: 0, .. } | Geometry::Resize { height: 0, .. } => {
                    return Err(InvalidPipeline::Size("resize"));
                }
                Geometry::CenterCrop { width: 0, .. } | Geometry::CenterCrop { height: 0, .. } => {
                    return Err(InvalidPipeline::Size("center-crop"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), InvalidPipeline> {
        let count = |len: usize| match self.color {
            Some(color) => len == 1 || len == usize::from(channels(color)),
            None => len == 1 || len == 3,
        };
        let usable =
            self.std.iter().all(|s| s.is_normal()) && self.mean.iter().all(|m| m.is_finite());
        if self.mean.len() == self.std.len() && count(self.mean.len()) && usable {
            return Ok(());
        }
        Err(InvalidPipeline::Normalize)
    }

    /// The result's shape for so many items of that height, width and channels.
    pub(super) fn shape(&self, items: i64, [height, width, channels]: [u32; 3]) -> Vec<i64> {
        let [height, width, channels] = [height, width, channels].map(i64::from);
        match self.layout {
            Layout::Nchw => vec![items, channels, height, width],
            Layout::Nhwc => vec![items, height, width, channels],
        }
    }

    /// Writes `(x - mean) / std` of one picture as little-endian `f32`, in the plan's layout.
    pub(super) fn write(&self, picture: &Picture, out: &mut Vec<u8>) -> Result<(), ImageError> {
        let channels = picture.size()[2] as usize;
        if self.mean.len() > 1 && self.mean.len() != channels {
            return Err(ImageError::Channels { expected: self.mean.len(), actual: channels });
        }
        let pixels = picture.pixels();
        let number = |index: usize, channel: usize| {
            let which = channel.min(self.mean.len() - 1);
            ((f32::from(pixels[index]) - self.mean[which]) / self.std[which]).to_le_bytes()
        };
        out.reserve(pixels.len() * 4);
        match self.layout {
            Layout::Nhwc => {
                out.extend((0..pixels.len()).flat_map(|index| number(index, index % channels)));
            }
            Layout::Nchw => {
                for channel in 0..channels {
                    let plane = (channel..pixels.len()).step_by(channels);
                    out.extend(plane.flat_map(|index| number(index, channel)));
                }
            }
        }
        Ok(())
    }
}

/// How many channels a colour has.
pub(super) fn channels(color: Color) -> u8 {
    match color {
        Color::Gray => 1,
        Color::Rgb => 3,
    }
}
