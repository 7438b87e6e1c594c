//! ONNX files that Outrigger wrote, judged by ONNX's own checker and by ONNX Runtime's own Python.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use compress::quantize::{Recipe, Scheme, quantize};
use compress::search::{Goal, Options, Search};
use models::authoring::Author;
use models::authoring::dataset::Dataset;
use models::backend::{Backend, SessionOptions};
use models::bundle::{Bundle, BundleError};
use models::onnx::Model;
use models::ort_backend::{OrtBackend, find_library};
use outrigger_tests::long_model;
use outrigger_tests::python::Environment;
use outrigger_tests::world::{eventually, fashion, program};
use protocol::id::{Variant, Version};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

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

/// The short form of `cargo xtask prove long-model`.
#[test]
fn weights_beside_the_file_are_where_foreign_programs_look_for_them() {
    if let Some(report) = long_model::run(long_model::Amount::SHORT).unwrap() {
        report.check().unwrap();
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
            elsewhere: None,
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

/// Weights of four bits in blocks, and floats of sixteen, judged by the same foreign programs.
#[test]
fn weights_of_four_bits_and_half_floats_are_valid() {
    let Some(environment) = Environment::with(&PACKAGES).unwrap() else { return };
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (data, half) = (fashion(), folder.path().join("half.onnx"));
    let (cloud, four) = (data.join("cloud.onnx"), folder.path().join("four.onnx"));
    let images = data.join("data/calibration-images.u8");
    let arguments = ["float16", text(&cloud), "--calibration", text(&data), "-o", text(&half)];
    let told = json(&arguments);
    assert_eq!(told["left"].as_array().unwrap().len(), 0, "{told}");
    assert!(told["float16"]["cosine"].as_f64().unwrap() > 0.99999, "{told}");
    let [small, whole] = ["size_bytes", "original_bytes"].map(|n| told[n].as_u64().unwrap());
    assert!(small * 19 < whole * 10, "{told}");
    let mut model = Model::read(&cloud).unwrap();
    compress::fold::fold(&mut model, &backend).unwrap();
    let recipe = Recipe { scheme: Scheme::Int4Weights, ..Recipe::default() };
    let built = quantize(&model, &Default::default(), &recipe).unwrap().model;
    assert_eq!(built.graph().nodes().filter(|(_, n)| n.op_type() == "MatMulNBits").count(), 1);
    built.write(&four).unwrap();
    let inputs = {
        let session = backend.load(&cloud, &SessionOptions::default()).unwrap();
        Dataset::open(&data).unwrap().for_model(session.inputs()).unwrap().inputs(0).unwrap()
    };
    for path in [half, four] {
        let mut session = backend.load(&path, &SessionOptions::default()).unwrap();
        let ours = session.run(&inputs, &[]).unwrap()[0].to_f32().unwrap();
        let theirs = environment.run("onnx_check.py", &["valid", text(&path), text(&images)]);
        let theirs = theirs.unwrap();
        let theirs: Vec<f32> = theirs.split_whitespace().map(|v| v.parse().unwrap()).collect();
        assert_eq!(ours, theirs, "{}", path.display());
    }
}

fn outrigger(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("outrigger").unwrap());
    command.arg("model").args(arguments).stdin(Stdio::null());
    command
}

fn json(arguments: &[&str]) -> Value {
    let output = outrigger(arguments).arg("--json").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_pruned_model_is_smaller_valid_and_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (data, test) = (fashion(), fashion().join("test.toml"));
    let (before, after) = (data.join("edge.onnx"), folder.path().join("pruned.onnx"));
    let (before, out) = (text(&before), text(&after));
    let arguments = ["prune", before, "--multiple", "4", "--calibration", text(&data)];
    let pruned = json(&[&arguments[..], &["--eval", text(&test), "-o", out]].concat());
    let count = |name: &str| pruned[name].as_u64().unwrap();
    assert!(count("kept") * 100 <= count("channels") * 78, "{pruned}");
    assert!(count("size_bytes") < count("original_bytes"), "{pruned}");
    assert!(pruned["pruned"]["accuracy"].as_f64().unwrap() > 0.8, "{pruned}");

    let apart = json(&["diff", before, out]);
    assert!(apart["parameters"][1].as_u64() < apart["parameters"][0].as_u64(), "{apart}");
    assert_eq!(apart["operators"]["BatchNormalization"][1], 0, "{apart}");
    let same = json(&["diff", before, before]);
    assert!(same["weights"].as_array().unwrap().is_empty(), "{same}");

    let worth = json(&["evaluate", text(&data), "--data", text(&test)]);
    let shares: Vec<f64> = worth
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["accuracy"]["share"].as_f64().unwrap())
        .collect();
    assert_eq!(shares, [0.917, 0.941]);
    assert_eq!(worth[0]["classes"].as_array().unwrap().len(), 10);

    let Some(environment) = Environment::with(&PACKAGES).unwrap() else { return };
    let images = data.join("data/calibration-images.u8");
    let theirs = environment.run("onnx_check.py", &["valid", out, text(&images)]).unwrap();
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let mut session = backend.load(&after, &SessionOptions::default()).unwrap();
    let data = Dataset::open(&data).unwrap();
    let inputs = data.for_model(session.inputs()).unwrap().inputs(0).unwrap();
    let ours = session.run(&inputs, &[]).unwrap()[0].to_f32().unwrap();
    let theirs: Vec<f32> = theirs.split_whitespace().map(|v| v.parse().unwrap()).collect();
    assert_eq!(ours, theirs);
}

