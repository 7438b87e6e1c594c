use super::*;
use crate::transport::{Allowance, Transport};

fn file(text: &str) -> FileRef {
    FileRef { sha256: ContentHash::of(text.as_bytes()), size_bytes: text.len() as u64 }
}

fn manifest() -> Manifest {
    let spec = |name: &str, shape: &[i64]| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: shape.to_vec(),
    };
    Manifest {
        format: FORMAT,
        model: "fashion".parse().unwrap(),
        version: Version::FIRST,
        variant: Variant::Edge,
        inputs: vec![spec("image", &[-1, 1, 28, 28])],
        outputs: vec![spec("logits", &[-1, 10])],
        files: [(MODEL_FILE, "onnx"), ("labels.json", "[]"), ("probes.pb", "")]
            .into_iter()
            .map(|(name, text)| (name.to_owned(), file(text)))
            .collect(),
        preprocess: vec![Pipeline {
            input: "image".into(),
            targets: BTreeMap::new(),
            steps: vec![
                Step::Decode { color: Color::Gray },
                Step::Normalize { mean: vec![0.0], std: vec![255.0] },
                Step::Layout { order: Layout::Nchw },
            ],
        }],
        constants: Vec::new(),
        state: Vec::new(),
        postprocess: Vec::new(),
        default_outputs: Vec::new(),
        classes: Some(Classes {
            logits: "logits".into(),
            labels: Some("labels.json".into()),
            top_k: None,
            blank: None,
        }),
        calibration: Some(Calibration::bare(0.8, "fixed", 1000, 0.1)),
        thrift: None,
        probes: Probes { file: "probes.pb".into(), tolerance: 1e-3 },
        never_leaves_device: false,
        provenance: BTreeMap::new(),
    }
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

#[test]
fn golden_text() {
    insta::assert_snapshot!(String::from_utf8(manifest().to_json()).unwrap());
}

#[test]
fn signed_and_verified() {
    let signed = key().sign(&manifest());
    let back = SignedManifest::from_json(&signed.to_json()).unwrap();
    assert_eq!(back.verify(&[key().public()]), Ok(manifest()));
    assert_eq!(back.bundle(), ContentHash::of(&manifest().to_json()));
}

#[test]
fn every_forgery_has_its_name() {
    let signed = key().sign(&manifest());
    let trusted = [key().public()];
    let check = |forged: SignedManifest| forged.verify(&trusted).unwrap_err();

    let mut altered = signed.clone();
    altered.manifest = altered.manifest.replace("\"version\":1", "\"version\":2");
    assert_eq!(check(altered), InvalidSignature::Forged);

    let stranger = SigningKey::from_seed(&[2; 32]).sign(&manifest());
    assert_eq!(check(stranger.clone()), InvalidSignature::UnknownKey(stranger.key_id));

    let borrowed = SignedManifest { key_id: signed.key_id, ..stranger };
    assert_eq!(check(borrowed), InvalidSignature::Forged);

    let cut = SignedManifest { signature: signed.signature[..10].to_owned(), ..signed.clone() };
    assert_eq!(check(cut), InvalidSignature::Forged);

    let json = signed.to_json();
    for len in 0..json.len() {
        assert_eq!(SignedManifest::from_json(&json[..len]), Err(InvalidSignature::Malformed));
    }
}

#[test]
fn contradictions_are_refused() {
    let check = |spoil: &dyn Fn(&mut Manifest)| {
        let mut m = manifest();
        spoil(&mut m);
        Manifest::from_json(&m.to_json()).unwrap_err().to_string()
    };
    let report = [
        check(&|m| m.format = 2),
        check(&|m| _ = m.files.insert("../evil".into(), file(""))),
        check(&|m| _ = m.files.remove(MODEL_FILE)),
        check(&|m| _ = m.files.remove("labels.json")),
        check(&|m| m.files.get_mut(MODEL_FILE).unwrap().size_bytes = u64::MAX),
        check(&|m| m.inputs.clear()),
        check(&|m| m.preprocess[0].input = "sound".into()),
        check(&|m| m.classes.as_mut().unwrap().logits = "boxes".into()),
        check(&|m| m.classes = None),
        check(&|m| m.classes.as_mut().unwrap().top_k = Some(0)),
        check(&|m| m.calibration.as_mut().unwrap().threshold = 1.5),
        check(&|m| m.probes.tolerance = -1.0),
    ];
    insta::assert_snapshot!(report.join("\n"));
}

