//! An image pipeline's steps, checked once at load: decode, geometry on pixels, then numbers.

use protocol::manifest::{Color, Filter, Layout, Step};

use super::super::steps::{InvalidPipeline, check_normalize};
use super::picture::Picture;
use crate::error::ImageError;

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
    ResizeShorter { size: u32, filter: Filter },
    Resize { width: u32, height: u32, filter: Filter },
    CenterCrop { width: u32, height: u32 },
}

impl Plan {
    /// Checks the steps, which stand in their order.
    ///
    /// # Errors
    /// [`InvalidPipeline`].
    pub fn new(steps: &[Step]) -> Result<Self, InvalidPipeline> {
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
            &Step::ResizeShorter { size, filter } => {
                self.geometry.push(Geometry::ResizeShorter { size, filter });
            }
            &Step::Resize { width, height, filter } => {
                self.geometry.push(Geometry::Resize { width, height, filter });
            }
            &Step::CenterCrop { width, height } => {
                self.geometry.push(Geometry::CenterCrop { width, height });
            }
            Step::Normalize { mean, std } => {
                (self.mean, self.std) = (mean.clone(), std.clone());
            }
            Step::Layout { order } => self.layout = *order,
            _ => {} // of another kind, and so refused before
        }
    }

    fn check_geometry(&self) -> Result<(), InvalidPipeline> {
        for geometry in &self.geometry {
            let (step, smallest) = match *geometry {
                Geometry::ResizeShorter { size, .. } => ("resize-shorter", size),
                Geometry::Resize { width, height, .. } => ("resize", width.min(height)),
                Geometry::CenterCrop { width, height } => ("center-crop", width.min(height)),
            };
            if smallest == 0 {
                return Err(InvalidPipeline::Size { step, limits: "at least 1 pixel" });
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), InvalidPipeline> {
        let channels = self.color.map_or(3, |color| usize::from(channels(color)));
        check_normalize(&self.mean, &self.std, &[channels])
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
