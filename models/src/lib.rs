//! All of Outrigger that knows tensors as numbers, and the only place that knows ONNX Runtime.
//!
//! # What the agent and the cloud call
//!
//! ```no_run
//! use outrigger_models::bundle::Bundle;
//! use outrigger_models::model::{LoadedModel, ModelOptions};
//! use outrigger_models::ort_backend::{OrtBackend, find_library};
//! use outrigger_models::worker::Job;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::path::Path::new("");
//! # let manifest = protocol::manifest::Manifest::from_json(b"")?;
//! # let image = protocol::tensor::Tensor::from_f32("image", vec![1, 1], &[0.0])?;
//! let backend = OrtBackend::open(&find_library(None)?)?;
//! let bundle = Bundle::open(folder, manifest)?; // every file's hash, before anything is loaded
//! let model = LoadedModel::load(&backend, bundle, &ModelOptions::default())?;
//! model.check_probes()?; // does this machine compute what was measured?
//! let job = Job { inputs: vec![image], ..Job::default() };
//! let ticket = model.submit(job)?; // refused at once when the queue is full
//! let answer = ticket.wait()?; // or, in async code, `ticket.await?`
//! println!("{:?} {:?}", answer.label, answer.confidence);
//! # Ok(())
//! # }
//! ```
//!
//! # How it hangs together
//!
//! - [`backend`]: the traits. [`ort_backend`] is ONNX Runtime, [`fake`] a deterministic stand-in
//!   for tests of everything around a model.
//! - [`preprocess`]: from what an application has (pixels, image files, sounds, texts) to the
//!   model's inputs. [`postprocess`]: from its outputs to embeddings, labels and probabilities;
//!   [`confidence`]: how sure it is. [`stream`]: what is kept from one frame or piece to the next.
//!   [`runner`] puts all of it around a session.
//! - [`worker`]: one thread owns one runner, behind a bounded queue; [`model`] is a checked
//!   [`bundle`] with its workers; [`probing`]: how near its answers
//!   to the probes come, alone and among others.
//! - [`sessions`]: the same bundle for a server that decides itself which requests share a run.
//! - [`providers`]: which accelerator runs a model, proven on this machine ([`compare`]).
//! - [`timing`]: how long models take, in turn; [`machine`]: and on what.
//! - [`memory`]: what this process holds, so that a model's share can be measured.
//! - [`onnx`]: ONNX files read, edited and written, for the toolchain.
//! - [`authoring`]: makes bundles from a folder with a `model.toml`, measures the probes, and
//!   chooses the threshold ([`calibrate`]).
//! - [`error`]: why a request was not answered; becomes a [`protocol::problem::Problem`].
//!
//! Nothing here is async or knows the network: a [`worker::Ticket`] is a plain future that any
//! executor can wait for.

pub mod authoring;
pub mod backend;
pub mod bundle;
pub mod calibrate;
pub mod compare;
pub mod confidence;
pub mod error;
pub mod fake;
pub mod machine;
pub mod memory;
pub mod model;
pub mod numbers;
pub mod onnx;
pub mod ort_backend;
pub mod postprocess;
pub mod preprocess;
pub mod probing;
pub mod providers;
pub mod runner;
pub mod sessions;
pub mod stream;
pub mod timing;
pub mod worker;