/// Seven weights of ten are zero: what is sent is less than half, and fitting what stays saves the answers.
#[test]
fn zeros_among_the_weights_make_a_file_short_to_send() {
    let folder = tempfile::tempdir().unwrap();
    let data = fashion();
    let (test, cloud) = (data.join("test.toml"), data.join("cloud.onnx"));
    let zeros = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let own = ["prune", text(&cloud), "--unstructured", "0.7", "--calibration", text(&data)];
        json(&[&own[..], &["--eval", text(&test), "-o", text(&out)], more].concat())
    };
    let fitted = zeros("fitted.onnx", &[]);
    let plain = zeros("plain.onnx", &["--no-repair"]);
    let right = |told: &Value, of: &str| told[of]["accuracy"].as_f64().unwrap();
    println!(
        "{} {} {}",
        right(&fitted, "float"),
        right(&fitted, "pruned"),
        right(&plain, "pruned")
    );
    assert!(fitted["zeros"].as_f64().unwrap() > 0.69, "{fitted}");
    let bytes = |name: &str| fitted[name].as_u64().unwrap();
    assert!(bytes("sent_bytes") * 2 < bytes("sent_original_bytes"), "{fitted}");
    assert!(right(&fitted, "pruned") > right(&fitted, "float") - 0.03, "{fitted}");
    assert!(right(&fitted, "pruned") >= right(&plain, "pruned"), "{fitted} {plain}");
}

#[test]
fn an_edge_variant_comes_out_of_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (fashion(), folder.path().join("edge.onnx"));
    let onnx = data.join("cloud.onnx");
    let arguments = ["distill-edge", text(&onnx), "--calibration", text(&data), "-o", text(&out)];
    let found = json(&arguments);
    let places = found["places"].as_array().unwrap();
    assert!(places.len() >= 3, "{found}");
    let chosen = &places[usize::try_from(found["chosen"].as_u64().unwrap()).unwrap()];
    assert!(chosen["work"].as_f64().unwrap() < 0.95, "{found}");
    assert!(found["size_bytes"].as_u64() < found["original_bytes"].as_u64(), "{found}");
    assert!(found["edge"]["accuracy"].as_f64().unwrap() > 0.75, "{found}");
    let worth = json(&["evaluate", text(&out), "--data", text(&data.join("test.toml"))]);
    assert!(worth[0]["accuracy"]["share"].as_f64().unwrap() > 0.75, "{worth}");
    let refused = outrigger(&arguments).args(["--after", "nothing"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("cannot be cut"), "{said}");
}

/// What a search wants, and where it works.
fn search(out: &Path) -> Command {
    let (onnx, data) = (fashion().join("edge.onnx"), fashion());
    let mut command = outrigger(&["compress", text(&onnx), "--calibration", text(&data)]);
    command.args(["--for", "size", "--target-drop", "2%", "--seed", "3", "--json", "--out"]);
    command.arg(out);
    command
}

