use super::*;
use protocol::manifest::{Log, LogMel, MelOrder, MelScale};
use std::collections::BTreeMap;

fn build(shape: &[i64], steps: &[Step]) -> Result<AudioFeed, InvalidPipeline> {
    let spec = TensorSpec { name: "x".into(), datatype: DataType::Fp32, shape: shape.to_vec() };
    let targets = BTreeMap::from([(protocol::manifest::Part::Values, "x".to_owned())]);
    let pipeline = Pipeline { input: "audio".into(), targets, steps: steps.to_vec() };
    AudioFeed::new(&pipeline, &[spec])
}

fn apply(shape: &[i64], steps: &[Step], input: &Tensor) -> Result<Tensor, RunError> {
    let mut prepared = Prepared::default();
    build(shape, steps).unwrap().apply(input, &Moment::default(), &mut prepared)?;
    Ok(prepared.tensors.pop().unwrap_or_else(|| prepared.frames.unwrap().tensor))
}

fn samples(shape: &[i64], values: &[f32]) -> Tensor {
    Tensor::from_f32("audio", shape.to_vec(), values).unwrap()
}

fn mel() -> Step {
    Step::LogMel(LogMel {
        fft_size: 8,
        window: 8,
        hop: 4,
        mels: 2,
        min_hz: 0.0,
        max_hz: 4000.0,
        scale: MelScale::Htk,
        equal_area: false,
        log: Log::Ln,
        floor: 1e-3,
        center: false,
        order: MelOrder::MelTime,
    })
}

const RATE: Step = Step::Resample { rate_hz: 8000 };

#[test]
fn samples_come_as_floats_or_integers() {
    let fit = [Step::Fit { samples: 3 }];
    let floats = samples(&[2, 2], &[0.5, -1.0, 0.25, 0.0]);
    let made = apply(&[-1, -1], &fit, &floats).unwrap();
    assert_eq!((made.name(), made.shape()), ("x", &[2i64, 3][..]));
    assert_eq!(made.to_f32().unwrap(), [0.5, -1.0, 0.0, 0.25, 0.0, 0.0]);

    let meta = TensorMeta::new("audio", DataType::Int16, vec![2]).unwrap();
    let data: Vec<u8> = [16_384i16, i16::MIN].iter().flat_map(|v| v.to_le_bytes()).collect();
    let integers = Tensor::new(meta, data.into()).unwrap();
    let made = apply(&[-1, 1, -1], &[RATE], &integers).unwrap();
    assert_eq!((made.shape(), made.to_f32().unwrap()), (&[1i64, 1, 2][..], vec![0.5, -1.0]));
}

#[test]
fn spectrograms_are_normalized_by_band() {
    let silence = samples(&[1, 16], &[0.0; 16]);
    let normalize = Step::Normalize { mean: vec![0.0, 1.0], std: vec![1.0, 2.0] };
    let made = apply(&[-1, 1, 2, -1], &[RATE, mel(), normalize], &silence).unwrap();
    assert_eq!(made.shape(), [1, 1, 2, 3]);
    let floor = 1e-3f32.ln();
    let expected = [[floor; 3], [(floor - 1.0) / 2.0; 3]].concat();
    assert_eq!(made.to_f32().unwrap(), expected);
}

#[test]
fn frames_repeat_their_context() {
    let frame = Step::Frame { size: 2, context: 1 };
    let halve = Step::Normalize { mean: vec![0.0], std: vec![2.0] };
    let input = samples(&[5], &[2.0, 4.0, 6.0, 8.0, 10.0]);
    let made = apply(&[-1, -1], &[frame, halve], &input).unwrap();
    assert_eq!(made.shape(), [3, 3]);
    assert_eq!(made.to_f32().unwrap(), [0.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 5.0, 0.0]);
}

#[test]
fn a_batch_is_even_and_bounded() {
    let check = |steps: &[Step], input: Tensor| match apply(&[-1, -1], steps, &input) {
        Err(RunError::Audio { item, source, .. }) => (item, source),
        other => panic!("{other:?}"),
    };
    let nan = samples(&[2, 2], &[0.0, 0.0, 0.0, f32::NAN]);
    assert_eq!(check(&[RATE], nan), (1, AudioError::NotFinite(1)));
    let one = Step::Fit { samples: 9 << 20 };
    let two = samples(&[2, 1], &[0.0; 2]);
    assert_eq!(check(&[one], two), (1, AudioError::Batch(18 << 22)));
    assert_eq!(check(&[RATE], samples(&[1, 0], &[])), (0, AudioError::Empty));
    let wide = Step::Frame { size: 1, context: 1 << 20 };
    let frames = check(&[wide], samples(&[1, 100], &[0.0; 100]));
    assert_eq!(frames, (0, AudioError::Batch(100 * ((1 << 20) + 1) * 4)));
}

#[test]
fn pipelines_are_checked_at_load() {
    let check = |shape: &[i64], steps: &[Step]| build(shape, steps).unwrap_err();
    let decode = Step::DecodeWav;
    let needs = |step, needs| InvalidPipeline::Needs { step, needs };
    let alone = std::slice::from_ref(&decode);
    assert_eq!(check(&[-1, -1], alone), needs("decode-wav", "resample"));
    assert_eq!(check(&[-1, 2, -1], &[mel()]), needs("log-mel", "resample"));
    assert!(matches!(check(&[-1, -1], &[RATE, mel()]), InvalidPipeline::Target { .. }));
    assert!(matches!(check(&[-1], &[RATE]), InvalidPipeline::Target { .. }));
    for (step, name) in [
        (Step::Resample { rate_hz: 999 }, "resample"),
        (Step::Fit { samples: 0 }, "fit"),
        (Step::Frame { size: 0, context: 1 }, "frame"),
        (Step::Frame { size: 1, context: u32::MAX }, "frame"),
    ] {
        let refused = check(&[-1, -1], &[step]);
        assert!(matches!(refused, InvalidPipeline::Size { step, .. } if step == name), "{refused}");
    }
    let two = Step::Normalize { mean: vec![0.0; 2], std: vec![1.0; 2] };
    assert_eq!(check(&[-1, -1], &[RATE, two]), InvalidPipeline::Normalize);
}
