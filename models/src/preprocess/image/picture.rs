//! One image: decoded with its dimensions bounded before anything is allocated for them, resized,
//! cropped.
//!
//! Scaling widens the filter when shrinking (as Pillow's `BILINEAR` and `BICUBIC` do). Grey is
//! Rec. 709 luma. A rotation that the file's EXIF block asks for is not applied.

use std::io::{Cursor, ErrorKind};

use image::imageops::FilterType;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use protocol::manifest::{Color, Filter};

use super::jpeg;
use super::plan::{Geometry, Plan, channels};
use crate::error::ImageError;
use crate::error::image::{ENCODED_MAX_BYTES, PIXELS_MAX, SIDE_MAX};

/// What a decoder may allocate: [`PIXELS_MAX`] of 8 bytes each.
const DECODER_MAX_BYTES: u64 = PIXELS_MAX * 8;
/// What lies between the two passes of a resize, in pixels of 16 bytes.
const RESIZE_MAX_PIXELS: u64 = PIXELS_MAX / 4;

/// An image of 8-bit grey or RGB pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture(DynamicImage);

fn check_size(width: u32, height: u32) -> Result<(), ImageError> {
    let fits = width.max(height) <= SIDE_MAX && u64::from(width) * u64::from(height) <= PIXELS_MAX;
    if fits { Ok(()) } else { Err(ImageError::Pixels { width, height }) }
}

fn to_color(image: &DynamicImage, color: Color) -> DynamicImage {
    match color {
        Color::Gray => image.to_luma8().into(),
        Color::Rgb => image.to_rgb8().into(),
    }
}

fn decoding_error(error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Truncated
        }
        other => ImageError::Damaged(other.to_string().trim_end().to_owned()),
    }
}

impl Picture {
    /// Decodes a JPEG or PNG file into the plan's colours.
    ///
    /// # Errors
    /// [`ImageError`].
    pub fn decode(file: &[u8], plan: &Plan) -> Result<Self, ImageError> {
        if file.len() > ENCODED_MAX_BYTES {
            return Err(ImageError::Encoded { size_bytes: file.len() });
        }
        let format = image::guess_format(file).map_err(|_| ImageError::Format)?;
        if !matches!(format, ImageFormat::Jpeg | ImageFormat::Png) {
            return Err(ImageError::Format);
        }
        if format == ImageFormat::Jpeg && !jpeg::is_whole(file) {
            return Err(ImageError::Truncated);
        }
        let mut reader = ImageReader::with_format(Cursor::new(file), format);
        let mut limits = Limits::default();
        limits.max_alloc = Some(DECODER_MAX_BYTES);
        reader.limits(limits);
        let decoder = reader.into_decoder().map_err(decoding_error)?;
        let (width, height) = decoder.dimensions();
        check_size(width, height)?;
        let image = DynamicImage::from_decoder(decoder).map_err(decoding_error)?;
        Ok(Self(to_color(&image, plan.color.unwrap_or(Color::Rgb))))
    }

    /// Takes pixels as they are; `size` is `[h,w,c]`.
    ///
    /// # Errors
    /// [`ImageError::Channels`] or [`ImageError::Pixels`].
    pub fn from_pixels(pixels: &[u8], size: [i64; 3], plan: &Plan) -> Result<Self, ImageError> {
        let [height, width, depth] = size.map(|d| u32::try_from(d).unwrap_or(u32::MAX));
        check_size(width, height)?;
        let expected = plan.color.map(channels);
        let wrong = |expected: u8| ImageError::Channels {
            expected: usize::from(expected),
            actual: depth as usize,
        };
        if let Some(expected) = expected.filter(|e| u32::from(*e) != depth) {
            return Err(wrong(expected));
        }
        let image = match depth {
            1 => GrayImage::from_raw(width, height, pixels.to_vec()).map(DynamicImage::from),
            _ => RgbImage::from_raw(width, height, pixels.to_vec()).map(DynamicImage::from),
        };
        image.filter(|i| u32::from(i.color().channel_count()) == depth).map(Self).ok_or(wrong(3))
    }

    /// Runs the plan's changes of size.
    ///
    /// # Errors
    /// [`ImageError::Pixels`] or [`ImageError::Crop`].
    pub fn shape_up(mut self, plan: &Plan) -> Result<Self, ImageError> {
        for geometry in &plan.geometry {
            self = match *geometry {
                Geometry::Resize { width, height, filter } => self.resize(width, height, filter)?,
                Geometry::ResizeShorter { size, filter } => {
                    let (width, height) = scale_shorter(self.0.width(), self.0.height(), size);
                    self.resize(width, height, filter)?
                }
                Geometry::CenterCrop { width, height } => self.crop(width, height)?,
            };
        }
        Ok(self)
    }

    fn resize(self, width: u32, height: u32, filter: Filter) -> Result<Self, ImageError> {
        check_size(width, height)?;
        if u64::from(self.0.width()) * u64::from(height) > RESIZE_MAX_PIXELS {
            return Err(ImageError::Pixels { width: self.0.width(), height });
        }
        if (self.0.width(), self.0.height()) == (width, height) {
            return Ok(self);
        }
        let filter = match filter {
            Filter::Bilinear => FilterType::Triangle,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        Ok(Self(self.0.resize_exact(width, height, filter)))
    }

    fn crop(self, width: u32, height: u32) -> Result<Self, ImageError> {
        let (own_width, own_height) = (self.0.width(), self.0.height());
        if width > own_width || height > own_height {
            return Err(ImageError::Crop { width: own_width, height: own_height });
        }
        let (x, y) = ((own_width - width) / 2, (own_height - height) / 2);
        Ok(Self(self.0.crop_imm(x, y, width, height)))
    }

    /// Height, width and channels.
    pub fn size(&self) -> [u32; 3] {
        [self.0.height(), self.0.width(), u32::from(self.0.color().channel_count())]
    }

    /// The pixels, `[h,w,c]` row-major.
    pub fn pixels(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// How many numbers the pixels are.
    pub fn len(&self) -> usize {
        self.pixels().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pixels().is_empty()
    }
}

/// The size with `size` pixels along the shorter side, the longer one rounded.
fn scale_shorter(width: u32, height: u32, size: u32) -> (u32, u32) {
    let shorter = u64::from(width.min(height).max(1));
    let scale = |side: u32| {
        let scaled = (u64::from(side) * u64::from(size) + shorter / 2) / shorter;
        u32::try_from(scaled).unwrap_or(u32::MAX)
    };
    if width <= height { (size, scale(height)) } else { (scale(width), size) }
}
