//! The README's table of limits says what the programs do.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::repository;

#[test]
fn the_table_of_limits_is_the_codes() {
    let read = |file: &str| std::fs::read_to_string(repository().join(file)).unwrap();
    let expected = outrigger_tests::limits::table(&read("agent/packaging/agent.toml")).unwrap();
    let readme = read("README.md");
    let block = readme
        .split_once("<!-- limits -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- end -->"));
    let (found, _) = block.expect("the README has a table of limits between its two marks");
    assert!(found == expected, "the README's table of limits should be:\n\n{expected}");
}
