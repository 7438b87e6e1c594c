//! What each way of rounding and evening out is worth, on the demo pair.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::onnx::Model;
use models::ort_backend::{OrtBackend, find_library};
use outrigger_compress::CompressError;
use outrigger_compress::calibrate::calibrate;
use outrigger_compress::equalize::{Between, equalize};
use outrigger_compress::fold::{fold, verify};
use outrigger_compress::measure::Reference;
use outrigger_compress::quantize::{Recipe, Rounding, Scheme, plan, quantize_refined, refine};

fn zoo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo/fashion").join(file)
}

/// How far the answers of a build are from those of the float model, over test images.
fn distance(file: &str, recipe: &Recipe) -> f64 {
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let (calibration, test) =
        (Dataset::open(&zoo("")).unwrap(), Dataset::open(&zoo("test.toml")).unwrap());
    let mut model = Model::read(&zoo(file)).unwrap();
    fold(&mut model, &backend).unwrap();
    let mut float = backend.load(&zoo(file), &SessionOptions::default()).unwrap();
    let data = calibration.for_model(float.inputs()).unwrap();
    let items = |item: usize| Ok::<_, CompressError>(data.inputs(item)?);
    let chosen: Vec<usize> = (0..64).collect();
    if recipe.even {
        let before = model.clone();
        assert!(
            equalize(&mut model, Between::Convolutions, (&items, &chosen), &backend).unwrap() > 0
        );
        verify(&before, &model, &items(100).unwrap(), &backend).unwrap();
    }
    let values = plan(&model, &BTreeSet::new(), None).measured();
    let seen = calibrate(&model, &values, (&items, &chosen), &backend).unwrap();
    let refined = refine(&model, recipe, (&items, &chosen), &backend).unwrap();
    let built = quantize_refined(&model, (&seen, &refined), recipe).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.onnx");
    built.model.write(&path).unwrap();
    let mut session = backend.load(&path, &SessionOptions::default()).unwrap();
    let data = test.for_model(float.inputs()).unwrap();
    let items = |item: usize| Ok::<_, CompressError>(data.inputs(item)?);
    let all: Vec<usize> = (0..300).collect();
    let reference = Reference::new(&mut *float, &items, &all, None).unwrap();
    1.0 - reference.compare(&mut *session, &items, &all).unwrap().cosine
}

#[test]
fn weights_that_make_errors_good_are_nearer() {
    let four = Recipe { scheme: Scheme::Int4Weights, ..Recipe::default() };
    let of = |rounding| distance("cloud.onnx", &Recipe { rounding, ..four.clone() });
    let [nearest, corrected, fitted] =
        [Rounding::Nearest, Rounding::BiasCorrected, Rounding::LeastSquares].map(of);
    println!("four bits: nearest {nearest:.2e}, bias {corrected:.2e}, fitted {fitted:.2e}");
    assert!(corrected < nearest * 0.75, "{nearest} {corrected}");
    assert!(fitted < corrected * 0.3, "{corrected} {fitted}");
}

#[test]
fn channels_of_one_reach_round_better_and_fitted_weights_better_still() {
    let plain = distance("edge.onnx", &Recipe::default());
    let even = distance("edge.onnx", &Recipe { even: true, ..Recipe::default() });
    let rounding = Rounding::LeastSquares;
    let both = distance("edge.onnx", &Recipe { even: true, rounding, ..Recipe::default() });
    println!("eight bits: {plain:.2e}, evened out {even:.2e}, fitted too {both:.2e}");
    assert!(even < plain * 0.85, "{plain} {even}");
    assert!(both < even, "{even} {both}");
}
