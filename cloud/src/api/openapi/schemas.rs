//! What bodies look like.

use protocol::limits::{NAME_MAX_BYTES, PATTERNS_MAX_COUNT, TOKEN_DEVICES_MAX};
use serde_json::{Value, json};

/// A schema by its name.
pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `{"field": [Item, ...]}`.
pub(super) fn list(field: &str, item: &str) -> Value {
    object(&json!({ field: { "type": "array", "items": reference(item) } }), &[])
}

/// An object with all of these fields, and perhaps these.
pub(super) fn object(fields: &Value, optional: &[&str]) -> Value {
    let names = fields.as_object().into_iter().flatten().map(|(name, _)| name);
    let required: Vec<_> = names.filter(|name| !optional.contains(&name.as_str())).collect();
    json!({
        "type": "object", "properties": fields, "required": required,
        "additionalProperties": false,
    })
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

/// One line, for people.
fn label(min_length: usize) -> Value {
    json!({ "type": "string", "minLength": min_length, "maxLength": NAME_MAX_BYTES,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]*$" })
}

pub(super) fn flag() -> Value {
    json!({ "type": "boolean" })
}

pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

pub(super) fn seconds() -> Value {
    json!({ "type": "integer", "format": "int64" })
}

pub(super) fn or_null(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn span(max_s: u32) -> Value {
    json!({ "type": ["integer", "null"], "minimum": 1, "maximum": max_s })
}

/// Every schema.
pub(super) fn all() -> Value {
    let mut all = names();
    for part in [
        of_server(),
        of_models(),
        of_repository(),
        of_keys(),
        of_sign_in(),
        of_devices(),
        of_releases(),
        of_telemetry(),
        of_nodes(),
        super::questions::schemas(),
        super::rollouts::schemas(),
    ] {
        if let (Some(all), Value::Object(part)) = (all.as_object_mut(), part) {
            all.extend(part);
        }
    }
    all
}

fn names() -> Value {
    let name = format!("^[A-Za-z0-9][A-Za-z0-9._-]{{0,{}}}$", NAME_MAX_BYTES - 1);
    let policy = "^(all|latest [1-9][0-9]{0,8}|[1-9][0-9]{0,8}( [1-9][0-9]{0,8}){0,15})$";
    let pattern = format!("^[A-Za-z0-9._*-]{{1,{NAME_MAX_BYTES}}}$");
    json!({
        "Name": { "type": "string", "pattern": name },
        "Version": { "type": "integer", "minimum": 1, "maximum": 9_007_199_254_740_991_u64 },
        "ContentHash": { "type": "string", "pattern": "^[0-9a-f]{64}$" },
        "ReleaseVersion": { "type": "string", "pattern": "^[0-9]{1,9}\\.[0-9]{1,9}\\.[0-9]{1,9}$" },
        "Role": { "enum": ["client", "viewer", "operator", "signer", "admin"] },
        "VersionPolicy": { "type": "string", "pattern": policy },
        "ModelPatterns": {
            "type": "array", "minItems": 1, "maxItems": PATTERNS_MAX_COUNT,
            "items": { "type": "string", "pattern": pattern },
        },
        "Error": object(&json!({ "error": text(), "code": text(), "hint": text() }), &[]),
    })
}

fn of_server() -> Value {
    let sums = json!({
        "of": text(), "requests": count(), "refused": count(), "compute_us": count(),
        "bytes_in": count(), "bytes_out": count(),
    });
    json!({
        "Liveness": object(&json!({ "live": flag() }), &[]),
        "Readiness": {
            "type": "object", "required": ["ready", "reasons"], "properties": {
                "ready": flag(), "reasons": { "type": "array", "items": text() },
            },
        },
        "Whoami": object(&json!({
            "key_id": text(), "name": text(), "role": reference("Role"),
            "tenant": reference("Name"), "ca_hash": reference("ContentHash"),
            "cloud_version": text(),
        }), &[]),
        "AuditEntry": object(&json!({
            "id": count(), "at": text(), "actor": text(), "action": text(), "subject": text(),
            "detail": text(),
        }), &[]),
        "UsageReport": object(&json!({
            "from": seconds(), "to": seconds(),
            "usage": { "type": "array", "items": object(&sums, &[]) },
        }), &[]),
    })
}

fn of_models() -> Value {
    let variant = json!({ "enum": ["edge", "cloud"] });
    let bundle = json!({
        "model": reference("Name"), "version": reference("Version"), "variant": variant,
        "bundle": reference("ContentHash"), "size_bytes": count(), "signer": text(),
        "threshold": { "type": ["number", "null"] }, "deferral_rate": { "type": ["number", "null"] },
        "risk": { "type": ["number", "null"] }, "disagreement": { "type": ["number", "null"] },
        "pushed_at_s": seconds(),
        "memory": { "enum": ["resident", "loading", "on demand", "too large", null] },
        "memory_bytes": { "type": ["integer", "null"], "minimum": 0 },
    });
    let policies = json!({ "type": "object", "additionalProperties": text() });
    json!({
        "Models": object(&json!({
            "models": { "type": "array", "items": object(&bundle, &[]) }, "policies": policies,
        }), &[]),
        "SignedManifest": {
            "type": "object", "description": "A manifest as text, who signed it, and the signature.",
        },
        "Pushed": object(&json!({
            "model": reference("Name"), "version": reference("Version"), "variant": variant,
            "bundle": reference("ContentHash"), "added": flag(),
        }), &[]),
        "NewPolicy": object(&json!({ "policy": reference("VersionPolicy") }), &[]),
        "Policy": object(&json!({ "model": reference("Name"), "policy": text() }), &[]),
        "Blob": object(&json!({
            "sha256": reference("ContentHash"), "size_bytes": count(),
        }), &[]),
        "Signer": object(&json!({
            "key_id": text(), "public_key": text(), "name": text(), "created_at_s": seconds(),
        }), &[]),
        "NewSigner": object(&json!({
            "public_key": { "type": "string", "pattern": "^[0-9a-f]{64}$" }, "name": label(1),
        }), &[]),
        "Trusted": object(&json!({ "key_id": text(), "added": flag() }), &[]),
        "Assignment": object(&json!({
            "model": reference("Name"), "version": reference("Version"),
            "device": or_null(&reference("Name")),
        }), &[]),
    })
}

fn of_repository() -> Value {
    let any = json!({ "type": "object" });
    let texts = json!({ "type": "object", "additionalProperties": text() });
    let counts = json!({ "type": "object", "additionalProperties": count() });
    json!({
        "Repository": object(&json!({ "online_keys": any, "files": texts }), &[]),
        "RepositoryFiles": object(&json!({
            "files": texts, "introduction": or_null(&reference("Introduction")),
        }), &["introduction"]),
        "Introduction": object(&json!({
            "root": reference("ContentHash"), "key_id": reference("ContentHash"),
            "signature": text(),
        }), &[]),
        "RepositoryVersions": object(&json!({ "versions": counts }), &[]),
        "OnlineKey": object(&json!({ "role": text(), "key": any }), &[]),
    })
}

fn of_keys() -> Value {
    let record = json!({
        "id": text(), "name": text(), "role": reference("Role"), "tenant": reference("Name"),
        "models": reference("ModelPatterns"), "expires_at_s": { "type": ["integer", "null"] },
        "person": or_null(&object(&json!({ "issuer": text(), "subject": text() }), &[])),
    });
    let with = |more: Value| {
        let mut fields = record.clone();
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        object(&fields, &[])
    };
    json!({
        "Key": with(json!({
            "state": { "enum": ["live", "expired", "revoked"] }, "created_at_s": seconds(),
            "last_used_s": { "type": ["integer", "null"] },
        })),
        "CreatedKey": with(json!({ "key": text() })),
        "NewKey": object(&json!({
            "name": label(1), "role": reference("Role"), "tenant": reference("Name"),
            "models": reference("ModelPatterns"), "expires_in_s": span(315_360_000),
        }), &["tenant", "models", "expires_in_s"]),
        "Revoked": object(&json!({ "id": text(), "state": { "const": "revoked" } }), &[]),
        "Tenant": object(&json!({
            "name": reference("Name"), "models": reference("ModelPatterns"),
            "created_at_s": seconds(),
        }), &[]),
        "NewTenant": object(&json!({ "models": reference("ModelPatterns") }), &[]),
        "PutTenant": object(&json!({
            "name": reference("Name"), "models": reference("ModelPatterns"),
        }), &[]),
    })
}

fn of_sign_in() -> Value {
    let host = r"(127\.0\.0\.1|\[::1\])";
    let redirect = format!("^http://{host}:[1-9][0-9]{{0,4}}/callback$");
    let redirect = json!({ "type": "string", "pattern": redirect });
    let challenge = json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{43}$" });
    let verifier = json!({ "type": "string", "pattern": "^[A-Za-z0-9._~-]{43,128}$" });
    let code = json!({ "type": "string", "minLength": 1, "maxLength": 4096 });
    json!({
        "NewSignIn": object(&json!({
            "redirect_uri": redirect, "code_challenge": challenge,
        }), &[]),
        "BegunSignIn": object(&json!({ "authorization_url": text() }), &[]),
        "EndedSignIn": object(&json!({
            "code": code, "state": text(), "code_verifier": verifier, "redirect_uri": redirect,
            "iss": { "type": ["string", "null"] },
        }), &["iss"]),
    })
}

fn of_devices() -> Value {
    let version = json!({ "type": ["integer", "null"] });
    let desired = json!({
        "model": reference("Name"), "version": reference("Version"),
        "rollout": or_null(&reference("Name")), "difference": text(),
    });
    let reported = json!({
        "model": text(), "active_version": version, "active_bundle": text(),
        "target_version": version, "phase": text(), "reason": text(), "checked": count(),
        "disagreed": { "type": "number" }, "alarms": count(),
    });
    let inventory = json!({
        "processor": text(), "cores": count(), "memory_bytes": count(), "gpu": text(),
        "cpu_features": { "type": "array", "items": text() },
        "providers": { "type": "array", "items": text() }, "runtime": text(),
    });
    json!({
        "NewToken": object(&json!({
            "ttl_s": span(2_592_000), "label": label(0), "tenant": reference("Name"),
            "count": { "type": ["integer", "null"], "minimum": 1, "maximum": TOKEN_DEVICES_MAX },
            "labels": reference("Labels"),
        }), &["ttl_s", "label", "tenant", "count", "labels"]),
        "Token": object(&json!({
            "id": text(), "label": text(), "tenant": reference("Name"),
            "labels": reference("Labels"), "state": { "enum": ["live", "used", "expired", "revoked"] }, "count": count(),
            "used": count(), "created_at_s": seconds(), "expires_at_s": seconds(),
        }), &[]),
        "CreatedToken": object(&json!({
            "id": text(), "token": text(), "expires_at_s": seconds(),
        }), &[]),
        "Device": object(&json!({
            "id": reference("Name"), "name": text(), "hostname": text(),
            "tenant": reference("Name"), "online": flag(),
            "carrier": { "enum": ["quic", "tcp", null] }, "carrier_reason": text(),
            "last_seen_s": { "type": ["integer", "null"] }, "enrolled_at_s": seconds(),
            "agent_version": text(), "os": text(), "arch": text(), "denied": flag(),
            "ca": { "enum": ["current", "previous", "unknown"] },
            "agent": reference("DeviceAgent"),
            "labels": reference("Labels"), "known_as": reference("Labels"),
            "inventory": or_null(&object(&inventory, &[])),
            "desired": { "type": "array", "items": object(&desired, &[]) },
            "reported": { "type": "array", "items": object(&reported, &[]) },
        }), &[]),
        "DeviceAgent": object(&json!({
            "desired": or_null(&reference("ReleaseVersion")), "target": text(), "installed": flag(),
            "next": text(), "phase": text(), "reason": text(),
        }), &[]),
        "RemovedDevice": object(&json!({ "id": reference("Name"), "removed": flag() }), &[]),
        "Denial": object(&json!({ "denied": flag() }), &[]),
        "Denied": object(&json!({ "id": reference("Name"), "denied": flag() }), &[]),
        "SignedOrder": {
            "type": "object", "description": "An order as text, a lab's signature, and the lab's delegation.",
        },
        "Ordered": object(&json!({ "id": text(), "device": reference("Name") }), &[]),
        "Measurement": object(&json!({
            "id": text(), "device": reference("Name"),
            "state": { "enum": ["waiting", "done", "expired"] },
            "report": { "type": ["object", "null"] },
        }), &[]),
    })
}

fn of_telemetry() -> Value {
    let class = json!({ "enum": ["counters", "aggregates", "events", "samples"] });
    json!({
        "SignedStatement": object(&json!({
            "statement": text(), "key_id": text(), "signature": text(),
        }), &[]),
        "AnalyticsKey": object(&json!({ "key": or_null(&reference("SignedStatement")) }), &[]),
        "PutAnalyticsKey": object(&json!({
            "serial": count(), "public_key": text(), "at_s": seconds(),
        }), &[]),
        "Segment": object(&json!({
            "id": count(), "device": reference("Name"), "segment": count(), "class": class,
            "tenant": reference("Name"), "key_id": text(), "created_unix_ms": count(),
            "received_at_s": seconds(), "frames": count(), "records": count(), "size_bytes": count(),
            "sha256": text(),
        }), &[]),
        "DeletedTelemetry": object(&json!({ "name": text(), "deleted": count() }), &[]),
    })
}

fn of_releases() -> Value {
    let version = || reference("ReleaseVersion");
    let build = json!({ "version": version(), "target": text() });
    let with = |more: Value| {
        let mut fields = build.clone();
        if let (Some(fields), Value::Object(more)) = (fields.as_object_mut(), more) {
            fields.extend(more);
        }
        object(&fields, &[])
    };
    json!({
        "SignedRelease": {
            "type": "object", "description": "A release as text, and an operator's signature over it.",
        },
        "Release": with(json!({
            "size_bytes": count(), "pushed_at_s": seconds(), "signed": reference("SignedRelease"),
        })),
        "PushedRelease": with(json!({ "added": flag() })),
        "ReleaseAssignment": object(&json!({
            "version": or_null(&version()), "device": or_null(&reference("Name")),
        }), &[]),
        "Releases": object(&json!({
            "releases": { "type": "array", "items": reference("Release") },
            "assignments": { "type": "array", "items": reference("ReleaseAssignment") },
        }), &[]),
    })
}

fn of_nodes() -> Value {
    let state = json!({ "enum": ["ready", "joining", "draining", "away", "removed"] });
    let names = json!({ "type": "array", "items": text() });
    let host = json!({ "type": "string", "pattern": "^[a-z][a-z0-9]{0,30}$" });
    json!({
        "Node": object(&json!({
            "id": reference("Name"), "name": text(), "names": names, "address": text(),
            "version": text(), "state": state, "joined_at_s": seconds(),
            "last_seen_s": { "type": ["integer", "null"] }, "requests_under_way": count(),
            "wait_us": count(), "devices": count(), "models": count(), "models_missing": count(),
        }), &[]),
        "NewNodeToken": object(&json!({
            "ttl_s": span(604_800), "label": label(0),
            "names": { "type": "array", "maxItems": 16, "items": host },
        }), &["ttl_s", "label", "names"]),
        "RemovedNode": object(&json!({
            "id": reference("Name"), "state": { "const": "removed" },
        }), &[]),
    })
}