#[test]
fn a_search_that_was_killed_ends_with_the_same_choice() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    assert!(search(&whole).output().unwrap().status.success());

    let mut killed = search(&broken).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let journal = broken.join("journal.jsonl");
    eventually("the third line of the journal", Duration::from_secs(60), || {
        let text = std::fs::read_to_string(&journal).ok()?;
        (text.lines().count() >= 3).then_some(())
    })
    .unwrap();
    killed.kill().unwrap(); // SIGKILL
    killed.wait().unwrap();
    let before = std::fs::read_to_string(&journal).unwrap();
    assert!(search(&broken).output().unwrap().status.success());
    let after = std::fs::read_to_string(&journal).unwrap();
    let kept = before.rfind('\n').unwrap();
    assert_eq!(after[..kept], before[..kept], "what was known is not measured again");

    let facts = |folder: &Path| -> Value {
        let text = std::fs::read_to_string(folder.join("report.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let (a, b) = (facts(&whole), facts(&broken));
    let recipe = |facts: &Value| {
        let trial = facts["outcome"]["choice"]["trial"].as_u64().unwrap();
        facts["outcome"]["trials"][usize::try_from(trial).unwrap()]["recipe"].clone()
    };
    assert_eq!(recipe(&a), recipe(&b));
    let hash = |facts: &Value| facts["outcome"]["compressed"]["sha256"].clone();
    assert_eq!(hash(&a), hash(&b));
}

#[test]
fn a_bundle_carries_the_report_under_its_signature() {
    let folder = tempfile::tempdir().unwrap();
    let author = folder.path().join("fashion");
    let compressed = author.join("compressed");
    std::fs::create_dir_all(author.join("data")).unwrap();
    for file in
        ["labels.json", "edge.onnx", "data/calibration-images.u8", "data/calibration-labels.u8"]
    {
        std::fs::copy(fashion().join(file), author.join(file)).unwrap();
    }
    assert!(search(&compressed).output().unwrap().status.success());
    let page = std::fs::read_to_string(compressed.join("report.html")).unwrap();
    for part in
        ["edge.onnx, compressed", "What was tried", "<svg", "Accuracy of each class", "SHA-256"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("http"), "nothing comes from elsewhere");

    let recipe = std::fs::read_to_string(fashion().join("model.toml")).unwrap();
    let recipe = recipe
        .replace(
            "onnx = \"edge.onnx\"",
            "onnx = \"compressed/model.onnx\"\nreport = \"compressed\"",
        )
        .replace("[variants.cloud]\nonnx = \"cloud.onnx\"", "");
    let start = recipe.find("[calibration]").unwrap();
    std::fs::write(author.join("model.toml"), &recipe[..start]).unwrap();
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let out = folder.path().join("bundle");
    let manifest = Author::open(&author).unwrap();
    let manifest = manifest.build(Variant::Edge, Version::FIRST, &backend, &out).unwrap();
    assert!(
        manifest.files.contains_key("report.html") && manifest.files.contains_key("report.json")
    );
    assert!(Bundle::open(&out, manifest.clone()).is_ok());
    let altered = page.replacen("compressed", "comprEssed", 1);
    std::fs::write(out.join("report.html"), altered).unwrap();
    let refused = Bundle::open(&out, manifest);
    assert!(matches!(refused, Err(BundleError::Altered(file)) if file == "report.html"));
}

/// A fine-tuned model whose updates are rounded is near what it was, and a smaller delta.
#[test]
fn settled_updates_travel_in_less() {
    let folder = tempfile::tempdir().unwrap();
    let (base, new) = (fashion().join("edge.onnx"), folder.path().join("new.onnx"));
    let mut bytes = std::fs::read(&base).unwrap();
    let tensors = models::onnx::places::tensors(&bytes.clone().into()).unwrap();
    for tensor in tensors.iter().filter(|tensor| tensor.dims.len() > 1) {
        for (index, number) in bytes[tensor.range.clone()].chunks_exact_mut(4).enumerate() {
            let weight = f32::from_le_bytes(number.try_into().unwrap());
            let moved = weight + 1e-3 * (index as f32).sin();
            number.copy_from_slice(&moved.to_le_bytes());
        }
    }
    std::fs::write(&new, &bytes).unwrap();
    let out = folder.path().join("settled.onnx");
    let mut command = Command::new(program("outrigger").unwrap());
    command.args(["model", "settle", "--json"]).arg(&new).arg("--base").arg(&base);
    let output = command.arg("--out").arg(&out).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [before, after, size] = ["delta_bytes_before", "delta_bytes", "size_bytes"]
        .map(|name| said[name].as_f64().unwrap());
    assert!(after < 0.3 * size && after < 0.6 * before, "{said}");
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let data = Dataset::open(&fashion().join("test.toml")).unwrap();
    let classes = |path: &Path| {
        let mut session = backend.load(path, &SessionOptions::default()).unwrap();
        let items = data.for_model(session.inputs()).unwrap();
        let logits = |item| {
            let outputs = session.run(&items.inputs(item).unwrap(), &[]).unwrap();
            outputs[0].to_f32().unwrap()
        };
        let best = |logits: Vec<f32>| {
            logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class)
        };
        (0..100).map(logits).map(best).collect::<Vec<_>>()
    };
    assert_eq!(classes(&out), classes(&new));
}
