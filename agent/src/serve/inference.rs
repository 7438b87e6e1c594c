//! What the standard's calls mean on a device.

use super::Context;
use ::link::traces::Trace;
use oip::{Ask, Caller, Inference, Intake};
use protocol::id::{ModelName, Version};
use protocol::infer::{InferRequest, InferResponse};
use protocol::oip::{ModelDescription, SequenceLimits};
use protocol::problem::Problem;
use protocol::wire::inference::ModelStatistics;
use protocol::wire::inference::repository_index_response::ModelIndex;
use std::sync::Arc;

impl Inference for Context {
    /// The queue of the model decides, once the whole request is there.
    type Place = Trace;

    fn admit(&self, _: &Caller, ask: &Ask<'_>) -> Result<Trace, Problem> {
        let origin = ask.origin.clone();
        Ok(self.traces.serve(origin, "http", ask.model, || self.clock.now_ns()))
    }

    fn name(&self) -> &str {
        "outrigger-agent"
    }

    fn version(&self) -> &str {
        crate::program::version()
    }

    fn is_ready(&self) -> bool {
        self.requests.engine().is_ready()
    }

    fn describe(
        &self,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<Arc<ModelDescription>, Problem> {
        Ok(self.requests.engine().get(model, version)?.description().clone())
    }

    async fn infer(
        &self,
        mut trace: Trace,
        request: InferRequest,
    ) -> Result<InferResponse, Problem> {
        let result = self.requests.answer(request, &trace).await;
        match &result {
            Ok(response) => trace.answered(&response.verdict),
            Err(problem) => trace.failed(problem),
        }
        result
    }

    fn spoilt(&self, mut trace: Trace, problem: &Problem) {
        trace.failed(problem);
        self.counters.refused(problem);
    }

    fn index(&self) -> Vec<ModelIndex> {
        self.requests.engine().index()
    }

    async fn load(&self, _: &Caller, model: &ModelName) -> Result<(), Problem> {
        self.installer.load(model).await?;
        self.counters.loaded(model);
        Ok(())
    }

    async fn unload(&self, _: &Caller, model: &ModelName) -> Result<(), Problem> {
        // Ending a session joins its threads.
        tokio::task::block_in_place(|| self.requests.engine().unload(model))?;
        self.counters.unloaded(model);
        Ok(())
    }

    fn statistics(&self) -> Vec<ModelStatistics> {
        self.requests.engine().statistics()
    }

    fn sequence_limits(&self) -> SequenceLimits {
        self.requests.sequences().limits()
    }

    fn intake(&self) -> &Intake {
        &self.intake
    }

    fn refused(&self, problem: &Problem) {
        self.counters.refused(problem);
    }
}
