//! A checked bundle whose sessions belong to whoever opens them.
//!
//! [`crate::model::LoadedModel`] gives every session a thread and a queue. A server that decides by
//! itself which requests run together, on which session, and in whose thread, takes this instead:
//! requests become questions, questions are asked of a [`Runner`], and what it gives becomes a reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use protocol::manifest::Manifest;
use protocol::tensor::DataType;

use crate::backend::{Backend, SessionOptions};
use crate::bundle::{Bundle, BundleError, ProbeCase};
use crate::error::RunError;
use crate::model::{ModelError, ProbeError, compare_probe, open_session, pipelines, tolerance};
use crate::runner::{Given, Pipelines, Question, Reply, Runner};
use crate::worker::Job;

/// A bundle that opens sessions.
pub struct Sessions {
    backend: Arc<dyn Backend>,
    bundle: Bundle,
    pipelines: Pipelines,
    options: SessionOptions,
    devices: Vec<u32>,
    opened: AtomicUsize,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("model", &self.manifest().model).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Checks what stands around the model. Nothing is loaded yet. Sessions are opened on these devices
    /// of the options' provider by turns; on the one that the options name where there are none.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn new(
        backend: Arc<dyn Backend>,
        bundle: Bundle,
        options: SessionOptions,
        devices: Vec<u32>,
    ) -> Result<Self, ModelError> {
        let pipelines = pipelines(&bundle)?;
        Ok(Self { backend, bundle, pipelines, options, devices, opened: AtomicUsize::new(0) })
    }

    /// Loads the model into one more session.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn open(&self) -> Result<Runner, ModelError> {
        let turn = self.opened.fetch_add(1, Relaxed) % self.devices.len().max(1);
        let device = self.devices.get(turn).copied().unwrap_or(self.options.device);
        let options = SessionOptions { device, ..self.options.clone() };
        let session = open_session(&*self.backend, &self.bundle, &options)?;
        Ok(Runner::new(session, self.pipelines.clone()))
    }

    /// Memory that all of its sessions take, in bytes, where the backend knows. May take a millisecond.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.backend.memory_bytes(&self.bundle.model_path())
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// The labels of its classes, in their order; none for a model without.
    pub fn labels(&self) -> &[String] {
        self.bundle.labels()
    }

    /// The probes of its bundle, read anew.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn probes(&self) -> Result<Vec<ProbeCase>, BundleError> {
        self.bundle.probes()
    }

    /// Whether the first dimension of everything that the model takes and gives counts items, and
    /// answers can be cut apart by them.
    pub fn counts_items(&self) -> bool {
        let manifest = self.manifest();
        let batched = |shape: &[i64]| shape.first() == Some(&-1);
        manifest.state.is_empty()
            && manifest.inputs.iter().all(|spec| batched(&spec.shape))
            && manifest.outputs.iter().all(|s| batched(&s.shape) && s.datatype != DataType::Bytes)
    }

    /// Whether making a question of this request costs nothing.
    pub fn takes_as_it_is(&self, job: &Job) -> bool {
        self.pipelines.takes_as_it_is(job)
    }

    /// Pre-processes a request, and checks it.
    ///
    /// # Errors
    /// [`RunError`] of a request that cannot be used.
    pub fn question(&self, job: Job) -> Result<Question, RunError> {
        let manifest = self.manifest();
        self.pipelines.question((&manifest.inputs, &manifest.outputs), job)
    }

    /// Makes of what a run gave what the request wanted.
    ///
    /// # Errors
    /// [`RunError`], of this request alone.
    pub fn reply(&self, question: &Question, given: Given) -> Result<Reply, RunError> {
        self.pipelines.reply(question, given)
    }

    /// Answers every probe of the bundle and compares, as
    /// [`LoadedModel::check_probes`](crate::model::LoadedModel::check_probes) does.
    ///
    /// # Errors
    /// [`ProbeError`] with the first difference.
    pub fn check_probes(&self, runner: &mut Runner) -> Result<usize, ProbeError> {
        let cases = self.probes()?;
        for (probe, case) in cases.iter().enumerate() {
            let reply = self.answer_probe(runner, case);
            let reply = reply.map_err(|source| ProbeError::Run { probe, source })?;
            let tolerance =
                |expected: &_| tolerance(self.options.provider, self.manifest(), expected);
            compare_probe(probe, case, &reply.outputs, tolerance)?;
        }
        Ok(cases.len())
    }

    fn answer_probe(&self, runner: &mut Runner, case: &ProbeCase) -> Result<Reply, RunError> {
        let outputs = case.outputs.iter().map(|output| output.name().to_owned()).collect();
        let job = Job { inputs: case.inputs.clone(), outputs, ..Job::default() };
        let question = self.question(job)?;
        let given = runner.ask(&[&question])?.given.pop();
        self.reply(&question, given.unwrap_or_else(|| Err(RunError::Stopped))?)
    }
}
