//! Questions to devices: their calls, and what their bodies look like.

use protocol::limits::{ANSWER_LINES_MAX, QUESTION_MAX_S};
use serde_json::{Value, json};

use super::operations::Operation;
use super::schemas::{flag, object, reference, seconds, text};

/// Their calls.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            "post /v1/questions",
            "ask",
            "Ask a device how it finds itself, or for its log",
        )
        .need("Enrol")
        .takes(reference("NewQuestion"))
        .gives(201, "It is told as soon as it is there.", reference("AskedQuestion")),
        Operation::new("get /v1/questions/{id}", "question", "What the device says")
            .need("Enrol")
            .in_path("id", &reference("Name"))
            .gives(200, "It is here.", reference("Question")),
    ]
}

/// Their bodies.
pub(super) fn schemas() -> Value {
    let count = json!({ "type": "integer", "minimum": 0 });
    json!({
        "WhatIsAsked": { "oneOf": [
            {
                "type": "object", "properties": { "what": { "const": "check" } },
                "required": ["what"],
            },
            object(&json!({
                "what": { "const": "logs" },
                "lines": { "type": "integer", "minimum": 1, "maximum": ANSWER_LINES_MAX },
                "since_s": { "type": "integer", "minimum": 0, "maximum": u32::MAX },
            }), &["since_s"]),
        ] },
        "NewQuestion": object(&json!({
            "device": reference("Name"), "question": reference("WhatIsAsked"),
            "wait_s": { "type": "integer", "minimum": 1, "maximum": QUESTION_MAX_S },
        }), &[]),
        "AskedQuestion": object(&json!({
            "id": reference("Name"), "device": reference("Name"), "online": flag(),
        }), &[]),
        "Question": object(&json!({
            "id": reference("Name"), "device": reference("Name"), "question": reference("WhatIsAsked"),
            "state": { "enum": ["waiting", "late", "answered", "refused"] },
            "asked_at_s": seconds(), "until_s": seconds(), "now_s": seconds(),
            "answered_at_s": seconds(), "text": text(), "left_out": count,
            "refused": text(), "why": text(),
        }), &["now_s", "answered_at_s", "text", "left_out", "refused", "why"]),
    })
}
