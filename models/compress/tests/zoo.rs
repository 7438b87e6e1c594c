//! The demo pair, compressed on real ONNX Runtime.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::onnx::Model;
use models::onnx::attribute::Attributes;
use models::ort_backend::{OrtBackend, find_library};
use outrigger_compress::CompressError;
use outrigger_compress::calibrate::{Seen, calibrate};
use outrigger_compress::diff::diff;
use outrigger_compress::fold::{fold, verify};
use outrigger_compress::fused::fused;
use outrigger_compress::histogram::Method;
use outrigger_compress::inspect::{Report, inspect};
use outrigger_compress::measure::Reference;
use outrigger_compress::quantize::{Recipe, Scheme, plan, quantize};
use outrigger_compress::search::{Goal, Options, Search};

fn backend() -> OrtBackend {
    OrtBackend::open(&find_library(None).unwrap()).unwrap()
}

fn zoo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../zoo/fashion").join(file)
}

fn folded(file: &str, backend: &OrtBackend) -> Model {
    let mut model = Model::read(&zoo(file)).unwrap();
    fold(&mut model, backend).unwrap();
    model
}

fn seen(model: &Model, data: &Dataset, backend: &OrtBackend) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    model.write(&path).unwrap();
    let session = backend.load(&path, &SessionOptions::default()).unwrap();
    let data = data.for_model(session.inputs()).unwrap();
    let values = plan(model, &BTreeSet::new(), None).measured();
    let items = |item: usize| Ok(data.inputs(item)?);
    let chosen: Vec<usize> = (0..64).collect();
    calibrate(model, &values, (&items, &chosen), backend).unwrap()
}

#[test]
fn folding_leaves_no_normalization_and_changes_nothing() {
    let backend = backend();
    let data = Dataset::open(&zoo("")).unwrap();
    for (file, normalizations) in [("edge.onnx", 9), ("cloud.onnx", 10)] {
        let before = Model::read(&zoo(file)).unwrap();
        let mut after = before.clone();
        let folded = fold(&mut after, &backend).unwrap();
        assert_eq!(folded.normalizations, normalizations);
        assert!(after.graph().nodes_of("BatchNormalization").is_empty());
        let session = backend.load(&zoo(file), &SessionOptions::default()).unwrap();
        let inputs = data.for_model(session.inputs()).unwrap().inputs(0).unwrap();
        verify(&before, &after, &inputs, &backend).unwrap();
        assert_eq!(fold(&mut after, &backend).unwrap().normalizations, 0);
    }
}

