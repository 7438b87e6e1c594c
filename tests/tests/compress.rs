//! ONNX files that Outrigger wrote, judged by ONNX's own checker and by ONNX Runtime's own Python.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use compress::search::{Goal, Options, Search};
use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::onnx::Model;
use models::ort_backend::{OrtBackend, find_library};
use outrigger_tests::python::Environment;
use outrigger_tests::world::fashion;
use std::path::{Path, PathBuf};

const PACKAGES: [&str; 3] = ["onnx==1.23.2", "onnxruntime==1.31.1", "numpy"];

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every ONNX file below a folder.
fn onnx_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            onnx_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "onnx") {
            found.push(path);
        }
    }
}

/// The demo pair, the large models where they are, and the models of ONNX's own backend tests.
#[test]
fn unedited_files_are_the_same_message_afterwards() {
    let Some(environment) = Environment::with(&PACKAGES).unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut files = vec![fashion().join("edge.onnx"), fashion().join("cloud.onnx")];
    if let Some(large) = std::env::var_os("OUTRIGGER_BENCH_MODELS") {
        onnx_files(Path::new(&large), &mut files);
    }
    let code =
        "import onnx, pathlib; print(pathlib.Path(onnx.__file__).parent / 'backend/test/data')";
    let output = environment.python().args(["-c", code]).output().unwrap();
    onnx_files(Path::new(String::from_utf8(output.stdout).unwrap().trim()), &mut files);
    println!("{} files", files.len());
    let mut pairs = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let written = folder.path().join(format!("{index}.onnx"));
        match Model::read(file) {
            Ok(model) => model.write(&written).unwrap(),
            Err(error) => panic!("{}: {error}", file.display()),
        }
        pairs.extend([file.clone(), written]);
    }
    for some in pairs.chunks(1000) {
        let arguments: Vec<&str> =
            ["same"].into_iter().chain(some.iter().map(|p| text(p))).collect();
        print!("{}", environment.run("onnx_check.py", &arguments).unwrap());
    }
}

#[test]
fn a_compressed_model_is_valid_and_answers_the_same_in_python() {
    let Some(environment) = Environment::with(&PACKAGES).unwrap() else { return };
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let data = Dataset::open(&fashion()).unwrap();
    let images = fashion().join("data/calibration-images.u8");
    for variant in ["edge.onnx", "cloud.onnx"] {
        let folder = tempfile::tempdir().unwrap();
        let onnx = fashion().join(variant);
        let search = Search {
            onnx: &onnx,
            calibration: &data,
            evaluation: None,
            out: folder.path(),
            backend: &backend,
        };
        let options = Options { goal: Goal::Size, target_drop: 0.05, ..Options::default() };
        let outcome = search.run(&options, &mut |_| {}).unwrap();
        assert!(outcome.choice.trial.is_some(), "{}", outcome.choice.reason);
        let arguments = ["valid", text(&outcome.model), text(&images)];
        let theirs = environment.run("onnx_check.py", &arguments).unwrap();
        let mut session = backend.load(&outcome.model, &SessionOptions::default()).unwrap();
        let inputs = data.for_model(session.inputs()).unwrap().inputs(0).unwrap();
        let ours = session.run(&inputs, &[]).unwrap()[0].to_f32().unwrap();
        let theirs: Vec<f32> = theirs.split_whitespace().map(|v| v.parse().unwrap()).collect();
        assert_eq!(ours, theirs, "{variant}");
    }
}
