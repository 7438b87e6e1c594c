use super::super::steps::{self, Kind};
use super::*;
use crate::error::image::ENCODED_MAX_BYTES;
use ::image::{ExtendedColorType, ImageEncoder, codecs};
use protocol::manifest::{Color, Filter, Layout, Step};

fn feed(shape: &[i64], steps: &[Step]) -> ImageFeed {
    let spec = TensorSpec { name: "image".into(), datatype: DataType::Fp32, shape: shape.to_vec() };
    let pipeline =
        Pipeline { input: "image".into(), targets: Default::default(), steps: steps.to_vec() };
    ImageFeed::new(&pipeline, &[spec]).unwrap()
}

fn to_28() -> Vec<Step> {
    vec![
        Step::Decode { color: Color::Gray },
        Step::Resize { width: 28, height: 28, filter: Filter::Bilinear },
        Step::Normalize { mean: vec![0.0], std: vec![255.0] },
        Step::Layout { order: Layout::Nchw },
    ]
}

fn png(width: u32, height: u32, pixels: &[u8], color: ExtendedColorType) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = codecs::png::PngEncoder::new(&mut file);
    encoder.write_image(pixels, width, height, color).unwrap();
    file
}

fn jpeg(width: u32, height: u32) -> Vec<u8> {
    let pixels: Vec<u8> = (0..width * height).map(|i| (i * 7 % 251) as u8).collect();
    let mut file = Vec::new();
    let mut encoder = codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 95);
    encoder.encode(&pixels, width, height, ExtendedColorType::L8).unwrap();
    file
}

fn pixels(shape: &[i64]) -> Tensor {
    let len = usize::try_from(shape.iter().product::<i64>()).unwrap();
    let data: Vec<u8> = (0..len).map(|i| u8::try_from(i % 256).unwrap()).collect();
    let meta = TensorMeta::new("image", DataType::Uint8, shape.to_vec()).unwrap();
    Tensor::new(meta, data.into()).unwrap()
}

fn encoded(files: &[Vec<u8>]) -> Tensor {
    Tensor::from_byte_strings("image", vec![files.len() as i64], files).unwrap()
}

fn check_file(file: Vec<u8>) -> Result<Tensor, ImageError> {
    let input = encoded(&[file]);
    match feed(&[-1, 1, 28, 28], &to_28()).apply(&input, &Moment::default()) {
        Ok(tensor) => Ok(tensor),
        Err(RunError::Image { source, item: 0, .. }) => Err(source),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn pixels_and_png_give_the_same_numbers() {
    let raw = pixels(&[1, 28, 28]);
    let file = png(28, 28, raw.data(), ExtendedColorType::L8);
    let expected: Vec<f32> = raw.data().iter().map(|p| f32::from(*p) / 255.0).collect();
    let from_pixels = feed(&[-1, 1, 28, 28], &to_28()).apply(&raw, &Moment::default()).unwrap();
    assert_eq!(from_pixels.shape(), [1, 1, 28, 28]);
    assert_eq!(from_pixels.to_f32(), Some(expected));
    assert_eq!(check_file(file), Ok(from_pixels));
}

#[test]
fn channels_are_normalized_and_laid_out() {
    let rgb = pixels(&[1, 1, 2, 3]); // 0 1 2 | 3 4 5
    let normalize = Step::Normalize { mean: vec![0.0, 1.0, 2.0], std: vec![1.0, 2.0, 4.0] };
    let check = |order, shape: [i64; 4], expected: [f32; 6]| {
        let steps = [Step::Decode { color: Color::Rgb }, normalize.clone(), Step::Layout { order }];
        let out = feed(&[-1; 4], &steps).apply(&rgb, &Moment::default()).unwrap();
        assert_eq!((out.shape(), out.to_f32().unwrap()), (&shape[..], expected.to_vec()));
    };
    check(Layout::Nhwc, [1, 1, 2, 3], [0.0, 0.0, 0.0, 3.0, 1.5, 0.75]);
    check(Layout::Nchw, [1, 3, 1, 2], [0.0, 3.0, 0.0, 1.5, 0.0, 0.75]);
}

#[test]
fn shorter_side_then_middle() {
    let steps = [
        Step::ResizeShorter { size: 4, filter: Filter::Bilinear },
        Step::CenterCrop { width: 4, height: 4 },
    ];
    let out = feed(&[-1; 4], &steps).apply(&pixels(&[2, 8, 20]), &Moment::default()).unwrap();
    assert_eq!(out.shape(), [2, 4, 4, 1]);
    let small = feed(&[-1; 4], &steps[1..]).apply(&pixels(&[1, 3, 9]), &Moment::default());
    let source = ImageError::Crop { width: 9, height: 3 };
    assert_eq!(small, Err(RunError::Image { input: "image".into(), item: 0, source }));
}

#[test]
fn truncated_files_are_refused_at_every_length() {
    let noise: Vec<u8> =
        (0..1024u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for whole in [jpeg(32, 32), png(32, 32, &noise, ExtendedColorType::L8)] {
        assert!(check_file(whole.clone()).is_ok());
        let iend = if whole[0] == 0x89 { 12 } else { 0 }; // an empty last chunk
        for len in 0..whole.len() - iend {
            let result = check_file(whole[..len].to_vec());
            assert!(result.is_err(), "{len} of {}", whole.len());
        }
    }
    let cut = jpeg(32, 32);
    assert_eq!(check_file(cut[..cut.len() - 9].to_vec()), Err(ImageError::Truncated));
    assert_eq!(check_file(b"GIF89a......".to_vec()), Err(ImageError::Format));
}

/// A PNG header that promises `width` x `height` pixels and holds none.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut file = png(1, 1, &[0], ExtendedColorType::L8);
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&crc.to_be_bytes());
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 }
        })
    })
}

