//! The handlers of the Open Inference Protocol.

use super::{Context, failure};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::id::{InvalidName, ModelName, Version};
use protocol::limits::HTTP_BODY_MAX_BYTES;
use protocol::oip::{self, ModelMetadata, RenderedResponse, ServerMetadata, TensorMetadata};
use protocol::problem::{Problem, ProblemCode};
use serde_json::json;
use std::sync::Arc;

type Ctx = State<Arc<Context>>;

pub(super) async fn server_metadata() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: "outrigger-agent",
        version: env!("CARGO_PKG_VERSION"),
        extensions: &["binary_tensor_data", "schedule_policy"],
    })
}

pub(super) async fn live(State(context): Ctx) -> Response {
    Json(json!({ "live": true, "ready": context.requests.engine().is_ready() })).into_response()
}

pub(super) async fn ready(State(context): Ctx) -> Response {
    let ready = context.requests.engine().is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "live": true, "ready": ready }))).into_response()
}

pub(super) async fn model_metadata(ctx: Ctx, Path(model): Path<String>) -> Response {
    respond(metadata(&ctx, &model, None))
}

pub(super) async fn model_metadata_of_version(
    ctx: Ctx,
    Path((model, version)): Path<(String, String)>,
) -> Response {
    respond(metadata(&ctx, &model, Some(&version)))
}

fn respond<T: serde::Serialize>(result: Result<T, Problem>) -> Response {
    match result {
        Ok(body) => Json(body).into_response(),
        Err(problem) => failure(&problem),
    }
}

fn metadata(ctx: &Context, model: &str, version: Option<&str>) -> Result<ModelMetadata, Problem> {
    let (model, version) = parse_names(model, version)?;
    let active = ctx.requests.engine().get(&model, version)?;
    let manifest = active.manifest();
    Ok(ModelMetadata {
        name: model.to_string(),
        versions: vec![manifest.version.to_string()],
        platform: "onnxruntime_onnx",
        inputs: manifest.inputs.iter().map(TensorMetadata::from).collect(),
        outputs: manifest.outputs.iter().map(TensorMetadata::from).collect(),
    })
}

pub(super) async fn model_ready(ctx: Ctx, Path(model): Path<String>) -> Response {
    respond(readiness(&ctx, &model, None))
}

pub(super) async fn model_ready_of_version(
    ctx: Ctx,
    Path((model, version)): Path<(String, String)>,
) -> Response {
    respond(readiness(&ctx, &model, Some(&version)))
}

fn readiness(
    ctx: &Context,
    model: &str,
    version: Option<&str>,
) -> Result<serde_json::Value, Problem> {
    let (model, version) = parse_names(model, version)?;
    ctx.requests.engine().get(&model, version)?;
    Ok(json!({ "name": model, "ready": true }))
}

pub(super) async fn infer(ctx: Ctx, Path(model): Path<String>, request: Request) -> Response {
    answer(&ctx, &model, None, request).await
}

pub(super) async fn infer_of_version(
    ctx: Ctx,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    answer(&ctx, &model, Some(&version), request).await
}

async fn answer(ctx: &Context, model: &str, version: Option<&str>, request: Request) -> Response {
    match try_answer(ctx, model, version, request).await {
        Ok(rendered) => success(rendered),
        Err(problem) => failure(&problem),
    }
}

async fn try_answer(
    ctx: &Context,
    model: &str,
    version: Option<&str>,
    request: Request,
) -> Result<RenderedResponse, Problem> {
    let parsed = parse(model, version, request).await;
    let parsed = parsed.inspect_err(|problem| ctx.counters.refused(problem))?;
    let response = ctx.requests.answer(parsed.request).await?;
    oip::render_response(&response, &parsed.form)
}

async fn parse(
    model: &str,
    version: Option<&str>,
    request: Request,
) -> Result<oip::ParsedRequest, Problem> {
    let (model, version) = parse_names(model, version)?;
    let (parts, body) = request.into_parts();
    if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let text = "compressed bodies are not taken";
        return Err(Problem::new(ProblemCode::InvalidRequest, text).hint("send the body as it is"));
    }
    let json_len = json_len(&parts.headers)?;
    let body = read_body(body).await?;
    oip::parse_request(model, version, json_len, &body)
}

async fn read_body(body: Body) -> Result<bytes::Bytes, Problem> {
    axum::body::to_bytes(body, HTTP_BODY_MAX_BYTES).await.map_err(|_| {
        let text = format!("the body broke off, or has more than {HTTP_BODY_MAX_BYTES} bytes");
        Problem::new(ProblemCode::TooLarge, text).hint("send fewer items per request")
    })
}

fn json_len(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    let Some(value) = headers.get(oip::HEADER_LENGTH) else { return Ok(None) };
    let len = value.to_str().ok().and_then(|text| text.parse().ok());
    let invalid = || {
        let text = "Inference-Header-Content-Length is the number of bytes of the JSON part";
        Problem::new(ProblemCode::InvalidRequest, text)
    };
    len.map(Some).ok_or_else(invalid)
}

fn parse_names(
    model: &str,
    version: Option<&str>,
) -> Result<(ModelName, Option<Version>), Problem> {
    let absent = |e: InvalidName| {
        let hint = "outrigger-agent status lists the models on this device";
        Problem::new(ProblemCode::NotFound, e.to_string()).hint(hint)
    };
    let model = model.parse().map_err(absent)?;
    Ok((model, version.map(str::parse).transpose().map_err(absent)?))
}

fn success(rendered: RenderedResponse) -> Response {
    let mut response = Response::new(Body::from(rendered.body));
    let kind =
        if rendered.json_len.is_some() { "application/octet-stream" } else { "application/json" };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(len) = rendered.json_len {
        headers.insert(oip::HEADER_LENGTH, HeaderValue::from(len));
    }
    response
}