#[test]
fn all_convolutions_fuse_by_every_method_and_the_answers_stay() {
    let backend = backend();
    let (calibration, test) =
        (Dataset::open(&zoo("")).unwrap(), Dataset::open(&zoo("test.toml")).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.onnx");
    for file in ["edge.onnx", "cloud.onnx"] {
        let model = folded(file, &backend);
        let seen = seen(&model, &calibration, &backend);
        let mut float = backend.load(&zoo(file), &SessionOptions::default()).unwrap();
        let data = test.for_model(float.inputs()).unwrap();
        let items = |item: usize| Ok::<_, CompressError>(data.inputs(item)?);
        let chosen: Vec<usize> = (0..test.len()).collect();
        let reference = Reference::new(&mut *float, &items, &chosen, test.labels()).unwrap();
        for method in [Method::MinMax, Method::Percentile(0.9999), Method::Entropy, Method::Mse] {
            let recipe = Recipe { method, ..Recipe::default() };
            let built = quantize(&model, &seen, &recipe).unwrap();
            built.model.write(&path).unwrap();
            let fused = fused(&path, &built.wanted, &backend).unwrap();
            let (done, wanted) = fused.total();
            let mut session = backend.load(&path, &SessionOptions::default()).unwrap();
            let quality = reference.compare(&mut *session, &items, &chosen).unwrap();
            println!(
                "{file} {method}: {} bytes, fused {:?}, left {:?}, {quality:?}, float {:?}",
                path.metadata().unwrap().len(),
                fused.by_op,
                built.left,
                reference.own().accuracy
            );
            assert_eq!(done, wanted, "{file} {method}: {:?}", fused.by_op);
            assert!(wanted >= 10, "{:?}", fused.by_op);
            assert!(quality.drop_from(&reference.own()) <= 0.03, "{file} {method}: {quality:?}");
        }
    }
}

#[test]
fn dynamic_products_fuse() {
    let backend = backend();
    let model = folded("cloud.onnx", &backend);
    let recipe = Recipe { scheme: Scheme::Dynamic, ..Recipe::default() };
    let built = quantize(&model, &Seen::new(), &recipe).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.onnx");
    built.model.write(&path).unwrap();
    let fused = fused(&path, &built.wanted, &backend).unwrap();
    assert_eq!(fused.total(), (1, 1));
}

#[test]
fn a_search_ends_with_a_choice_and_goes_on_after_a_break() {
    let backend = backend();
    let (calibration, test) =
        (Dataset::open(&zoo("")).unwrap(), Dataset::open(&zoo("test.toml")).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let onnx = zoo("edge.onnx");
    let search = Search {
        onnx: &onnx,
        calibration: &calibration,
        evaluation: Some(&test),
        out: folder.path(),
        backend: &backend,
        elsewhere: None,
    };
    let options = Options { goal: Goal::Size, target_drop: 0.02, ..Options::default() };
    let mut told = 0;
    let whole = search.run(&options, &mut |_| told += 1).unwrap();
    assert_eq!(told, whole.trials.len());
    assert!(whole.choice.trial.is_some(), "{}", whole.choice.reason);
    assert!(whole.evaluation.drop < 0.03, "{:?}", whole.evaluation);
    let model = std::fs::read(folder.path().join("model.onnx")).unwrap();

    // As after a kill in the middle of the third trial's line.
    let journal = folder.path().join("journal.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    let kept: Vec<&str> = text.split_inclusive('\n').take(4).collect();
    let cut = kept.concat();
    std::fs::write(&journal, &cut[..cut.len() - 20]).unwrap();
    let again = search.run(&options, &mut |_| {}).unwrap();
    assert_eq!(again.choice.trial, whole.choice.trial);
    assert!(std::fs::read(folder.path().join("model.onnx")).unwrap() == model);
    let first: Vec<_> = again.trials.iter().map(|t| (&t.recipe, t.quality.clone())).collect();
    let before: Vec<_> = whole.trials.iter().map(|t| (&t.recipe, t.quality.clone())).collect();
    assert_eq!(first, before);

    let other = Options { seed: 1, ..options.clone() };
    let refused = search.run(&other, &mut |_| {}).unwrap_err();
    assert!(matches!(refused, CompressError::OtherJournal { .. }), "{refused}");
    let out = tempfile::tempdir().unwrap();
    let nothing = Options { budget: Duration::ZERO, ..options };
    let search = Search { out: out.path(), ..search };
    let none = search.run(&nothing, &mut |_| {}).unwrap();
    assert!(none.out_of_time && none.choice.trial.is_none());
}

#[test]
fn a_model_is_told_in_numbers() {
    let model = Model::read(&zoo("edge.onnx")).unwrap();
    let report = inspect(&model, &Default::default(), &backend()).unwrap();
    assert_eq!(report.operators["Conv"], 9);
    assert!(report.parameters >= 16_394, "{}", report.parameters);
    let mut known = report.layers.iter().filter(|layer| layer.operator != "Mul");
    assert!(known.all(|layer| layer.macs.is_some()), "{:?}", report.layers);
    assert!(report.macs > 100_000, "{}", report.macs);
}

#[test]
fn integers_are_told_as_the_weights_that_they_stand_for() {
    let backend = backend();
    let float = folded("cloud.onnx", &backend);
    let seen = seen(&float, &Dataset::open(&zoo("")).unwrap(), &backend);
    let built = quantize(&float, &seen, &Recipe::default()).unwrap().model;
    let [before, after] =
        [&float, &built].map(|model| inspect(model, &Default::default(), &backend).unwrap());
    assert_eq!(before.macs, after.macs);
    let names = |report: &Report| report.layers.iter().map(|l| l.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    assert!(after.layers.iter().all(|layer| layer.datatype == "int8"), "{:?}", after.layers);

    let apart = diff(&float, &built);
    assert!(apart.grids >= 2 * before.layers.len(), "{}", apart.grids);
    for weight in &apart.weights {
        let after = weight.after.as_deref().unwrap_or_default();
        let is_bias = after.starts_with("int32");
        assert!(is_bias || after.starts_with("int8"), "{weight:?}");
        // Eight bits for each channel: half a step of at most 1/127 of its largest weight.
        let near = weight.distance.is_some_and(|moved| 0.0 < moved && moved < 0.02);
        assert!(is_bias || near, "{weight:?}");
    }
}

#[test]
fn what_cannot_be_compressed_is_refused_by_name_and_leaves_nothing() {
    let backend = backend();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, model: &Model| {
        model.write(&folder.path().join(name)).unwrap();
        folder.path().join(name)
    };
    let good = Model::read(&zoo("edge.onnx")).unwrap();
    let mut nan = good.clone();
    let weight = nan.graph().weights().find(|w| w.dims.len() == 4).unwrap().clone();
    let count = weight.dims.iter().product::<i64>();
    let broken = vec![f32::NAN; usize::try_from(count).unwrap()];
    let broken = models::onnx::tensor::new(weight.name(), &weight.dims, &broken);
    nan.graph_mut().set_weight(broken);
    let mut old = good.clone();
    old.set_opset("", 9);
    for id in old.graph().nodes_of("BatchNormalization") {
        old.graph_mut().edit(id, |node| node.unset("training_mode")).unwrap();
    }
    let truncated = folder.path().join("truncated.onnx");
    std::fs::write(&truncated, &std::fs::read(zoo("edge.onnx")).unwrap()[..70_000]).unwrap();
    let raw = "input = \"image\"\nfile = \"x.f32\"\ndatatype = \"FP32\"\n";
    std::fs::write(folder.path().join("x.f32"), vec![0; 10 * 4 * 27 * 27]).unwrap();
    std::fs::write(folder.path().join("empty"), []).unwrap();
    let data = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
        Dataset::open(&folder.path().join(name))
    };
    let wrong = data("wrong.toml", format!("[[inputs]]\n{raw}item_shape = [1, 27, 27]\n")).unwrap();
    let empty = raw.replace("x.f32", "empty");
    assert!(data("none.toml", format!("[[inputs]]\n{empty}item_shape = [1]\n")).is_err());
    let right = Dataset::open(&zoo("")).unwrap();
    for (onnx, calibration, says) in [
        (write("nan.onnx", &nan), &right, "NaN"),
        (write("old.onnx", &old), &right, "opset 13"),
        (truncated, &right, "truncated"),
        (zoo("edge.onnx"), &wrong, "the model takes FP32 [-1,1,28,28]"),
    ] {
        let out = folder.path().join("out");
        let (onnx, out) = (&*onnx, &*out);
        let search =
            Search { onnx, calibration, evaluation: None, out, backend: &backend, elsewhere: None };
        let error = search.run(&Options::default(), &mut |_| {}).unwrap_err();
        let text =
            format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string));
        assert!(text.contains(says), "{text}");
        assert!(!out.join("model.onnx").exists());
        let _ = std::fs::remove_dir_all(out);
    }
}
