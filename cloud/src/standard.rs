//! What the standard's calls mean on the cloud: the cloud variants answer, for the holders of keys.

use oip::{Ask, Caller, Inference, Intake};
use protocol::id::{ModelName, Version};
use protocol::infer::{InferRequest, InferResponse};
use protocol::limits::DEADLINE_MAX_MS;
use protocol::oip::{ModelDescription, SequenceLimits};
use protocol::problem::{Problem, ProblemCode};
use protocol::wire::inference::ModelStatistics;
use protocol::wire::inference::repository_index_response::ModelIndex;
use std::sync::Arc;
use std::time::Duration;

use crate::access::LiveKey;
use crate::metrics::Transport;
use crate::requests::Taken;
use crate::serving::{Asker, Knock, Size};
use crate::state::{Cloud, now_ns, now_s};
use crate::store::audit::By;

mod gate;

/// How long an answer is waited for when the request does not say.
const DEADLINE_DEFAULT_MS: u32 = 1000;

/// The standard's routes, HTTP and gRPC, and gRPC reflection, behind the gate.
pub fn router(cloud: &Arc<Cloud>, body: Duration) -> axum::Router {
    let gate = axum::middleware::from_fn_with_state(cloud.clone(), gate::admit);
    let intake = Intake::new(body, oip::BODIES_MAX_BYTES);
    let routes = oip::router(Arc::new(Standard { cloud: cloud.clone(), intake }));
    let routes = match oip::reflection() {
        Ok(reflection) => reflection.merge(routes),
        Err(error) => {
            cloud.events.internal_error(&error);
            routes
        }
    };
    routes.layer(gate)
}

/// The cloud as the standard sees it.
struct Standard {
    cloud: Arc<Cloud>,
    intake: Intake,
}

impl Standard {
    /// The key that the gate let in. A stream outlives the call that opened it: each of its
    /// requests asks anew whether the key still holds.
    fn key(&self, caller: &Caller) -> Result<Arc<LiveKey>, Problem> {
        self.cloud.access.still_live(caller.name()).ok_or_else(|| {
            Problem::new(ProblemCode::Unauthorised, "this key has been revoked, or has expired")
                .hint("ask an admin of this cloud for another")
        })
    }

    /// What is changed on an inference node would be changed there alone, and not be noted.
    fn needs_control(&self) -> Result<(), Problem> {
        if !self.cloud.control.is_elsewhere() {
            return Ok(());
        }
        let text = "this is an inference node, which loads what its control node says";
        Err(Problem::new(ProblemCode::InvalidRequest, text).hint("ask the control node"))
    }

    /// Load and unload are changes like any other.
    async fn note(&self, action: &'static str, caller: &Caller, model: &ModelName) {
        let actor = match self.cloud.access.still_live(caller.name()) {
            Some(key) => key.actor(),
            None => caller.name().to_owned(),
        };
        let (by, model) = (By { actor, now_s: now_s() }, model.clone());
        let noted = self.cloud.db.call(move |store| store.note(&by, action, model.as_str())).await;
        if let Err(error) = noted {
            self.cloud.events.internal_error(&error);
        }
    }
}

impl Inference for Standard {
    type Place = Taken;

    fn name(&self) -> &str {
        "outrigger-cloud"
    }

    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    fn is_ready(&self) -> bool {
        self.cloud.is_ready()
    }

    fn describe(
        &self,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<Arc<ModelDescription>, Problem> {
        self.cloud.serving.describe(model, version)
    }

    fn admit(&self, caller: &Caller, ask: &Ask<'_>) -> Result<Taken, Problem> {
        let events = &self.cloud.events;
        events.request_arrived();
        let taken = self.key(caller).and_then(|key| {
            // What does not say how long it is was counted by the intake, as it arrived. The rest
            // stands in the body: no request is late yet, or larger than one item.
            let bytes = ask.body_bytes.unwrap_or(0);
            let remaining = Duration::from_millis(DEADLINE_MAX_MS.into());
            let size = Size { items: 1, bytes, priority: 0, remaining, background: false };
            let Ask { model, version, .. } = *ask;
            let knock = Knock { asker: Asker::Client, model, version, size };
            let trace = self.cloud.traces.serve(ask.origin.clone(), "https", model, now_ns);
            self.cloud.admit(&key.identity, &knock, trace)
        });
        taken.inspect_err(|problem| events.request_refused(&caller.name(), problem))
    }

    fn turned_away(&self, took: Duration) {
        self.cloud.observed.refused(Transport::Https, took);
    }

    async fn infer(&self, place: Taken, request: InferRequest) -> Result<InferResponse, Problem> {
        let _flying = self.cloud.in_flight.enter();
        let wait_ms = request.deadline_ms.unwrap_or(DEADLINE_DEFAULT_MS).min(DEADLINE_MAX_MS);
        let caller = place.caller().clone();
        let specified = place.specify(&request, Duration::from_millis(wait_ms.into()));
        let place =
            specified.inspect_err(|problem| self.cloud.events.request_refused(&caller, problem))?;
        let result = self.cloud.answer(place, request).await;
        match &result {
            Ok(_) => self.cloud.events.request_answered(),
            Err(problem) => self.cloud.events.request_failed(&caller, problem),
        }
        result
    }

    fn index(&self) -> Vec<ModelIndex> {
        self.cloud.serving.index()
    }

    async fn load(&self, caller: &Caller, model: &ModelName) -> Result<(), Problem> {
        self.needs_control()?;
        self.cloud.serving.load_model(model).await?;
        self.note("model.load", caller, model).await;
        Ok(())
    }

    async fn unload(&self, caller: &Caller, model: &ModelName) -> Result<(), Problem> {
        self.needs_control()?;
        self.cloud.serving.unload_model(model)?;
        self.note("model.unload", caller, model).await;
        Ok(())
    }

    fn statistics(&self) -> Vec<ModelStatistics> {
        self.cloud.serving.statistics()
    }

    fn sequence_limits(&self) -> SequenceLimits {
        SequenceLimits::default()
    }

    fn intake(&self) -> &Intake {
        &self.intake
    }

    fn spoilt(&self, place: Taken, problem: &Problem) {
        place.spoilt(problem);
        self.refused(problem);
    }

    fn refused(&self, problem: &Problem) {
        self.cloud.events.request_refused(&"client", problem);
    }
}
