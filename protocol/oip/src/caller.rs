//! Who calls, as far as this crate needs to know: which models, and whether load and unload.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::response::Response;
use protocol::id::ModelName;
use protocol::infer::InferRequest;
use protocol::pattern::ModelPatterns;
use protocol::problem::{Problem, ProblemCode};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a caller may do. Whatever accepts a connection puts it into the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    models: Models,
    manages: bool,
    name: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Models {
    All,
    Named(Arc<BTreeSet<ModelName>>),
    /// One of each list must match.
    Matching(Arc<[ModelPatterns]>),
}

impl Caller {
    /// May use every model.
    pub fn unlimited() -> Self {
        Self::new(Models::All)
    }

    /// May use these models only.
    pub fn of_models(models: Arc<BTreeSet<ModelName>>) -> Self {
        Self::new(Models::Named(models))
    }

    /// May use the models that every one of these lists means.
    pub fn matching(lists: impl Into<Arc<[ModelPatterns]>>) -> Self {
        Self::new(Models::Matching(lists.into()))
    }

    fn new(models: Models) -> Self {
        Self { models, manages: false, name: None }
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

    /// The name under which whoever answers knows this caller; empty when none was said.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn check_model(&self, model: &ModelName) -> Result<(), Problem> {
        if self.may_use(model) {
            return Ok(());
        }
        let text = format!("this caller may not use the model {:?}", model.as_str());
        Err(Problem::new(ProblemCode::Unauthorised, text)
            .hint("its key or token was made for other models"))
    }

    fn may_use(&self, model: &ModelName) -> bool {
        match &self.models {
            Models::All => true,
            Models::Named(models) => models.contains(model),
            Models::Matching(lists) => lists.iter().all(|list| list.matches(model)),
        }
    }

    pub(crate) fn knows(&self, model: &str) -> bool {
        model.parse().is_ok_and(|model| self.may_use(&model))
    }

    pub(crate) fn check_manages(&self, model: &ModelName) -> Result<(), Problem> {
        self.check_model(model)?;
        if self.manages {
            return Ok(());
        }
        Err(Problem::new(ProblemCode::Unauthorised, "models are not loaded or unloaded from here")
            .hint("an agent does it over its Unix socket, a cloud for the keys of operators"))
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
