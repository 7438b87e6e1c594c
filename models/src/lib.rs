//! x
#![allow(missing_docs)]
pub mod backend;
pub mod bundle;
pub mod calibrate;
pub mod confidence;
pub mod error;
pub mod fake;
pub mod model;
pub mod numbers;
pub mod ort_backend;
pub mod preprocess;
pub mod runner;
pub mod worker;
