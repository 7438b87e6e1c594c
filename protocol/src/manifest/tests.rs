use super::*;

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
            steps: vec![
                Step::Decode { color: Color::Gray },
                Step::Normalize { mean: vec![0.0], std: vec![255.0] },
                Step::Layout { order: Layout::Nchw },
            ],
        }],
        classes: Some(Classes { logits: "logits".into(), labels: Some("labels.json".into()) }),
        calibration: Some(Calibration {
            threshold: 0.8,
            method: "fixed".into(),
            samples: 1000,
            deferral_rate: 0.1,
        }),
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
        check(&|m| m.calibration.as_mut().unwrap().threshold = 1.5),
        check(&|m| m.probes.tolerance = -1.0),
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
