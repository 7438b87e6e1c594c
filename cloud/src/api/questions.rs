//! Questions to devices: how one finds itself, and the end of its log.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use fleet::access::Permission;
use fleet::questions::{AskError, Asked, Standing};
use protocol::id::{DeviceId, InvalidName, QuestionId};
use protocol::limits::{ANSWER_LINES_MAX, QUESTION_MAX_S};
use protocol::question::What;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

use super::ApiError;
use super::auth::Caller;
use super::error::Body;
use crate::questions::{self, QuestionError};
use crate::state::{Cloud, now_s};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewQuestion {
    device: DeviceId,
    question: What,
    /// How long it waits for the device, in seconds.
    wait_s: u64,
}

pub(super) async fn ask(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Body(NewQuestion { device, question, wait_s }): Body<NewQuestion>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    caller.need(Permission::Enrol)?;
    if wait_s == 0 || wait_s > QUESTION_MAX_S {
        return Err(ApiError::invalid(format!("wait_s lies between 1 and {QUESTION_MAX_S}")));
    }
    if matches!(question, What::Logs { lines, .. } if lines == 0 || lines > ANSWER_LINES_MAX) {
        return Err(ApiError::invalid(format!("lines lie between 1 and {ANSWER_LINES_MAX}")));
    }
    let online = cloud.online.contains(&device);
    let asked = questions::ask(&cloud, (device.clone(), question, wait_s), caller.by()).await;
    let id = asked.map_err(refuse)?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "device": device, "online": online }))))
}

pub(super) async fn show(
    State(cloud): State<Arc<Cloud>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    caller.need(Permission::Enrol)?;
    let id: QuestionId = id.parse().map_err(|e: InvalidName| ApiError::invalid(e.to_string()))?;
    let (asked, standing) = cloud.questions.get(&id).ok_or_else(|| {
        ApiError::not_found(format!("there is no question {id}")).hint(
            "answers are kept for ten minutes, and not over a restart of the cloud: ask again",
        )
    })?;
    Ok(Json(describe(&id, &asked, &standing)))
}

fn describe(id: &QuestionId, asked: &Asked, standing: &Standing) -> Value {
    let mut described = json!({
        "id": id, "device": asked.device, "question": asked.what, "state": standing.as_str(),
        "asked_at_s": asked.at_s, "until_s": asked.at_s.saturating_add(asked.wait_s),
    });
    match standing {
        Standing::Waiting => described["now_s"] = now_s().into(),
        Standing::Late => {}
        Standing::Answered { at_s, text, left_out } => {
            described["answered_at_s"] = (*at_s).into();
            described["text"] = text.as_str().into();
            described["left_out"] = (*left_out).into();
        }
        Standing::Refused { at_s, word, why } => {
            described["answered_at_s"] = (*at_s).into();
            described["refused"] = word.as_str().into();
            described["why"] = why.as_str().into();
        }
    }
    described
}

fn refuse(error: QuestionError) -> ApiError {
    let text = error.to_string();
    let too_many = |text| ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too_many_questions", text);
    match error {
        QuestionError::NoDevice(_) => {
            ApiError::not_found(text).hint("see what there is: outrigger device list")
        }
        QuestionError::Ask(AskError::Waiting(_)) => too_many(text)
            .hint("is the device connected? Those that it never answers end by themselves"),
        QuestionError::Ask(AskError::TooOften { wait_s, .. }) => {
            let wait_ms = u32::try_from(wait_s.saturating_mul(1000)).unwrap_or(u32::MAX);
            too_many(text).hint(format!("ask again in {wait_s} s")).retry_after_ms(wait_ms)
        }
        QuestionError::Ask(AskError::Full) => too_many(text).hint("ask fewer devices at a time"),
        QuestionError::Store(error) => error.into(),
    }
}
