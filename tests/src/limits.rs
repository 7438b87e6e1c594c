//! The one table of limits that people read, made from the constants that the programs obey, and from
//! the commented configuration that ships with the agent.

use anyhow::Context;
use edge::pulse::PULSE_MAX;
use fleet::admission::{GatePolicy, LimitPolicy};
use fleet::labels::{GROUPS_MAX, LABEL_MAX_BYTES, LABELS_MAX};
use fleet::questions::{self, QUESTIONS_MAX};
use fleet::rollout::plan::{DEVICES_MAX, STAGES_MAX};
use fleet::rollout::query::QUERY_MAX_BYTES;
use fleet::rollout::{CALLS_PER_CHECK, EVIDENCE_PER_S, HISTORY_MAX, ROLLOUTS_MAX};
use fleet::sign_in::ticket::SIGN_IN_MAX_S;
use fleet::sign_in::{ALL_SIGN_INS_MAX, EXCHANGE_MAX, EXCHANGES_MAX, SESSION_H, SIGN_INS_MAX};
use link::quic::{DEVICE_PATIENCE, IDLE_TIMEOUT};
use models::error::audio::{CHANNELS_MAX, FRAMES_MAX, RATE_MAX_HZ, RATE_MIN_HZ, SAMPLES_MAX};
use models::error::image::{ENCODED_MAX_BYTES, PIXELS_MAX, SIDE_MAX};
use models::error::text::{TEXT_MAX_BYTES, TEXTS_MAX, TOKENS_MAX};
use protocol::evidence::EVIDENCE_MODELS_MAX;
use protocol::limits::*;
use protocol::otlp::{self, FIELD_MAX_BYTES, FIELDS_MAX, OutboxPolicy};
use protocol::trace::STATE_MAX_BYTES;
use telemetry::limits::{FRAME_MAX_BYTES, FRAME_MAX_RECORDS, SEGMENT_MAX_BYTES};

/// One row: what, how much, what happens beyond it, where it is configured.
type Row = [String; 4];

/// The table in Markdown. `agent_toml` is the text of the commented configuration.
///
/// # Errors
/// A configured limit is not in the configuration.
pub fn table(agent_toml: &str) -> anyhow::Result<String> {
    let mut rows = requests(agent_toml)?;
    rows.extend(connections(agent_toml)?);
    rows.extend(items());
    rows.extend(cloud());
    rows.extend(bundles());
    rows.extend(connected());
    rows.extend(links());
    rows.extend(fleet());
    rows.extend(sign_ins());
    rows.extend(rollouts());
    rows.extend(repository());
    rows.extend(downloads(agent_toml)?);
    rows.extend(telemetry(agent_toml)?);
    let mut table = "| what | limit | beyond it | configured by |\n|---|---|---|---|\n".to_owned();
    for [what, limit, beyond, by] in rows {
        table.push_str(&format!("| {what} | {limit} | {beyond} | {by} |\n"));
    }
    Ok(table)
}

const TOO_LARGE: &str = "413, `RESOURCE_EXHAUSTED`";
const INVALID: &str = "400, `INVALID_ARGUMENT`";
const OVERLOADED: &str = "503 with `retry_after_ms`, `UNAVAILABLE`";
const LATE: &str = "504, `DEADLINE_EXCEEDED`";
const REFUSED: &str = "the bundle is refused";

fn row(what: &str, limit: impl Into<String>, beyond: &str, by: &str) -> Row {
    let by = if by.is_empty() { "-".to_owned() } else { format!("`{by}`") };
    [what.to_owned(), limit.into(), beyond.to_owned(), by]
}

/// A size in the largest unit of which it is a whole number.
fn size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or(format!("{bytes} bytes"), |(unit, name)| format!("{} {name}", bytes / unit))
}

fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A default of the commented configuration: `#key = value` under `[section]`.
fn configured(agent_toml: &str, section: &str, key: &str) -> anyhow::Result<u64> {
    let after = agent_toml.split_once(&format!("\n[{section}]\n")).map(|(_, rest)| rest);
    let own = after.and_then(|rest| rest.split("\n[").next());
    let begin = format!("#{key} = ");
    let line = own.and_then(|own| own.lines().find_map(|line| line.strip_prefix(&begin)));
    line.with_context(|| format!("no [{section}] {key}"))?.parse().context("no number")
}

fn requests(agent_toml: &str) -> anyhow::Result<Vec<Row>> {
    let queue = configured(agent_toml, "runtime", "queue")?;
    let sequences = configured(agent_toml, "sequences", "count")?;
    let idle_s = configured(agent_toml, "sequences", "idle_s")?;
    let states = configured(agent_toml, "sequences", "memory_mb")? << 20;
    let bodies = configured(agent_toml, "local", "request_memory_mb")? << 20;
    let deadline = format!("{} minutes", DEADLINE_MAX_MS / 60_000);
    let expired = "400: unknown or expired; the least recently used is forgotten first";
    Ok(vec![
        row("tensors of a request or answer", count(TENSORS_MAX_COUNT as u64), TOO_LARGE, ""),
        row("their bytes together", size(TENSORS_MAX_BYTES), TOO_LARGE, ""),
        row("dimensions of a tensor", TENSOR_MAX_RANK.to_string(), INVALID, ""),
        row("names, and the request's id", format!("{NAME_MAX_BYTES} bytes"), INVALID, ""),
        row(
            "parameters of a request, and of a tensor",
            PARAMETERS_MAX_COUNT.to_string(),
            TOO_LARGE,
            "",
        ),
        row("body over HTTP, unpacked", size(HTTP_BODY_MAX_BYTES as u64), TOO_LARGE, ""),
        row("message over gRPC, unpacked", size(TENSORS_MAX_BYTES + (1 << 20)), TOO_LARGE, ""),
        row(
            "bodies of all requests under way",
            size(bodies),
            OVERLOADED,
            "[local] request_memory_mb",
        ),
        row("requests waiting for a session", count(queue), OVERLOADED, "[runtime] queue"),
        row("deadline of a request", deadline, "it is cut to that", "parameter timeout"),
        row("sequences (streams with state)", count(sequences), expired, "[sequences] count"),
        row("their states together", size(states), expired, "[sequences] memory_mb"),
        row("a sequence without a request", format!("{idle_s} s"), expired, "[sequences] idle_s"),
        row("requests of one sequence at once", count(SEQUENCE_WAITING_MAX as u64), OVERLOADED, ""),
    ])
}

fn connections(agent_toml: &str) -> anyhow::Result<Vec<Row>> {
    let head_s = configured(agent_toml, "local", "first_head_s")?;
    let body_s = configured(agent_toml, "local", "body_s")?;
    let idle_s = oip::listen::HEAD_PATIENCE.as_secs();
    let closed = "the connection is closed";
    Ok(vec![
        row(
            "connections per socket",
            count(oip::listen::CONNECTIONS_MAX as u64),
            "they wait to be accepted",
            "",
        ),
        row(
            "calls at once on an HTTP/2 connection",
            count(oip::listen::STREAMS_MAX.into()),
            "they wait",
            "",
        ),
        row("headers over HTTP/2", size(oip::listen::HEADERS_MAX_BYTES.into()), "431", ""),
        row(
            "time for a connection's first request",
            format!("{head_s} s"),
            closed,
            "[local] first_head_s",
        ),
        row("time for a later head, and idle", format!("{idle_s} s"), closed, ""),
        row("time for a body", format!("{body_s} s"), LATE, "[local] body_s"),
    ])
}

