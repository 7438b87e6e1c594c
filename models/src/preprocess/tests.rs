use super::*;
use protocol::id::{Variant, Version};
use protocol::manifest::{FORMAT, Part, Probes, Step};
use protocol::tensor::DataType;

/// A model that takes `x` and `y`, numbers of any size in so many dimensions.
fn manifest(rank: usize, preprocess: Vec<Pipeline>) -> Manifest {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: vec![-1; rank],
    };
    Manifest {
        format: FORMAT,
        model: "m".parse().unwrap(),
        version: Version::FIRST,
        variant: Variant::Edge,
        inputs: vec![spec("x"), spec("y")],
        outputs: vec![spec("z")],
        files: BTreeMap::new(),
        preprocess,
        constants: Vec::new(),
        state: Vec::new(),
        postprocess: Vec::new(),
        default_outputs: Vec::new(),
        classes: None,
        calibration: None,
        thrift: None,
        probes: Probes { file: "probes.pb".into(), tolerance: 0.0 },
        never_leaves_device: false,
        provenance: BTreeMap::new(),
    }
}

fn pipeline(input: &str, target: &str, steps: &[Step]) -> Pipeline {
    let targets = BTreeMap::from([(Part::Values, target.to_owned())]);
    Pipeline { input: input.into(), targets, steps: steps.to_vec() }
}

fn check(rank: usize, pipelines: Vec<Pipeline>) -> InvalidPipeline {
    Preprocess::new(&manifest(rank, pipelines), &StepFiles::new()).unwrap_err()
}

#[test]
fn what_the_model_takes_goes_through() {
    let images = vec![pipeline("x", "x", &[])];
    let preprocess = Preprocess::new(&manifest(4, images), &StepFiles::new()).unwrap();
    let own = Tensor::from_f32("x", vec![1, 1, 2, 2], &[0.5; 4]).unwrap();
    let other = Tensor::from_f32("y", vec![3], &[1.0; 3]).unwrap();
    let tensors = vec![own, other];
    let expected = Prepared { tensors: tensors.clone(), frames: None };
    assert_eq!(preprocess.apply(&tensors, &Moment::default()), Ok(expected));
}

#[test]
fn targets_are_checked() {
    assert_eq!(check(4, vec![pipeline("a", "b", &[])]), InvalidPipeline::Input("b".into()));
    let refused = check(3, vec![pipeline("a", "x", &[])]);
    assert!(matches!(refused, InvalidPipeline::Target { .. }), "{refused}");
    let mut ids = pipeline("a", "x", &[]);
    ids.targets.insert(Part::Ids, "y".into());
    assert!(matches!(check(4, vec![ids]), InvalidPipeline::Parts { .. }));
}

#[test]
#[cfg(feature = "audio")]
fn frames_are_clear() {
    let frame = [Step::Frame { size: 2, context: 0 }];
    let same = vec![pipeline("x", "x", &frame)];
    assert_eq!(check(2, same), InvalidPipeline::Ambiguous("x".into()));
    let two = vec![pipeline("a", "x", &frame), pipeline("b", "y", &frame)];
    assert_eq!(check(2, two), InvalidPipeline::Frames);
}

#[test]
#[cfg(not(feature = "audio"))]
fn audio_was_left_out() {
    let sound = vec![pipeline("a", "x", &[Step::DecodeWav])];
    assert_eq!(check(2, sound), InvalidPipeline::NotBuilt("audio"));
}

#[test]
#[cfg(not(feature = "text"))]
fn text_was_left_out() {
    let step = Step::Tokenize { file: "tokenizer.json".into(), max_tokens: 1 };
    assert_eq!(check(2, vec![pipeline("a", "x", &[step])]), InvalidPipeline::NotBuilt("text"));
}
