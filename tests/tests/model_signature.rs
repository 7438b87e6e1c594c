//! The OpenSSF's signature over a model: PyPI's `model-signing` accepts ours, we accept its, and neither
//! accepts a file that was altered, added or taken away.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::python::Environment;
use outrigger_tests::world::{Operator, copy_of_fashion};
use protocol::model_signature::{ModelKey, verify};
use std::path::Path;
use std::process::Command;

/// Whether PyPI's program accepts the folder.
fn accepts(environment: &Environment, folder: &Path, signature: &Path, public: &Path) -> bool {
    let output = Command::new(environment.program("model_signing"))
        .args(["verify", "key"])
        .arg(folder)
        .arg("--signature")
        .arg(signature)
        .arg("--public_key")
        .arg(public)
        .output()
        .unwrap();
    output.status.success()
}

#[test]
fn each_accepts_the_others_and_nothing_that_was_altered() {
    let packages = ["model-signing==1.1.1", "pyopenssl==26.4.0"];
    let Some(environment) = Environment::with(&packages).unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let operator = Operator::new(&folder.path().join("operator"));
    let model = copy_of_fashion(folder.path()).unwrap();
    let text = model.to_str().unwrap();

    operator.run(&["model", "sign", text]).unwrap();
    let (public, private) =
        (operator.config_dir().join("model.pub"), operator.config_dir().join("model.key"));
    let ours = model.join("model.sig");
    let key = public.to_str().unwrap();
    let verify = || operator.run(&["model", "verify", text, "--public-key", key]);
    assert!(accepts(&environment, &model, &ours, &public));
    verify().unwrap();

    let file = model.join("labels.json");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&good, b" ".as_slice()].concat()).unwrap();
    assert!(!accepts(&environment, &model, &ours, &public));
    assert!(verify().unwrap_err().to_string().contains("labels.json was altered"));
    std::fs::remove_file(&file).unwrap();
    assert!(!accepts(&environment, &model, &ours, &public));
    assert!(verify().unwrap_err().to_string().contains("labels.json is missing"));
    std::fs::write(&file, &good).unwrap();
    std::fs::write(model.join("more"), "").unwrap();
    assert!(!accepts(&environment, &model, &ours, &public));
    assert!(verify().unwrap_err().to_string().contains("more was added"));
    std::fs::remove_file(model.join("more")).unwrap();

    std::fs::remove_file(&ours).unwrap();
    let theirs = folder.path().join("theirs.sig");
    let mut sign = Command::new(environment.program("model_signing"));
    sign.args(["sign", "key"]).arg(&model).arg("--private_key").arg(&private);
    let signed = sign.arg("--signature").arg(&theirs).output().unwrap();
    assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let theirs = theirs.to_str().unwrap();
    operator.run(&["model", "verify", text, "--public-key", key, "--signature", theirs]).unwrap();
}

#[test]
fn every_flipped_byte_is_refused_or_says_the_same() {
    let random = ring::rand::SystemRandom::new();
    let key = ModelKey::from_pem(&ModelKey::generate_pem(&random).unwrap(), &random).unwrap();
    let files = [("a".to_owned(), protocol::id::ContentHash::of(b"a"))].into();
    let signed =
        protocol::model_signature::SignedFiles { name: "m".to_owned(), files, ignored: Vec::new() };
    let bundle = key.sign(&signed, &random).unwrap().into_bytes();
    let public = key.public_pem();
    assert_eq!(verify(&bundle, &public), Ok(signed.clone()));
    for at in 0..bundle.len() {
        let mut flipped = bundle.clone();
        flipped[at] ^= 1;
        // A flip in a field that says nothing (`keyid`) is not seen.
        if let Ok(read) = verify(&flipped, &public) {
            assert_eq!(read, signed, "{at}");
        }
    }
    let other = ModelKey::from_pem(&ModelKey::generate_pem(&random).unwrap(), &random).unwrap();
    assert!(verify(&bundle, &other.public_pem()).is_err());
}