fn items() -> Vec<Row> {
    let rates = format!("{} to {} Hz", count(RATE_MIN_HZ.into()), count(RATE_MAX_HZ.into()));
    let mega = |number: u64| format!("{} Mi", number >> 20);
    vec![
        row("image file", size(ENCODED_MAX_BYTES as u64), TOO_LARGE, ""),
        row("image, before it is decoded", format!("{} pixels", mega(PIXELS_MAX)), TOO_LARGE, ""),
        row("side of an image", format!("{} pixels", count(SIDE_MAX.into())), TOO_LARGE, ""),
        row("sound", format!("{} samples", mega(SAMPLES_MAX as u64)), TOO_LARGE, ""),
        row("frames of a sound", count(FRAMES_MAX as u64), TOO_LARGE, ""),
        row("channels and rate of a WAV file", format!("{CHANNELS_MAX}, {rates}"), INVALID, ""),
        row("text", size(TEXT_MAX_BYTES as u64), TOO_LARGE, ""),
        row("texts of a request", count(u64::try_from(TEXTS_MAX).unwrap_or(0)), TOO_LARGE, ""),
        row(
            "tokens of a text",
            count(TOKENS_MAX.into()),
            "it is truncated to the model's length",
            "the bundle",
        ),
    ]
}

fn cloud() -> Vec<Row> {
    let LimitPolicy { min, max, .. } = LimitPolicy::default();
    let found = format!("{min} to {}, found by measurement", count(max.into()));
    let first = "503, `UNAVAILABLE`, or the one that was idle longest is forgotten";
    vec![
        row(
            "items of a model in flight on the cloud",
            found,
            OVERLOADED,
            "[serving] in_flight_min, in_flight_max",
        ),
        row(
            "requests of a device or key in flight there",
            count(CALLER_REQUESTS_MAX.into()),
            OVERLOADED,
            "[serving] caller_requests",
        ),
        row("priority of a caller there", "0", "it is cut to that", "[serving] priority_max"),
        row(
            "tensors in flight there",
            size(GatePolicy::default().tensor_bytes),
            OVERLOADED,
            "[serving] tensor_memory_mb",
        ),
        row(
            "memory of all models there",
            "half of what there is",
            "idle ones make room; 503, or the bundle is refused",
            "[runtime] memory_budget_mb",
        ),
        row("models in memory there", "8", "the least recently used one is unloaded", ""),
        row("requests of a model that wait", count(QUEUE_MAX_REQUESTS as u64), OVERLOADED, ""),
        row(
            "a worker: memory, time to load, time beyond a deadline",
            "half of the memory, 120 s, 2 s",
            "it is ended, and started again",
            "[runtime]",
        ),
        row("sessions of a worker, tensors of a run", "16, 128 MiB each way", "500", ""),
        row("tenants, and callers, remembered there", count(IDENTITIES_MAX as u64), first, ""),
    ]
}

fn bundles() -> Vec<Row> {
    let closed = "the stream is closed, `too_large`";
    vec![
        row("files of a bundle", count(BUNDLE_MAX_FILES as u64), REFUSED, ""),
        row("file of a bundle", size(BUNDLE_FILE_MAX_BYTES), REFUSED, ""),
        row("manifest", size(MANIFEST_MAX_BYTES as u64), REFUSED, ""),
        row("control frame to or from the cloud", size(CONTROL_FRAME_MAX_BYTES.into()), closed, ""),
        row(
            "header of a stream to or from the cloud",
            size(HEADER_FRAME_MAX_BYTES.into()),
            closed,
            "",
        ),
        row("a model on trial", "half of the memory, 120 s", "it is quarantined", "[sandbox]"),
        row(
            "answers that wait to be compared with a candidate's",
            count(edge::shadow::WAITING_MAX as u64),
            "they are not compared",
            "",
        ),
    ]
}

