//! The model that a path names, and its version where the path has one.

use super::failure;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::response::Response;
use protocol::id::{InvalidName, ModelName, Version};
use protocol::problem::{Problem, ProblemCode};

/// `{model}`, and `{version}` where it is there.
pub(super) struct Named {
    pub(super) model: ModelName,
    pub(super) version: Option<Version>,
}

impl Named {
    fn parse(parameters: &RawPathParams) -> Result<Self, InvalidName> {
        let find = |name| parameters.iter().find(|(key, _)| *key == name).map(|(_, text)| text);
        let model = find("model").unwrap_or_default().parse()?;
        let version = find("version").map(str::parse).transpose()?;
        Ok(Self { model, version })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let absent = |text| {
            failure(
                &Problem::new(ProblemCode::NotFound, text)
                    .hint("POST /v2/repository/index lists the models here"),
            )
        };
        let parameters = RawPathParams::from_request_parts(parts, state).await;
        let parameters = parameters.map_err(|e| absent(e.to_string()))?;
        Self::parse(&parameters).map_err(|e| absent(e.to_string()))
    }
}