/// A sentence encoder: one text feeds three inputs.
const TEXT: &str = r#"{
    "preprocess": [{
        "input": "text",
        "targets": { "ids": "input_ids", "mask": "attention_mask" },
        "steps": [{ "step": "tokenize", "file": "tokenizer.json", "max_tokens": 256 }]
    }],
    "inputs": [
        { "name": "input_ids", "datatype": "INT64", "shape": [-1, -1] },
        { "name": "attention_mask", "datatype": "INT64", "shape": [-1, -1] }
    ],
    "outputs": [{ "name": "hidden", "datatype": "FP32", "shape": [-1, -1, 384] }],
    "postprocess": [{
        "output": "embedding",
        "from": "hidden",
        "steps": [{ "step": "mean-pool", "mask": "attention_mask" }, { "step": "l2-normalize" }]
    }],
    "default_outputs": ["embedding"]
}"#;

/// A speech detector with state and a sample rate that never changes.
const AUDIO: &str = r#"{
    "preprocess": [{
        "input": "audio",
        "targets": { "values": "x" },
        "steps": [
            { "step": "decode-wav" },
            { "step": "resample", "rate_hz": 16000 },
            { "step": "frame", "size": 512, "context": 64 }
        ]
    }],
    "inputs": [
        { "name": "x", "datatype": "FP32", "shape": [-1, -1] },
        { "name": "state", "datatype": "FP32", "shape": [2, -1, 128] },
        { "name": "sr", "datatype": "INT64", "shape": [] }
    ],
    "constants": [{ "input": "sr", "values": [16000] }],
    "state": [{ "output": "state_out", "input": "state", "shape": [2, 1, 128] }],
    "outputs": [
        { "name": "y", "datatype": "FP32", "shape": [-1, 1] },
        { "name": "state_out", "datatype": "FP32", "shape": [-1, -1, -1] }
    ]
}"#;

/// The parts of a manifest that such a text holds, around those of [`manifest`].
fn with_parts(parts: &str) -> Result<Manifest, InvalidManifest> {
    let mut json = serde_json::to_value(manifest()).unwrap();
    let parts: serde_json::Value = serde_json::from_str(parts).unwrap();
    let object = json.as_object_mut().unwrap();
    object.retain(|key, _| !["classes", "calibration"].contains(&key.as_str()));
    object.extend(parts.as_object().unwrap().clone());
    json["files"]["tokenizer.json"] = serde_json::to_value(file("{}")).unwrap();
    Manifest::from_json(&serde_json::to_vec(&json).unwrap())
}

#[test]
fn what_applications_see() {
    let names = |specs: Vec<TensorSpec>| specs.into_iter().map(|s| s.name).collect::<Vec<_>>();
    let text = with_parts(TEXT).unwrap();
    assert_eq!(text.served_inputs(), [spec("text", DataType::Bytes, &[-1])]);
    let embedding = spec("embedding", DataType::Fp32, &[-1, 384]);
    assert_eq!(text.served_outputs(), [text.outputs[0].clone(), embedding]);

    let audio = with_parts(AUDIO).unwrap();
    assert_eq!(names(audio.served_inputs()), ["audio"]);
    assert_eq!(names(audio.served_outputs()), ["y"]);

    assert_eq!(names(manifest().served_inputs()), ["image"]);
    assert_eq!(names(manifest().served_outputs()), ["logits", "label", "probability"]);
    for parts in [text, audio] {
        assert_eq!(Manifest::from_json(&parts.to_json()), Ok(parts));
    }
}