fn rollouts() -> Vec<Row> {
    vec![
        row(
            "labels of a device; a key, a value; a query",
            format!("{LABELS_MAX}; {LABEL_MAX_BYTES} bytes; {QUERY_MAX_BYTES} bytes"),
            "422",
            "",
        ),
        row(
            "groups; roll-outs under way; devices, and stages, of one",
            format!("{GROUPS_MAX}; {ROLLOUTS_MAX}; {}, {STAGES_MAX}", count(DEVICES_MAX as u64)),
            "422, 409",
            "",
        ),
        row(
            "questions to devices: waiting for one, of one in 10 minutes, kept by the cloud; answered by a device in an hour",
            format!(
                "{QUESTIONS_WAITING_MAX}, {}, {QUESTIONS_MAX}; {}",
                questions::OFTEN_MAX,
                edge::questions::OFTEN_MAX
            ),
            "429; a typed refusal",
            "[remote] checks, logs",
        ),
        row(
            "such a question's wait; its answer; lines of the log that one has, and that an agent keeps for them",
            format!(
                "{} h; {}; {}; {}",
                QUESTION_MAX_S / 3600,
                size(ANSWER_MAX_BYTES as u64),
                count(ANSWER_LINES_MAX.into()),
                size(LOG_KEPT_MAX_BYTES as u64),
            ),
            "it ends unanswered; the oldest lines are left out, and counted",
            "",
        ),
        row(
            "calls whose answers are checked while a roll-out looks, of up to 1,000 devices",
            format!("one in {CALLS_PER_CHECK}"),
            "they are not checked; of more devices fewer",
            "[offload] calls_per_check = 0 for none",
        ),
        row(
            "a device's evidence: models of a frame, frames of a fleet in a second",
            format!("{EVIDENCE_MODELS_MAX}, {EVIDENCE_PER_S}"),
            "it is left aside; it is asked for less often",
            "[rollouts] look_s",
        ),
        row("history of a roll-out", count(HISTORY_MAX as u64), "the oldest goes", ""),
    ]
}

fn connected() -> Vec<Row> {
    vec![
        row(
            "devices and nodes connected to one cloud",
            count(AGENT_CONNECTIONS_MAX as u64),
            "they are refused and counted",
            "",
        ),
        row(
            "streams, unread bytes of a connection to the cloud",
            format!(
                "{STREAMS_PER_CONNECTION} ({STREAMS_AT_FIRST} before the first deferral), {}",
                size(CONNECTION_WINDOW_BYTES.into())
            ),
            "they wait; over TCP the connection of who sends more is closed",
            "",
        ),
    ]
}

fn links() -> Vec<Row> {
    vec![
        row("a silent peer", format!("{} s", IDLE_TIMEOUT.as_secs()), "it is given up", ""),
        row(
            "a silent connection of a device",
            format!("{} s", DEVICE_PATIENCE.as_secs()),
            "it is given up",
            "",
        ),
        row(
            "between two signs of life on an idle connection",
            format!("{} s", PULSE_MAX.as_secs()),
            "-",
            "[link] pulse_max_s",
        ),
    ]
}

fn fleet() -> Vec<Row> {
    let waiting = OutboxPolicy::default();
    vec![
        row(
            "answer of an HTTP proxy",
            size(link::proxy::HEAD_MAX_BYTES as u64),
            "it is no proxy",
            "",
        ),
        row("inference nodes", NODES_MAX.to_string(), "a token lets no more in", ""),
        row("times asked of the cloud", "3 at once, then one a second", "no answer", ""),
        row(
            "requests to the cloud in 24 hours, and their bytes",
            "none unless configured",
            "`edge-degraded`, reason `budget`",
            "[offload] calls_per_day, bytes_per_day",
        ),
        row(
            "calls whose answers are checked",
            format!("one in {}", edge::audit::CALLS_PER_CHECK),
            "they are not checked",
            "[offload] calls_per_check",
        ),
        row("answers that wait to be checked", "8", "they are not checked, which is counted", ""),
        row(
            "spans that wait for a collector, each for",
            format!("{}, {} s", count(waiting.items_max as u64), waiting.patience.as_secs()),
            "they are dropped, which is counted",
            "",
        ),
        row(
            "lines of the log that wait for a collector, each for",
            format!("{}, {} s", count(link::otlp::LOGS_MAX as u64), waiting.patience.as_secs()),
            "they are dropped, which is counted",
            "[otlp] logs",
        ),
        row(
            "text of such a line, its fields, bytes of each",
            format!("{}, {FIELDS_MAX}, {FIELD_MAX_BYTES}", count(otlp::TEXT_MAX_BYTES as u64)),
            "they are cut",
            "",
        ),
        row("`tracestate` of a request", format!("{STATE_MAX_BYTES} bytes"), "it is ignored", ""),
        row("enrolment token", format!("{TOKEN_MAX_BYTES} bytes"), "it is refused", ""),
        row(
            "devices that one token lets in",
            count(TOKEN_DEVICES_MAX.into()),
            "the token is not made; the next device is refused",
            "device token --count",
        ),
        row(
            "models that a lab's order has timed, for",
            format!("{MEASURED_MODELS_MAX}, {MEASUREMENT_MAX_S} s"),
            "the order is refused",
            "[lab] enabled",
        ),
        row(
            "orders of labs that wait for a device, for",
            format!("{ORDERS_WAITING_MAX}, {} h", ORDER_LIFETIME_MAX_S / 3600),
            "409; they end",
            "",
        ),
    ]
}

