//! Opening ONNX Runtime: one library per process, and errors that say why.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use std::path::Path;

use outrigger_models::ort_backend::{OpenError, OrtBackend, find_library};

#[test]
fn one_library_per_process_and_reasons_for_the_rest() {
    let no_library = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let error = OrtBackend::open(&no_library).unwrap_err();
    assert!(matches!(error, OpenError::Library { .. }), "{error}");
    if cfg!(target_os = "linux") {
        assert!(error.to_string().contains("ELF"), "the loader's own words: {error}");
    }
    let absent = OrtBackend::open(Path::new("/absent.so")).unwrap_err();
    assert!(absent.to_string().contains("cargo xtask setup"), "{absent}");

    let library = find_library(None).unwrap();
    assert!(OrtBackend::open(&library).is_ok());
    assert!(OrtBackend::open(&library).is_ok());
    assert!(matches!(OrtBackend::open(&no_library), Err(OpenError::Other { .. })));
}
