//! Which models a device may ask: those that it should run, as far as its tenant may ask them.
//!
//! Any version of them: while a new version is installed, the old one still answers on the device,
//! and defers to its own variant.

use protocol::id::ModelName;
use protocol::problem::{Problem, ProblemCode};
use std::collections::BTreeSet;
use tokio::sync::Mutex;

use super::session::Session;
use crate::store::StoreError;

/// The assigned models, read again only when an assignment changed.
#[derive(Debug, Default)]
pub(super) struct Scope(Mutex<Option<Assigned>>);

#[derive(Debug)]
struct Assigned {
    /// The newest desired state, of all and of this device.
    revision: (u64, u64),
    models: BTreeSet<ModelName>,
}

impl Scope {
    pub(super) async fn check(&self, session: &Session, model: &ModelName) -> Result<(), Problem> {
        let refuse = |text: String, hint: &str| {
            Err(Problem::new(ProblemCode::Unauthorised, text).hint(hint))
        };
        let assigned = self.is_assigned(session, model).await.map_err(|error| {
            session.cloud.events.internal_error(&error);
            Problem::new(ProblemCode::Internal, "the cloud cannot look the assignments up now")
        })?;
        if !assigned {
            let text = format!("the model {model} is not assigned to this device");
            return refuse(text, "assign it with: outrigger model assign");
        }
        let tenant = &session.identity.tenant;
        let models = session.cloud.access.tenant_models(tenant);
        if !models.is_some_and(|models| models.matches(model)) {
            let text = format!("the tenant {tenant} may not ask the model {model}");
            return refuse(text, "an admin says what it may with: outrigger tenant set");
        }
        Ok(())
    }

    async fn is_assigned(&self, session: &Session, model: &ModelName) -> Result<bool, StoreError> {
        let revision = (*session.cloud.revision.borrow(), session.news.times());
        let mut known = self.0.lock().await;
        if let Some(assigned) = known.as_ref().filter(|assigned| assigned.revision == revision) {
            return Ok(assigned.models.contains(model));
        }
        let device = session.device.clone();
        let models = session.cloud.db.call(move |store| store.wanted_models(&device)).await?;
        let assigned = known.insert(Assigned { revision, models });
        Ok(assigned.models.contains(model))
    }
}
