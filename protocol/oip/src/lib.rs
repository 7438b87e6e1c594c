//! The Open Inference Protocol as a server, over anything that can answer.
//!
//! Whoever can answer implements [`Inference`]; [`router`] then speaks the standard for it, HTTP and
//! gRPC on the same socket, and [`listen`] accepts connections with bounded patience. Who calls, and
//! what that caller may do, is decided before a request gets here: it carries a [`Caller`], and one
//! that carries none is refused.
//!
//! What bodies and messages mean is in `protocol::oip`; here is only what touches a socket.

mod caller;
mod grpc;
mod http;
mod intake;
pub mod listen;
mod reflection;
mod refusal;
mod statistics;
mod unread;

pub use caller::Caller;
pub use intake::{BODIES_MAX_BYTES, BODY_PATIENCE, Intake};
pub use reflection::reflection;
pub use refusal::{forbidden, is_grpc, too_many, unauthenticated};
pub use statistics::Statistics;
pub use unread::discard;

use protocol::id::{ModelName, Version};
use protocol::infer::{InferRequest, InferResponse};
use protocol::oip::{ModelDescription, SequenceLimits};
use protocol::problem::Problem;
use protocol::wire::inference::ModelStatistics;
use protocol::wire::inference::repository_index_response::ModelIndex;
use std::sync::Arc;
use std::time::Duration;

/// What is known of a request before its body is read.
#[derive(Debug)]
pub struct Ask<'a> {
    /// The model.
    pub model: &'a ModelName,
    /// Its version; the one that answers by the model's name when absent.
    pub version: Option<Version>,
    /// Bytes of its body or message; `None` where they are not known, or grow by decompression.
    pub body_bytes: Option<u64>,
}

/// Something that answers inference requests.
pub trait Inference: Send + Sync + 'static {
    /// The room that one request takes, given back when it is dropped.
    type Place: Send;

    /// The server's name.
    fn name(&self) -> &str;

    /// The server's version.
    fn version(&self) -> &str;

    /// Whether requests can be answered.
    fn is_ready(&self) -> bool;

    /// The model that answers to this name.
    ///
    /// # Errors
    /// `NotFound`, with what is there instead.
    fn describe(
        &self,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<Arc<ModelDescription>, Problem>;

    /// Takes a request in, or refuses it at once: before its body or message is read, where its
    /// beginning says which model it means. A refusal is counted here.
    ///
    /// # Errors
    /// Why it is not taken.
    fn admit(&self, caller: &Caller, ask: &Ask<'_>) -> Result<Self::Place, Problem>;

    /// A request was refused on its header, and its refusal goes out so long after that was there.
    fn turned_away(&self, _took: Duration) {}

    /// Answers inside the request's deadline, or says why there is no answer. Dropping the future
    /// cancels the request.
    fn infer(
        &self,
        place: Self::Place,
        request: InferRequest,
    ) -> impl Future<Output = Result<InferResponse, Problem>> + Send;

    /// Every installed model, whether it answers or not.
    fn index(&self) -> Vec<ModelIndex>;

    /// Lets an installed model answer again.
    fn load(
        &self,
        caller: &Caller,
        model: &ModelName,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Stops a model from answering, until it is loaded.
    fn unload(
        &self,
        caller: &Caller,
        model: &ModelName,
    ) -> impl Future<Output = Result<(), Problem>> + Send;

    /// What became of the requests to every installed model.
    fn statistics(&self) -> Vec<ModelStatistics>;

    /// How many sequences it keeps, and how long.
    fn sequence_limits(&self) -> SequenceLimits {
        SequenceLimits::default()
    }

    /// What callers may make it hold. The same one each time.
    fn intake(&self) -> &Intake;

    /// A request was refused before it could be answered, or its answer cannot be said.
    fn refused(&self, problem: &Problem);
}

/// The states of a model in an index.
pub mod state {
    /// It answers.
    pub const READY: &str = "READY";
    /// It is installed and does not answer.
    pub const UNAVAILABLE: &str = "UNAVAILABLE";
}

/// The standard's paths and calls, HTTP and gRPC. What is at no path of it is answered with an
/// error in the standard's shape.
pub fn router<I: Inference>(inference: Arc<I>) -> axum::Router {
    grpc::routes(inference.clone()).merge(http::routes(inference))
}

/// The statistics of the models that a caller may know of.
fn statistics<I: Inference>(
    inference: &I,
    caller: &Caller,
    wanted: Option<(ModelName, Option<Version>)>,
) -> Result<Vec<ModelStatistics>, Problem> {
    let mut all = inference.statistics();
    let Some((model, version)) = wanted else {
        all.retain(|s| caller.knows(&s.name));
        return Ok(all);
    };
    caller.check_model(&model)?;
    let named = |s: &ModelStatistics| {
        s.name == model.as_str() && version.is_none_or(|v| s.version == v.to_string())
    };
    all.retain(named);
    if all.is_empty() {
        inference.describe(&model, version)?; // says what is there instead
    }
    Ok(all)
}

/// The installed models that a caller may know of.
fn index<I: Inference>(inference: &I, caller: &Caller, ready_only: bool) -> Vec<ModelIndex> {
    let mut all = inference.index();
    all.retain(|m| caller.knows(&m.name) && (!ready_only || m.state == state::READY));
    all
}

#[cfg(test)]
mod tests;