fn sign_ins() -> Vec<Row> {
    vec![
        row(
            "sign-ins that can be used: of a person, of all",
            format!("{SIGN_INS_MAX}, {}", count(ALL_SIGN_INS_MAX.into())),
            "the oldest ends; 409",
            "",
        ),
        row(
            "time for a sign-in; exchanges with the provider at once, time for each",
            format!(
                "{} minutes; {EXCHANGES_MAX}, {} s",
                SIGN_IN_MAX_S / 60,
                EXCHANGE_MAX.as_secs()
            ),
            "it begins again; 503",
            "",
        ),
        row(
            "how long somebody is signed in",
            format!("{SESSION_H} h"),
            "they sign in again",
            "[oidc] session_h",
        ),
    ]
}

fn repository() -> Vec<Row> {
    let refused = "the repository is refused";
    let sizes = [
        TUF_ROOT_MAX_BYTES,
        TUF_TARGETS_MAX_BYTES,
        TUF_SNAPSHOT_MAX_BYTES,
        TUF_TIMESTAMP_MAX_BYTES,
    ];
    vec![
        row(
            "a repository's root, targets, snapshot, timestamp",
            sizes.map(size).join(", "),
            refused,
            "",
        ),
        row(
            "signatures of one of these, keys of a role, roles that it delegates to",
            format!(
                "{TUF_SIGNATURES_MAX}, {TUF_ROLE_KEYS_MAX}, {}",
                count(TUF_DELEGATED_ROLES_MAX as u64)
            ),
            refused,
            "",
        ),
        row(
            "versions of root that are followed at a time",
            TUF_ROOTS_MAX.to_string(),
            "the others are followed the next time",
            "",
        ),
        row(
            "a signature over a model's folder",
            size(MODEL_SIGNATURE_MAX_BYTES as u64),
            "it is refused",
            "",
        ),
        row(
            "roles that are asked for one target",
            TUF_VISITS_MAX.to_string(),
            "the target is refused",
            "",
        ),
    ]
}

