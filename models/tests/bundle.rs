//! Bundles from recipe to loaded model, with the stand-in backend; and what tampering meets.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

use outrigger_models::authoring::{Author, BuildError};
use outrigger_models::bundle::{Bundle, BundleError};
use outrigger_models::error::RunError;
use outrigger_models::fake::{FakeBackend, Gate};
use outrigger_models::model::{LoadedModel, ModelError, ModelOptions, ProbeError};
use outrigger_models::worker::Job;
use protocol::id::{Variant, Version};
use protocol::manifest::{Manifest, SignedManifest, SigningKey};
use protocol::tensor::Tensor;

const EDGE: &str =
    "fake\ninput x FP32 -1 2\noutput logits FP32 -1 2\noutput raw FP32 -1 2\npanic 99";
const CLOUD: &str = "fake\ninput x FP32 -1 2\noutput logits FP32 -1 2\nscale -1";
const RECIPE: &str = r#"
name = "coin"
[classes]
logits = "logits"
labels = "names.json"
[variants]
edge = { onnx = "edge.txt" }
cloud = { onnx = "cloud.txt" }
[probes]
tolerance = 1e-6
inputs = [{ input = "x", file = "x.f32", datatype = "FP32", item_shape = [2] }]
[calibration]
max_drop = 0.0
labels = { file = "y.u8", datatype = "UINT8" }
inputs = [{ input = "x", file = "x.f32", datatype = "FP32", item_shape = [2] }]
"#;

struct Shop {
    folder: tempfile::TempDir,
}

impl Shop {
    /// Four items, of which the edge is ever surer. It says "tails" to all, the cloud "heads", and
    /// the first three are heads: deferring two is as good as the cloud alone.
    fn new() -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        let items: Vec<u8> = [[0f32, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, 4.0]]
            .as_flattened()
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        shop.write("edge.txt", EDGE);
        shop.write("cloud.txt", CLOUD);
        shop.write("model.toml", RECIPE);
        shop.write("names.json", r#"["heads","tails"]"#);
        shop.write("x.f32", items);
        shop.write("y.u8", [0, 0, 0, 1]);
        shop
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(file), content).unwrap();
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn build(&self, variant: Variant) -> Result<Manifest, BuildError> {
        let author = Author::open(self.folder.path())?;
        author.build(variant, Version::FIRST, &FakeBackend::default(), &self.out())
    }
}

fn x(values: [f32; 2]) -> Job {
    let inputs = vec![Tensor::from_f32("x", vec![1, 2], &values).unwrap()];
    Job { inputs, ..Job::default() }
}

fn load(shop: &Shop, manifest: Manifest) -> Result<LoadedModel, ModelError> {
    let bundle = Bundle::open(&shop.out(), manifest).unwrap();
    LoadedModel::load(&FakeBackend::default(), bundle, &ModelOptions::default())
}

#[test]
fn from_recipe_to_answer() {
    let shop = Shop::new();
    let manifest = shop.build(Variant::Edge).unwrap();
    assert_eq!(Manifest::from_json(&manifest.to_json()), Ok(manifest.clone()));
    let files: Vec<&String> = manifest.files.keys().collect();
    assert_eq!(files, ["labels.json", "model.onnx", "probes.pb"]);
    let calibration = manifest.calibration.clone().unwrap();
    assert_eq!((calibration.samples, calibration.deferral_rate), (4, 0.5));

    let model = load(&shop, manifest).unwrap();
    assert_eq!(model.check_probes().unwrap(), 4);
    let answer = model.submit(x([3.0, 3.0])).unwrap().wait().unwrap();
    assert_eq!((answer.confidence, answer.label.as_deref()), (Some(0.5), Some("heads")));
    assert_eq!(answer.outputs.len(), 2);
}

#[test]
fn the_confidence_is_read_even_if_the_logits_are_not_wanted() {
    let shop = Shop::new();
    let manifest = shop.build(Variant::Edge).unwrap();
    let model = load(&shop, manifest).unwrap();
    let ask = |outputs: &[&str]| {
        let outputs = outputs.iter().map(|o| (*o).to_owned()).collect();
        model.submit(Job { outputs, ..x([1.0, 1.0]) }).unwrap().wait()
    };
    let answer = ask(&["raw"]).unwrap();
    let names: Vec<&str> = answer.outputs.iter().map(Tensor::name).collect();
    assert_eq!((names, answer.confidence), (vec!["raw"], Some(0.5)));
    assert!(matches!(ask(&["absent"]), Err(RunError::Request(_))));
}