#[test]
fn a_decompression_bomb_is_refused_by_its_header() {
    for (width, height) in [(65_500, 65_500), (16_385, 1), (1, 60_000), (9_000, 9_000)] {
        let expected = Err(ImageError::Pixels { width, height });
        assert_eq!(check_file(bomb(width, height)), expected);
    }
    let size_bytes = ENCODED_MAX_BYTES + 1;
    assert_eq!(check_file(vec![0; size_bytes]), Err(ImageError::Encoded { size_bytes }));
}

#[test]
fn a_sliver_cannot_be_blown_up() {
    let steps = [Step::ResizeShorter { size: 224, filter: Filter::Bicubic }];
    let sliver = feed(&[-1; 4], &steps).apply(&pixels(&[1, 1, 16_384]), &Moment::default());
    let source = ImageError::Pixels { width: 3_670_016, height: 224 };
    assert_eq!(sliver, Err(RunError::Image { input: "image".into(), item: 0, source }));
}

#[test]
fn a_batch_is_bounded_and_even() {
    let unchanged = feed(&[-1; 4], &[Step::Decode { color: Color::Gray }]);
    let check = |input: Tensor| match unchanged.apply(&input, &Moment::default()) {
        Err(RunError::Image { item, source, .. }) => (item, source),
        other => panic!("{other:?}"),
    };
    let uneven = encoded(&[jpeg(8, 8), jpeg(8, 9)]);
    assert_eq!(check(uneven), (1, ImageError::Sizes { first: [8, 8, 1], this: [9, 8, 1] }));
    let large = pixels(&[5, 2_000, 2_000]);
    assert_eq!(check(large), (4, ImageError::Batch { size_bytes: 80_000_000 }));
    let colored = pixels(&[1, 2, 2, 3]);
    assert_eq!(check(colored), (0, ImageError::Channels { expected: 1, actual: 3 }));
}

#[test]
fn other_inputs_are_told_what_would_do() {
    let check = |input: Tensor| {
        feed(&[-1, 1, 28, 28], &to_28()).apply(&input, &Moment::default()).unwrap_err().to_string()
    };
    let expected = "the input \"image\" is FP32 [1,784]; the model takes FP32 [-1,1,28,28], or \
                    pixels as UINT8 [n,h,w] or [n,h,w,c], or JPEG or PNG files as BYTES [n], where \
                    -1 is any size";
    let flat = Tensor::from_f32("image", vec![1, 784], &[0.0; 784]).unwrap();
    assert_eq!(check(flat), expected);
    for shape in [vec![784], vec![0, 0, 28], vec![1, 1, 1, 1, 1]] {
        assert!(check(pixels(&shape)).contains("takes FP32"), "{shape:?}");
    }
}

#[test]
fn pipelines_are_checked_at_load() {
    let check = |steps: &[Step]| {
        steps::check_order(Kind::of(steps), steps).and_then(|()| Plan::new(steps)).unwrap_err()
    };
    let [decode, resize, normalize, layout] = <[Step; 4]>::try_from(to_28()).unwrap();
    let order = |steps: [&Step; 2]| match check(&steps.map(Step::clone)) {
        InvalidPipeline::Order { step, .. } => step,
        other => panic!("{other}"),
    };
    assert_eq!(order([&normalize, &resize]), "resize");
    assert_eq!(order([&decode, &decode]), "decode");
    assert_eq!(order([&layout, &normalize]), "normalize");
    assert_eq!(order([&decode, &Step::DecodeWav]), "decode");
    let nothing = Step::ResizeShorter { size: 0, filter: Filter::Bilinear };
    assert!(matches!(check(&[nothing]), InvalidPipeline::Size { step: "resize-shorter", .. }));
    for (mean, std) in [
        (vec![0.0], vec![0.0]),
        (vec![], vec![]),
        (vec![0.0; 3], vec![1.0]),
        (vec![f32::NAN], vec![1.0]),
        (vec![0.0; 3], vec![1.0; 3]), // grey has one channel
    ] {
        let steps = [decode.clone(), Step::Normalize { mean, std }];
        assert_eq!(check(&steps), InvalidPipeline::Normalize);
    }
}