#[test]
fn contradictions_between_steps_are_refused() {
    let check = |parts: &str, from: &str, to: &str| {
        assert!(parts.contains(from), "{from}");
        with_parts(&parts.replacen(from, to, 1)).unwrap_err().to_string()
    };
    let report = [
        check(TEXT, "tokenizer.json", "other.json"),
        check(TEXT, "\"ids\": \"input_ids\"", "\"ids\": \"ids\""),
        check(TEXT, "\"ids\": \"input_ids\"", "\"ids\": \"attention_mask\""),
        check(TEXT, "\"input\": \"text\"", "\"input\": \"\""),
        check(AUDIO, "\"input\": \"audio\"", "\"input\": \"sr\""),
        check(TEXT, "\"from\": \"hidden\"", "\"from\": \"logits\""),
        check(TEXT, "\"output\": \"embedding\"", "\"output\": \"hidden\""),
        check(TEXT, "\"output\": \"embedding\"", "\"output\": \"label\""),
        check(TEXT, "\"mask\": \"attention_mask\" }, {", "\"mask\": \"mask\" }, {"),
        check(TEXT, "[\"embedding\"]", "[\"label\"]"),
        check(TEXT, "[\"embedding\"]", "[\"hidden\", \"hidden\"]"),
        check(AUDIO, "\"input\": \"sr\"", "\"input\": \"rate\""),
        check(AUDIO, "[16000]", "[16000, 1]"),
        check(AUDIO, "\"values\": [16000]", "\"shape\": [1], \"values\": [16000]"),
        check(AUDIO, "\"input\": \"state\"", "\"input\": \"x\""),
        check(AUDIO, "\"output\": \"state_out\"", "\"output\": \"stateN\""),
        check(AUDIO, "\"shape\": [2, 1, 128]", "\"shape\": [2, 1, 64]"),
        check(AUDIO, "\"shape\": [2, 1, 128]", "\"shape\": [2, -1, 128]"),
        check(AUDIO, "\"size\": 512", "\"frame_size\": 512"),
    ];
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn any_size_goes_where_the_dimension_is_open() {
    let spec = &manifest().inputs[0];
    assert!(spec.accepts(DataType::Fp32, &[7, 1, 28, 28]));
    for (datatype, shape) in [
        (DataType::Fp64, vec![1, 1, 28, 28]),
        (DataType::Fp32, vec![1, 1, 28]),
        (DataType::Fp32, vec![1, 3, 28, 28]),
    ] {
        assert!(!spec.accepts(datatype, &shape));
    }
}

fn thrifty() -> Manifest {
    let allowance = Allowance { transport: Transport::Int8, extent_max: 1.0 };
    let thrift = Thrift {
        inputs: [("image".to_owned(), allowance)].into(),
        tolerance: ThriftTolerance { max_changed: Some(0.01), max_difference: None },
        measured: ThriftEffect {
            items: 1000,
            changed: Some(1),
            changed_at_most: Some(0.0047),
            difference: 0.02,
            raw_bytes: 3136,
            sent_bytes: 792,
        },
    };
    Manifest { variant: Variant::Cloud, calibration: None, thrift: Some(thrift), ..manifest() }
}

#[test]
fn what_may_travel_packed_comes_back() {
    let text = thrifty().to_json();
    assert_eq!(Manifest::from_json(&text), Ok(thrifty()));
    insta::assert_snapshot!(serde_json::to_string_pretty(&thrifty().thrift).unwrap());
}

#[test]
fn thrift_that_makes_no_sense_is_refused() {
    let check = |words: &str, spoil: &dyn Fn(&mut Manifest, &mut Thrift)| {
        let mut m = thrifty();
        let mut thrift = m.thrift.take().unwrap();
        spoil(&mut m, &mut thrift);
        m.thrift = Some(thrift);
        let said = m.check().unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    };
    fn allowance(thrift: &mut Thrift) -> &mut Allowance {
        thrift.inputs.get_mut("image").unwrap()
    }
    check("for what the cloud variant is sent", &|m, _| m.variant = Variant::Edge);
    check("no FP32 input", &|m, _| m.inputs[0].datatype = DataType::Int32);
    check("samples of sound", &|m, _| m.preprocess[0].steps = vec![Step::Fit { samples: 8 }]);
    check("needs a form", &|_, t| allowance(t).transport = Transport::Raw);
    check("needs a form", &|_, t| allowance(t).extent_max = f32::NAN);
    check("max_changed", &|_, t| t.tolerance.max_changed = None);
    check("max_changed", &|_, t| t.tolerance.max_changed = Some(1.5));
    check("max_difference", &|_, t| t.tolerance.max_difference = Some(f32::NAN));
    check("max_difference", &|m, _| m.classes = None);
}
