//! Who calls, as far as this crate needs to know: which models, and whether load and unload.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use protocol::id::ModelName;
use protocol::infer::InferRequest;
use protocol::problem::{Problem, ProblemCode};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a caller may do. Whatever accepts a connection puts it into the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    models: Option<Arc<BTreeSet<ModelName>>>,
    manages: bool,
    name: Option<Arc<str>>,
}

impl Caller {
    /// May use every model.
    pub fn unlimited() -> Self {
        Self { models: None, manages: false, name: None }
    }

    /// May use these models only.
    pub fn of_models(models: Arc<BTreeSet<ModelName>>) -> Self {
        Self { models: Some(models), manages: false, name: None }
    }

    /// The same caller, who may also load and unload.
    #[must_use]
    pub fn managing(self) -> Self {
        Self { manages: true, ..self }
    }

    /// The same caller under a name: sequences that it begins are its own.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Says whose request it is, where it is a piece of a sequence.
    pub(crate) fn own(&self, request: &mut InferRequest) {
        if let Some(sequence) = request.sequence.as_mut() {
            sequence.owner.clone_from(&self.name);
        }
    }

    pub(crate) fn check_model(&self, model: &ModelName) -> Result<(), Problem> {
        if self.models.as_ref().is_none_or(|models| models.contains(model)) {
            return Ok(());
        }
        let text = format!("this application may not use the model {:?}", model.as_str());
        Err(Problem::new(ProblemCode::Unauthorised, text)
            .hint("its models are listed with its token in the configuration"))
    }

    pub(crate) fn knows(&self, model: &str) -> bool {
        let Some(models) = &self.models else { return true };
        models.iter().any(|m| m.as_str() == model)
    }

    pub(crate) fn check_manages(&self, model: &ModelName) -> Result<(), Problem> {
        self.check_model(model)?;
        if self.manages {
            return Ok(());
        }
        Err(Problem::new(ProblemCode::Unauthorised, "models are not loaded or unloaded from here")
            .hint("call load and unload over the Unix socket"))
    }

    /// The caller of a request; without one nothing is allowed.
    pub(crate) fn of(extensions: &axum::http::Extensions) -> Result<Self, Problem> {
        let unknown = || Problem::new(ProblemCode::Unauthorised, "nobody said who calls");
        extensions.get::<Self>().cloned().ok_or_else(unknown)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        Self::of(&parts.extensions).map_err(|problem| crate::http::failure(&problem))
    }
}
