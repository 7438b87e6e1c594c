//! Roll-outs and groups: their calls, and what their bodies look like.

use fleet::labels::LABEL_MAX_BYTES;
use serde_json::{Value, json};

use super::operations::Operation;
use super::schemas::{count, flag, list, object, or_null, reference, seconds, text};

/// Their calls.
pub(super) fn operations() -> Vec<Operation> {
    let name = reference("Name");
    vec![
        Operation::new("get /v1/rollouts", "rollouts", "Every roll-out, the newest first")
            .need("View")
            .gives(200, "Roll-outs.", list("rollouts", "RolloutLine")),
        Operation::new(
            "post /v1/rollouts",
            "start_rollout",
            "Bring a version to devices in stages",
        )
        .need("Assign; View for a dry run")
        .takes(reference("NewRollout"))
        .gives(200, "What it would do.", reference("RolloutDraft"))
        .gives(201, "It has begun.", reference("RolloutDraft")),
        Operation::new("get /v1/rollouts/{id}", "rollout", "How a roll-out stands")
            .need("View")
            .in_path("id", &name)
            .gives(200, "It is here.", reference("Rollout")),
        Operation::new(
            "post /v1/rollouts/{id}/commands",
            "command_rollout",
            "Approve, pause, resume or abort a roll-out",
        )
        .need("Assign")
        .in_path("id", &name)
        .takes(reference("RolloutCommand"))
        .gives(200, "It was told.", reference("Rollout")),
        Operation::new("get /v1/groups", "groups", "Queries over devices that have a name")
            .need("View")
            .gives(200, "Groups.", list("groups", "Group")),
        Operation::new("put /v1/groups/{name}", "put_group", "Give a query a name")
            .need("Assign")
            .in_path("name", &name)
            .takes(reference("NewGroup"))
            .gives(200, "It holds.", reference("PutGroup")),
        Operation::new("delete /v1/groups/{name}", "remove_group", "Forget a group")
            .need("Assign")
            .in_path("name", &name)
            .gives(200, "It is gone.", reference("RemovedGroup")),
    ]
}

/// Their bodies.
pub(super) fn schemas() -> Value {
    let mut all = bodies();
    for part in [plans(), standing()] {
        if let (Some(all), Value::Object(part)) = (all.as_object_mut(), part) {
            all.extend(part);
        }
    }
    all
}

fn bodies() -> Value {
    let query = || json!({ "type": "string", "minLength": 1, "maxLength": 1024 });
    json!({
        "Query": query(),
        "Labels": {
            "type": "object",
            "additionalProperties": { "type": "string", "maxLength": LABEL_MAX_BYTES },
        },
        "Relabelling": object(&json!({
            "set": reference("Labels"), "remove": { "type": "array", "items": text() },
        }), &["set", "remove"]),
        "Labelled": object(&json!({ "id": reference("Name"), "labels": reference("Labels") }), &[]),
        "Group": object(&json!({
            "name": reference("Name"), "query": reference("Query"), "devices": count(),
        }), &[]),
        "NewGroup": object(&json!({ "query": reference("Query") }), &[]),
        "PutGroup": object(&json!({
            "name": reference("Name"), "query": reference("Query"),
        }), &[]),
        "RemovedGroup": object(&json!({ "name": reference("Name"), "removed": flag() }), &[]),
        "RolloutCommand": object(&json!({
            "command": { "enum": ["approve", "pause", "resume", "abort"] },
        }), &[]),
        "NewRollout": object(&json!({
            "plan": reference("Plan"), "group": or_null(&reference("Name")), "dry_run": flag(),
        }), &["group", "dry_run"]),
    })
}

/// What a roll-out is asked to do; the ranges are in `fleet::rollout::plan`.
fn plans() -> Value {
    let number = || json!({ "type": "number" });
    let size = json!({ "oneOf": [
        object(&json!({ "count": { "type": "integer", "minimum": 1 } }), &[]),
        object(&json!({ "share": number() }), &[]),
    ] });
    let stage = object(&json!({ "size": size, "soak_s": count() }), &[]);
    let rate = object(
        &json!({
            "first_per_min": number(), "factor": number(), "every": count(), "max_per_min": number(),
        }),
        &[],
    );
    let window = object(&json!({ "from_min": count(), "to_min": count() }), &[]);
    let fields = json!({
        "model": or_null(&reference("Name")), "version": or_null(&reference("Version")),
        "target": or_null(&reference("Query")), "everyone": flag(),
        "stages": { "type": "array", "minItems": 1, "maxItems": 16, "items": stage },
        "strata": { "type": "array", "maxItems": 4, "items": text() },
        "requests_min": { "type": "integer", "minimum": 1 }, "deadline_s": count(),
        "failures_max": number(), "silent_max": number(), "alpha": number(), "rate": rate,
        "window": or_null(&window), "approve_from": count(), "approvals": count(),
        "agent_min": { "type": ["array", "null"], "items": count(), "minItems": 3, "maxItems": 3 },
        "expires_s": count(),
    });
    let names: Vec<&str> =
        fields.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    json!({ "Plan": object(&fields, &names) })
}

fn standing() -> Value {
    let phase = json!({ "enum": [
        "awaiting-approval", "offering", "soaking", "paused", "rolling-back", "rolled-back",
        "aborted", "done",
    ] });
    let whole = json!({
        "id": reference("Name"), "model": or_null(&reference("Name")),
        "version": reference("Version"), "target": or_null(&reference("Query")), "phase": phase,
        "stage": count(), "reason": text(), "planned_by": text(), "planned_at_s": seconds(),
    });
    let with = |more: Value| {
        let mut fields = whole.clone();
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        object(&fields, &[])
    };
    let counts = json!({ "type": "object", "additionalProperties": count() });
    let drawn = object(
        &json!({
            "stage": count(), "devices": count(), "online": count(), "soak_s": count(),
            "first": { "type": "array", "items": reference("Name") },
        }),
        &[],
    );
    let device = object(
        &json!({
            "device": reference("Name"), "stage": count(), "standing": text(), "why": text(),
            "requests": count(), "errors": count(), "run_p50_ms": { "type": ["number", "null"] },
        }),
        &[],
    );
    let entry = object(
        &json!({
            "at_s": count(), "phase": text(), "stage": count(), "what": text(),
        }),
        &[],
    );
    json!({
        "RolloutLine": with(json!({ "stages": count() })),
        "Rollout": with(json!({
            "stages": { "type": "array", "items": object(
                &json!({ "devices": count(), "soak_s": count() }), &[]) },
            "progress": counts, "in_phase_s": count(), "breach": { "type": ["object", "null"] },
            "agreed": { "type": "array", "items": text() }, "approvals": count(),
            "standings": counts, "devices": { "type": "array", "items": device },
            "history": { "type": "array", "items": entry }, "plan": reference("Plan"),
        })),
        "RolloutDraft": object(&json!({
            "id": or_null(&reference("Name")), "model": or_null(&reference("Name")),
            "version": reference("Version"), "target": or_null(&reference("Query")),
            "devices": count(), "stages": { "type": "array", "items": drawn }, "strata": count(),
            "too_old": count(), "have_it": count(), "approvals": count(), "phase": phase,
        }), &[]),
    })
}
