//! The short form of `cargo xtask prove swap`.
#![allow(clippy::unwrap_used)]

use outrigger_tests::swap::{Amount, run};

#[test]
fn nobody_notices_an_exchange() {
    println!("{}", run(Amount::SHORT).unwrap());
}