#[test]
fn work_goes_to_the_idle_session() {
    let shop = Shop::new();
    let bundle = Bundle::open(&shop.out(), shop.build(Variant::Cloud).unwrap()).unwrap();
    let gate = Gate::default();
    let options = ModelOptions { sessions: 3, ..ModelOptions::default() };
    let model = LoadedModel::load(&FakeBackend::gated(gate.clone()), bundle, &options).unwrap();
    let tickets = [1.0, 2.0, 3.0].map(|v| model.submit(x([v, 0.0])).unwrap());
    gate.wait_for(3); // all three run at once, so each has a session of its own
    gate.open();
    assert!(tickets.into_iter().all(|ticket| ticket.wait().is_ok()));
    assert_eq!((model.counters().run, model.counters().waiting), (3, 0));
}

/// Spoils a built bundle and says what opening it meets.
fn tamper(spoil: impl Fn(&Path)) -> BundleError {
    let shop = Shop::new();
    let manifest = shop.build(Variant::Edge).unwrap();
    spoil(&shop.out());
    Bundle::open(&shop.out(), manifest).unwrap_err()
}

#[test]
fn tampering_is_met_before_anything_is_loaded() {
    for file in ["labels.json", "model.onnx", "probes.pb"] {
        let read = |folder: &Path| fs::read(folder.join(file)).unwrap();
        let flipped = tamper(|folder| {
            let mut bytes = read(folder);
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(folder.join(file), bytes).unwrap();
        });
        assert!(matches!(flipped, BundleError::Altered(name) if name == file));
        let truncated = tamper(|folder| {
            let bytes = read(folder);
            fs::write(folder.join(file), &bytes[..bytes.len() - 1]).unwrap();
        });
        assert!(matches!(truncated, BundleError::Size { file: name, .. } if name == file));
        let missing = tamper(|folder| fs::remove_file(folder.join(file)).unwrap());
        assert!(matches!(missing, BundleError::Missing(name) if name == file));
        let replaced = tamper(|folder| {
            fs::remove_file(folder.join(file)).unwrap();
            fs::create_dir(folder.join(file)).unwrap();
        });
        assert!(matches!(replaced, BundleError::Missing(name) if name == file));
    }
    let smuggled = tamper(|folder| fs::write(folder.join("weights.bin"), "x").unwrap());
    assert!(matches!(smuggled, BundleError::Unlisted(name) if name == "weights.bin"));
    let gone = tamper(|folder| fs::remove_dir_all(folder).unwrap());
    assert!(matches!(gone, BundleError::Read { .. }));
}

/// A well-signed bundle whose files are not what their names say.
fn with_file(name: &str, content: &[u8]) -> (Shop, Manifest) {
    let shop = Shop::new();
    let mut manifest = shop.build(Variant::Edge).unwrap();
    fs::write(shop.out().join(name), content).unwrap();
    let sha256 = protocol::id::ContentHash::of(content);
    let file = protocol::manifest::FileRef { sha256, size_bytes: content.len() as u64 };
    manifest.files.insert(name.to_owned(), file);
    (shop, manifest)
}

