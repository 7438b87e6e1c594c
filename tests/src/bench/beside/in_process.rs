//! The yardstick: the same model called in this process, one call after the other.

use super::subjects::Subject;
use crate::world::CpuMeter;
use anyhow::Context;
use models::backend::{Backend, Session, SessionOptions};
use models::ort_backend::{OrtBackend, find_library};
use protocol::tensor::Tensor;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn load(onnx: &Path) -> anyhow::Result<Box<dyn Session>> {
    let backend = OrtBackend::open(&find_library(None)?)?;
    Ok(backend.load(onnx, &SessionOptions::default())?)
}

/// What the model says.
pub(in crate::bench) fn answer(onnx: &Path, input: &Tensor) -> anyhow::Result<Arc<Vec<f32>>> {
    let outputs = load(onnx)?.run(std::slice::from_ref(input), &[])?;
    let numbers = outputs.first().and_then(Tensor::to_f32).context("no numbers came out")?;
    Ok(Arc::new(numbers))
}

/// A model that is called directly.
pub(in crate::bench) struct InProcess {
    session: Box<dyn Session>,
    input: Tensor,
}

impl InProcess {
    pub(in crate::bench) fn new(subject: &Subject) -> anyhow::Result<Self> {
        Ok(Self { session: load(&subject.onnx)?, input: subject.input.clone() })
    }

    /// Calls for so long, and at least so often; what each call took, and CPU seconds in all.
    pub(in crate::bench) fn call_for(
        &mut self,
        time: Duration,
        least: usize,
    ) -> anyhow::Result<(Vec<Duration>, f64)> {
        let cpu = CpuMeter::start(&[std::process::id()])?;
        let end = Instant::now() + time;
        let mut latencies = Vec::new();
        let mut start = Instant::now();
        while start < end || latencies.len() < least {
            self.session.run(std::slice::from_ref(&self.input), &[])?;
            let now = Instant::now();
            latencies.push(now - start);
            start = now;
        }
        Ok((latencies, cpu.seconds()?))
    }
}
