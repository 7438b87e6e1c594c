//! Puts into the program the time of the build, for a device whose clock stands before it is wrong, and what it
//! is built for.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    println!("cargo:rustc-env=OUTRIGGER_BUILD_S={}", given.unwrap_or_else(now));
    let target = std::env::var("TARGET").expect("cargo says what it builds for");
    println!("cargo:rustc-env=OUTRIGGER_TARGET={target}");
}