#[test]
fn a_model_that_computes_differently_fails_its_probes() {
    let louder = format!("{EDGE}\nscale 1.001");
    let (shop, manifest) = with_file("model.onnx", louder.as_bytes());
    let error = load(&shop, manifest).unwrap().check_probes().unwrap_err();
    let ProbeError::Value { probe: 0, output, element: 1, expected, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((output.as_str(), expected), ("logits", 1.0));

    let (shop, mut manifest) = with_file("model.onnx", louder.as_bytes());
    manifest.probes.tolerance = 1e-2;
    assert_eq!(load(&shop, manifest).unwrap().check_probes().unwrap(), 4);

    let (shop, manifest) = with_file("model.onnx", format!("{EDGE}\nfail 0").as_bytes());
    let error = load(&shop, manifest).unwrap().check_probes().unwrap_err();
    assert!(matches!(error, ProbeError::Run { probe: 0, .. }), "{error}");
}

#[test]
fn contents_that_contradict_the_manifest_are_refused() {
    let (shop, manifest) = with_file("model.onnx", CLOUD.as_bytes());
    assert!(matches!(load(&shop, manifest), Err(ModelError::Contradiction { .. })));
    let (shop, manifest) = with_file("labels.json", b"{}");
    let labels = Bundle::open(&shop.out(), manifest).unwrap_err();
    assert!(matches!(labels, BundleError::Labels { .. }), "{labels}");
    for probes in [b"".as_slice(), b"\xff", b"\x0a\x00"] {
        let (shop, manifest) = with_file("probes.pb", probes);
        let error = load(&shop, manifest).unwrap().check_probes().unwrap_err();
        assert!(matches!(error, ProbeError::Bundle(BundleError::Probes { .. })), "{error}");
    }
}

#[test]
fn recipes_are_refused_with_a_reason() {
    let check = |from: &str, to: &str| {
        let shop = Shop::new();
        assert!(RECIPE.contains(from));
        shop.write("model.toml", RECIPE.replacen(from, to, 1));
        let error = shop.build(Variant::Edge).unwrap_err();
        assert!(!shop.out().exists(), "a failed build leaves nothing behind: {error}");
        error
    };
    assert!(matches!(check("name", "nom"), BuildError::Recipe { .. }));
    assert!(matches!(check("coin", "../coin"), BuildError::Recipe { .. }));
    let classes = "[classes]\nlogits = \"logits\"\nlabels = \"names.json\"";
    assert!(matches!(check(classes, ""), BuildError::NoClasses));
    assert!(matches!(check("edge =", "#"), BuildError::NoVariant(Variant::Edge)));
    assert!(matches!(check("cloud =", "#"), BuildError::NoVariant(Variant::Cloud)));
    assert!(matches!(check("item_shape = [2]", "item_shape = [3]"), BuildError::Data { .. }));
    assert!(matches!(check("item_shape = [2]", "item_shape = [0]"), BuildError::Data { .. }));
    assert!(matches!(check("x.f32", "absent"), BuildError::Io { .. }));
    assert!(matches!(check("y.u8", "x.f32"), BuildError::Data { .. }));
    assert!(matches!(check("names.json", "x.f32"), BuildError::Labels(_)));
    assert!(matches!(check("max_drop = 0.0", "max_drop = 2.0"), BuildError::Threshold(_)));
    assert!(matches!(check("edge.txt", "x.f32"), BuildError::Load(_)));
}

#[test]
fn a_folder_in_use_is_left_alone() {
    let shop = Shop::new();
    shop.build(Variant::Edge).unwrap();
    assert!(matches!(shop.build(Variant::Cloud), Err(BuildError::NotEmpty(_))));
}

/// The whole of a small bundle, as it travels: signature, manifest, and every file.
#[test]
fn every_flipped_byte_of_a_whole_bundle_is_refused() {
    let shop = Shop::new();
    let manifest = shop.build(Variant::Edge).unwrap();
    let key = SigningKey::from_seed(&[7; 32]);
    let signed = key.sign(&manifest).to_json();
    let flip = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << (at % 8);
        bytes
    };
    for at in 0..signed.len() {
        let read = SignedManifest::from_json(&flip(&signed, at));
        // A digit of the signature may be written in capitals, which says the same.
        if let Ok(read) = read.and_then(|signed| signed.verify(&[key.public()])) {
            assert_eq!(read, manifest, "byte {at} of the signed manifest");
        }
    }
    let mut bytes_of_files = 0;
    for name in manifest.files.keys() {
        let path = shop.out().join(name);
        let good = fs::read(&path).unwrap();
        bytes_of_files += good.len() as u64;
        for at in 0..good.len() {
            fs::write(&path, flip(&good, at)).unwrap();
            let opened = Bundle::open(&shop.out(), manifest.clone());
            assert!(matches!(opened, Err(BundleError::Altered(_))), "byte {at} of {name}");
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(bytes_of_files, manifest.size_bytes());
    Bundle::open(&shop.out(), manifest).unwrap();
}
