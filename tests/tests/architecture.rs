//! The real workspace keeps the rules of the architecture. What the rules are, and that their checkers do fail:
//! `tests/src/architecture.rs`.

use std::path::{Path, PathBuf};

use outrigger_tests::architecture::{Violation, imports, metadata, report, sources, top_level};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

#[track_caller]
fn check(violations: &[Violation]) {
    if let Some(report) = report(violations) {
        panic!("{report}");
    }
}

#[test]
fn imports_go_one_way() {
    let graph = metadata::workspace_graph(&root()).expect("the workspace's graph");
    assert!(graph.members().count() >= 10, "cargo metadata lists the workspace's crates");
    check(&imports::check(&graph));
}

#[test]
fn source_files_are_short_and_finished() {
    let files = sources::files(&root()).expect("the workspace's folders");
    assert!(files.contains(&PathBuf::from("protocol/src/lib.rs")), "the walk finds the sources");
    let violations: Vec<Violation> = files.iter().flat_map(|file| check_file(file)).collect();
    check(&violations);
}

fn check_file(file: &Path) -> Vec<Violation> {
    let text = std::fs::read_to_string(root().join(file))
        .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    sources::check(&file.to_string_lossy(), &text)
}

#[test]
fn the_top_level_is_fixed() {
    let names = top_level::names(&root()).expect("the root's names");
    assert!(names.iter().any(|name| name == "Cargo.toml"), "this is the root");
    check(&top_level::check(&names));
}
