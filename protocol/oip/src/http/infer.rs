//! `POST .../infer`.

use super::named::Named;
use super::{body, failure};
use crate::intake::Held;
use crate::{Ask, Caller, Inference, discard, origin};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use protocol::infer::InferResponse;
use protocol::limits::HTTP_BODY_MAX_BYTES;
use protocol::oip::{self, OutputForm, ParsedRequest, RenderedResponse};
use protocol::problem::{Problem, ProblemCode};
use protocol::trace::Via;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;
use tower_http::compression::predicate::SizeAbove;
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::decompression::RequestDecompressionLayer;

/// Compressing an answer smaller than this would cost more than it spares.
const COMPRESSED_MIN_BYTES: u64 = 1024;
/// The fastest that makes less than half of numbers in JSON: levels 1 and 2 hardly look for repetitions.
const COMPRESSION_LEVEL: i32 = 3;

/// Reading or writing more text than this takes milliseconds.
const JSON_LONG_BYTES: usize = 256 << 10;

/// The handler, with bodies that may be gzip or deflate either way.
pub(super) fn route<I: Inference>() -> MethodRouter<Arc<I>> {
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Precise(COMPRESSION_LEVEL))
        .compress_when(SizeAbove::new(COMPRESSED_MIN_BYTES));
    let decompression = RequestDecompressionLayer::new().pass_through_unaccepted(true);
    let packed = post(infer::<I>).layer::<_, Infallible>(decompression);
    packed.layer::<_, Infallible>(compression)
}

async fn infer<I: Inference>(
    State(inference): State<Arc<I>>,
    caller: Caller,
    named: Named,
    request: Request,
) -> Response {
    match answer(&*inference, &caller, named, request).await {
        Ok(rendered) => success(rendered),
        Err(problem) => failure(&problem),
    }
}

async fn answer<I: Inference>(
    inference: &I,
    caller: &Caller,
    named: Named,
    request: Request,
) -> Result<RenderedResponse, Problem> {
    let began = Instant::now();
    let held = inference.intake().request(); // until the request is answered
    let (parts, body) = request.into_parts();
    let (json_len, place) = match take_in(inference, caller, &named, &parts.headers) {
        Ok(taken) => taken,
        Err(problem) => {
            discard(parts.version, &parts.headers, body);
            inference.turned_away(began.elapsed());
            return Err(problem);
        }
    };
    let ParsedRequest { mut request, form } = match parse(named, body, json_len, &held).await {
        Ok(parsed) => parsed,
        Err(problem) => {
            inference.spoilt(place, &problem);
            return Err(problem);
        }
    };
    caller.own(&mut request);
    let response = inference.infer(place, request).await?;
    let said = say(inference, response, form).await;
    said.inspect_err(|problem| inference.refused(problem))
}

/// The request that a body holds.
async fn parse(
    named: Named,
    body: Body,
    json_len: Option<usize>,
    held: &Held,
) -> Result<ParsedRequest, Problem> {
    let body = body::read(body, HTTP_BODY_MAX_BYTES, json_len.unwrap_or(0), held).await?;
    let json_bytes = json_len.unwrap_or(body.len());
    let parse = move || oip::parse_request(named.model, named.version, json_len, &body);
    aside_if_long(json_bytes, parse).await
}

/// The answer in the form that was asked for.
async fn say<I: Inference>(
    inference: &I,
    mut response: InferResponse,
    form: OutputForm,
) -> Result<RenderedResponse, Problem> {
    if form.wants_classes() {
        let model = inference.describe(&response.model, Some(response.verdict.version))?;
        oip::classify(&mut response, &form, &model)?;
    }
    let outputs = response.outputs.iter().filter(|output| !form.is_binary(output.name()));
    let bytes = outputs.map(|output| output.data().len()).sum();
    aside_if_long(bytes, move || oip::render_response(&response, &form)).await
}

/// Numbers as text, from or to so many bytes: where they are many, on another thread, so that nobody
/// else's request waits for them.
async fn aside_if_long<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if bytes <= JSON_LONG_BYTES {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Problem::new(ProblemCode::Internal, format!("JSON was not read or written: {error}")))
    })
}

/// Decides about a request from its header alone; the length of its JSON part, and its place.
fn take_in<I: Inference>(
    inference: &I,
    caller: &Caller,
    named: &Named,
    headers: &HeaderMap,
) -> Result<(Option<usize>, I::Place), Problem> {
    let checked = check(caller, named, headers);
    let json_len = checked.inspect_err(|problem| inference.refused(problem))?;
    let body_bytes = body_bytes(headers);
    let (model, version) = (&named.model, named.version);
    let ask = Ask { model, version, body_bytes, origin: origin(headers, Via::Http) };
    Ok((json_len, inference.admit(caller, &ask)?))
}

/// What the header says, all in order; the length of the JSON part.
fn check(caller: &Caller, named: &Named, headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    caller.check_model(&named.model)?;
    check_encoding(headers)?;
    json_len(headers)
}

/// The body's length, unless it is not announced; what was compressed has lost it on its way here.
fn body_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What was gzip or deflate is neither any more when it gets here.
fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            let text = "this Content-Encoding is not understood";
            Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("send gzip, deflate, or the body as it is"))
        }
        _ => Ok(()),
    }
}

fn json_len(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    let Some(value) = headers.get(oip::HEADER_LENGTH) else { return Ok(None) };
    let len = value.to_str().ok().and_then(|text| text.parse().ok());
    let invalid = || {
        let text = "Inference-Header-Content-Length is the number of bytes of the JSON part";
        Problem::new(ProblemCode::InvalidRequest, text)
            .hint("leave it out where there are no raw bytes")
    };
    len.map(Some).ok_or_else(invalid)
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
