//! The short form of `cargo xtask prove power-cut`, for root; the program itself says why it cannot
//! run for others.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::program;
use std::process::Command;

#[test]
fn no_power_cut_costs_what_was_acknowledged_or_the_start() {
    let output = Command::new(program("outrigger-power-cut").unwrap()).arg("--short").output();
    let output = output.unwrap();
    let [said, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    println!("{said}");
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("proven:") || said.contains("SKIPPED:"), "{said}");
}
