//! What the standard's calls mean on the cloud: the cloud variants answer, for the holders of keys.

use oip::{Ask, Caller, Inference};
use protocol::id::{ModelName, Version};
use protocol::infer::{InferRequest, InferResponse};
use protocol::limits::DEADLINE_MAX_MS;
use protocol::oip::ModelDescription;
use protocol::problem::{Problem, ProblemCode};
use protocol::wire::inference::ModelStatistics;
use protocol::wire::inference::repository_index_response::ModelIndex;
use std::sync::Arc;
use std::time::Duration;

use crate::access::LiveKey;
use crate::requests::Taken;
use crate::serving::Asker;
use crate::state::{Cloud, now_s};
use crate::store::audit::By;

mod gate;

/// How long an answer is waited for when the request does not say.
const DEADLINE_DEFAULT_MS: u32 = 1000;

/// The standard's routes, HTTP and gRPC, and gRPC reflection, behind the gate.
pub fn router(cloud: &Arc<Cloud>) -> axum::Router {
    let gate = axum::middleware::from_fn_with_state(cloud.clone(), gate::admit);
    let routes = oip::router(Arc::new(Standard(cloud.clone())));
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
struct Standard(Arc<Cloud>);

impl Standard {
    /// The key that the gate let in. A stream outlives the call that opened it: each of its
    /// requests asks anew whether the key still holds.
    fn key(&self, caller: &Caller) -> Result<Arc<LiveKey>, Problem> {
        self.0.access.still_live(caller.id()).ok_or_else(|| {
            Problem::new(ProblemCode::Unauthorised, "this key has been revoked, or has expired")
                .hint("ask an admin of this cloud for another")
        })
    }

    /// Load and unload are changes like any other.
    async fn note(&self, action: &'static str, caller: &Caller, model: &ModelName) {
        let actor = match self.0.access.still_live(caller.id()) {
            Some(key) => key.actor(),
            None => caller.id().to_owned(),
        };
        let (by, model) = (By { actor, now_s: now_s() }, model.clone());
        let noted = self.0.db.call(move |store| store.note(&by, action, model.as_str())).await;
        if let Err(error) = noted {
            self.0.events.internal_error(&error);
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
        self.0.is_ready() && self.0.serving.can_run()
    }

    fn describe(
        &self,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<Arc<ModelDescription>, Problem> {
        self.0.serving.describe(model, version)
    }

    fn admit(&self, caller: &Caller, ask: &Ask<'_>) -> Result<Taken, Problem> {
        let events = &self.0.events;
        events.request_arrived();
        let taken = self.key(caller).and_then(|key| {
            // The deadline is in the body, so no request is late yet.
            let remaining = Duration::from_millis(DEADLINE_MAX_MS.into());
            self.0.admit(&key.identity, Asker::Client, ask, remaining)
        });
        taken.inspect_err(|problem| events.request_refused(&caller.id(), problem))
    }

    async fn infer(&self, place: Taken, request: InferRequest) -> Result<InferResponse, Problem> {
        let _flying = self.0.in_flight.enter();
        let wait_ms = request.deadline_ms.unwrap_or(DEADLINE_DEFAULT_MS).min(DEADLINE_MAX_MS);
        let deadline = place.arrived + Duration::from_millis(wait_ms.into());
        let caller = place.caller().clone();
        let result = self.0.answer(place, request, deadline).await;
        match &result {
            Ok(_) => self.0.events.request_answered(),
            Err(problem) => self.0.events.request_failed(&caller, problem),
        }
        result
    }

    fn index(&self) -> Vec<ModelIndex> {
        self.0.serving.index()
    }

    async fn load(&self, caller: &Caller, model: &ModelName) -> Result<(), Problem> {
        self.0.serving.load_model(model).await?;
        self.note("model.load", caller, model).await;
        Ok(())
    }

    async fn unload(&self, caller: &Caller, model: &ModelName) -> Result<(), Problem> {
        self.0.serving.unload_model(model).await?;
        self.note("model.unload", caller, model).await;
        Ok(())
    }

    fn statistics(&self) -> Vec<ModelStatistics> {
        self.0.serving.statistics()
    }

    fn refused(&self, problem: &Problem) {
        self.0.events.request_refused(&"client", problem);
    }
}