fn telemetry(agent_toml: &str) -> anyhow::Result<Vec<Row>> {
    let own = |key| configured(agent_toml, "telemetry", key);
    let (commit_s, events) = (own("commit_s")?, own("events_per_hour")?);
    let (disk_mb, keep_h) = (own("disk_mb")?, own("keep_h")?);
    let dropped = "records are given up, which is counted and reported";
    let policy = edge::spool::SpoolPolicy::default();
    let crowd = fleet::crowd::CrowdPolicy::default();
    Ok(vec![
        row("records that wait to be written", "4,096", dropped, ""),
        row(
            "what of them a power cut takes",
            format!("{commit_s} s or {}", size(policy.commit_bytes as u64)),
            "the group is written",
            "[telemetry] commit_s",
        ),
        row(
            "events in an hour",
            events.to_string(),
            "none is drawn",
            "[telemetry] events_per_hour",
        ),
        row(
            "telemetry on a device's disk, and hours in operation that it lies there",
            format!("{disk_mb} MB, {keep_h}"),
            "what is worth least goes first",
            "[telemetry] disk_mb, keep_h",
        ),
        row(
            "a segment, a frame, its records",
            format!(
                "{}, {}, {}",
                size(SEGMENT_MAX_BYTES as u64),
                size(FRAME_MAX_BYTES as u64),
                count(FRAME_MAX_RECORDS.into())
            ),
            "the segment is refused",
            "",
        ),
        row(
            "segments offered at once, and their bytes",
            format!("{TELEMETRY_BATCH_SEGMENTS}, {}", size(TELEMETRY_BATCH_MAX_BYTES)),
            "the stream is refused",
            "",
        ),
        row(
            "such batches in the cloud's memory",
            "64 MiB",
            "the device is told when to ask again",
            "",
        ),
        row(
            "telemetry on the cloud's disk, for how long",
            "20,000 MB, 90 days",
            "devices wait; it is deleted",
            "[telemetry] disk_mb, keep_days, tenant_keep_days",
        ),
        row(
            "devices behind each step of the fleet's figures, at least",
            crowd.devices_min.to_string(),
            "it waits for others",
            "[telemetry] crowd_devices",
        ),
        row(
            "models by version and placement with such figures",
            count(crowd.groups_max.into()),
            "they count as `other`",
            "",
        ),
    ])
}

fn downloads(agent_toml: &str) -> anyhow::Result<Vec<Row>> {
    let stall_s = configured(agent_toml, "download", "stall_s")?;
    let program_s = configured(agent_toml, "update", "program_patience_s")?;
    let starts = configured(agent_toml, "update", "starts")?;
    Ok(vec![
        row("chunk of a file", size(CHUNK_BYTES), "a damaged one is fetched again by itself", ""),
        row(
            "bytes downloaded in a day, and in a month",
            "none unless configured",
            "it waits, `waiting for the next day's bytes`",
            "[download] bytes_per_day, bytes_per_month",
        ),
        row(
            "time without a byte of what was asked for",
            format!("{stall_s} s"),
            "it is tried again later",
            "[download] stall_s",
        ),
        row(
            "files that one delta may be from, deltas that wait to be made",
            format!("{DELTA_BASES_MAX}, {DELTAS_WAITING_MAX}"),
            "whole files are fetched",
            "",
        ),
        row("file that has deltas", "250 MB", "it is fetched whole", "[blobs] delta_file_max_mb"),
        row(
            "deltas on the cloud's disk",
            "2,000 MB",
            "the least recently used go",
            "[blobs] delta_cache_mb",
        ),
        row(
            "the agent's program, kinds of machines of a version",
            format!("{}, {RELEASE_TARGETS_MAX}", size(RELEASE_FILE_MAX_BYTES)),
            "the release is refused",
            "",
        ),
        row(
            "a new program until it is well, and starts that it has for that",
            format!("{program_s} s, {starts}"),
            "the one before runs again",
            "[update] program_patience_s, starts",
        ),
        row("memory to apply a delta", "48 MiB", "the file is fetched whole", ""),
        row(
            "devices of a site that serve each other",
            count(PEERS_MAX as u64),
            "the others are no peers",
            "[peers] site",
        ),
        row(
            "connections of peers, answers to them at a time",
            format!("{PEER_CONNECTIONS_MAX}, {}", configured(agent_toml, "peers", "uploads")?),
            "they are closed; told to come again",
            "[peers] uploads",
        ),
        row("bytes of one answer to a peer", size(PEER_ANSWER_MAX_BYTES), "it ends there", ""),
        row(
            "bytes that peers are served in a day",
            "none unless configured",
            "they are told to come again",
            "[peers] upload_bytes_per_day",
        ),
    ])
}
