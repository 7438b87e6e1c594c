//! What can be called.

use serde_json::{Value, json};

use super::schemas::{list, reference};
use super::{questions, rollouts};

const JSON: &str = "application/json";

/// The media type and the schema of a body.
type Content = (&'static str, Value);

/// One call.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// What a role must include.
    pub(super) permission: Option<&'static str>,
    /// Whether it needs no key.
    pub(super) is_open: bool,
    /// Whether it may be refused until the server is ready for it.
    pub(super) may_be_unready: bool,
    pub(super) parameters: Vec<Value>,
    pub(super) body: Option<Content>,
    /// Status, description, body.
    pub(super) answers: Vec<(u16, &'static str, Option<Content>)>,
}

impl Operation {
    pub(super) fn new(method_path: &'static str, id: &'static str, summary: &'static str) -> Self {
        let (method, path) = method_path.split_once(' ').unwrap_or(("get", method_path));
        Self {
            method,
            path,
            id,
            summary,
            permission: None,
            is_open: false,
            may_be_unready: false,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
        }
    }

    pub(super) fn need(self, permission: &'static str) -> Self {
        Self { permission: Some(permission), ..self }
    }

    fn open(self) -> Self {
        Self { is_open: true, ..self }
    }

    pub(super) fn in_path(self, name: &str, schema: &Value) -> Self {
        self.parameter(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
    }

    pub(super) fn in_query(self, name: &str, schema: &Value, description: &str) -> Self {
        let parameter =
            json!({ "name": name, "in": "query", "schema": schema, "description": description });
        self.parameter(parameter)
    }

    fn parameter(mut self, parameter: Value) -> Self {
        self.parameters.push(parameter);
        self
    }

    pub(super) fn takes(self, schema: Value) -> Self {
        Self { body: Some((JSON, schema)), ..self }
    }

    pub(super) fn gives(self, status: u16, description: &'static str, schema: Value) -> Self {
        self.answers(status, description, Some((JSON, schema)))
    }

    fn answers(mut self, status: u16, description: &'static str, content: Option<Content>) -> Self {
        self.answers.push((status, description, content));
        self
    }
}

/// Every call.
pub(super) fn all() -> Vec<Operation> {
    let parts = [
        server(),
        models(),
        repository(),
        keys(),
        sign_in(),
        devices(),
        questions::operations(),
        rollouts::operations(),
        releases(),
        telemetry(),
        nodes(),
    ];
    parts.into_iter().flatten().collect()
}

fn server() -> Vec<Operation> {
    let ready = || reference("Readiness");
    let text = json!({ "type": "string" });
    let seconds = json!({ "type": "integer", "format": "int64" });
    let by = json!({ "type": "string", "enum": ["tenant", "key", "model"], "default": "tenant" });
    vec![
        Operation::new("get /healthz", "health", "Whether the process lives").open().gives(
            200,
            "It lives.",
            reference("Liveness"),
        ),
        Operation::new("get /readyz", "readiness", "Whether requests should come here, or why not")
            .gives(200, "They should.", ready())
            .gives(503, "They should not.", ready()),
        Operation::new("get /metrics", "metrics", "What Prometheus reads").need("View").answers(
            200,
            "Its text format, 0.0.4.",
            Some(("text/plain", text)),
        ),
        Operation::new("get /openapi.json", "openapi", "This document").gives(
            200,
            "OpenAPI 3.1.",
            json!({ "type": "object" }),
        ),
        Operation::new("get /v1/whoami", "whoami", "Whose key this is").gives(
            200,
            "Its holder.",
            reference("Whoami"),
        ),
        Operation::new("get /v1/stats", "stats", "What the server is doing").need("View").gives(
            200,
            "Counts.",
            json!({ "type": "object" }),
        ),
        Operation::new("get /v1/audit", "audit", "The newest changes, newest first")
            .need("View")
            .in_query(
                "limit",
                &json!({ "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 }),
                "At most so many; 100 when absent, and never more than 1,000.",
            )
            .gives(200, "Entries.", list("audit", "AuditEntry")),
        Operation::new("get /v1/usage", "usage", "What tenants, keys and devices, or models took")
            .need("View")
            .in_query("from", &seconds, "Unix seconds; a day before `to` when absent.")
            .in_query("to", &seconds, "Unix seconds; now when absent.")
            .in_query("by", &by, "What is told apart.")
            .gives(200, "Sums, the busiest first.", reference("UsageReport")),
    ]
}

fn models() -> Vec<Operation> {
    let hash = reference("ContentHash");
    let mut push_model = Operation::new("post /v1/models", "push_model", "Take a bundle in")
        .need("Push")
        .takes(reference("SignedManifest"))
        .gives(200, "It was here.", reference("Pushed"))
        .gives(201, "It was taken in.", reference("Pushed"));
    push_model.may_be_unready = true;
    vec![
        Operation::new(
            "get /v1/models",
            "models",
            "Every pushed bundle, and which versions answer",
        )
        .need("View")
        .gives(200, "Bundles and policies.", reference("Models")),
        push_model,
        Operation::new(
            "put /v1/models/{model}/policy",
            "set_policy",
            "Which versions of a model answer side by side",
        )
        .need("Load")
        .in_path("model", &reference("Name"))
        .takes(reference("NewPolicy"))
        .gives(200, "It holds.", reference("Policy")),
        Operation::new("head /v1/blobs/{sha256}", "has_blob", "Whether a file is here")
            .need("View")
            .in_path("sha256", &hash)
            .answers(200, "It is here.", None),
        Operation {
            body: Some(("application/octet-stream", json!({}))),
            ..Operation::new("put /v1/blobs/{sha256}", "push_blob", "Take a file in")
                .need("Push")
                .in_path("sha256", &hash)
                .gives(200, "It was here.", reference("Blob"))
                .gives(201, "It was taken in.", reference("Blob"))
        },
        Operation::new("get /v1/signers", "signers", "Who may sign what devices install")
            .need("View")
            .gives(200, "Their keys.", list("signers", "Signer")),
        Operation::new("post /v1/signers", "trust_signer", "Let somebody sign")
            .need("TrustSigner")
            .takes(reference("NewSigner"))
            .gives(200, "It was trusted before.", reference("Trusted"))
            .gives(201, "It is trusted.", reference("Trusted")),
        Operation::new("get /v1/assignments", "assignments", "Who should run what")
            .need("View")
            .gives(200, "Assignments.", list("assignments", "Assignment")),
        Operation::new("put /v1/assignments", "assign", "Say who should run what")
            .need("Assign")
            .takes(reference("Assignment"))
            .gives(200, "They were told.", reference("Assignment")),
    ]
}

fn repository() -> Vec<Operation> {
    let role = json!({ "enum": ["snapshot", "timestamp", "director"] });
    vec![
        Operation::new("get /v1/repository", "repository", "The repository of models")
            .need("View")
            .gives(200, "The newest file of each role.", reference("Repository")),
        Operation::new(
            "post /v1/repository",
            "take_files",
            "Take files in that were signed with offline keys",
        )
        .need("Push; TrustSigner for root")
        .takes(reference("RepositoryFiles"))
        .gives(200, "They hold.", reference("RepositoryVersions")),
        Operation::new(
            "post /v1/repository/keys/{role}",
            "make_online_key",
            "Make one more key of a role that is online",
        )
        .need("TrustSigner")
        .in_path("role", &role)
        .gives(201, "It was made.", reference("OnlineKey")),
        Operation::new("get /v1/bundles/{sha256}", "bundle", "The signed manifest of a bundle")
            .need("View")
            .in_path("sha256", &reference("ContentHash"))
            .gives(200, "It is here.", reference("SignedManifest")),
    ]
}

fn releases() -> Vec<Operation> {
    let pushed = || reference("PushedRelease");
    vec![
        Operation::new(
            "get /v1/agent/releases",
            "releases",
            "Builds of the agent, and who runs which",
        )
        .need("View")
        .gives(200, "They are here.", reference("Releases")),
        Operation::new("post /v1/agent/releases", "push_release", "Take a signed release in")
            .need("Push")
            .takes(reference("SignedRelease"))
            .gives(200, "It was here before.", pushed())
            .gives(201, "It is here.", pushed()),
        Operation::new("put /v1/agent/assignments", "assign_release", "Say who should run which")
            .need("Assign")
            .takes(reference("ReleaseAssignment"))
            .gives(200, "They were told.", reference("ReleaseAssignment")),
    ]
}

fn keys() -> Vec<Operation> {
    vec![
        Operation::new("get /v1/keys", "keys", "Every key, without its secret")
            .need("ManageKeys")
            .gives(200, "Keys.", list("keys", "Key")),
        Operation::new("post /v1/keys", "create_key", "Make a key; its secret is shown this once")
            .need("ManageKeys")
            .takes(reference("NewKey"))
            .gives(201, "It was made.", reference("CreatedKey")),
        Operation::new("delete /v1/keys/{id}", "revoke_key", "Revoke a key, at once")
            .need("ManageKeys")
            .in_path("id", &json!({ "type": "string", "minLength": 1 }))
            .gives(200, "It was revoked.", reference("Revoked")),
        Operation::new("get /v1/tenants", "tenants", "Every tenant").need("View").gives(
            200,
            "Tenants.",
            list("tenants", "Tenant"),
        ),
        Operation::new("put /v1/tenants/{name}", "put_tenant", "Say what a tenant may ask")
            .need("ManageKeys")
            .in_path("name", &reference("Name"))
            .takes(reference("NewTenant"))
            .gives(200, "It holds.", reference("PutTenant")),
    ]
}

fn sign_in() -> Vec<Operation> {
    let failed = |operation: Operation| {
        operation.gives(502, "The provider is of no use now.", reference("Error")).gives(
            503,
            "Too many sign in at once.",
            reference("Error"),
        )
    };
    vec![
        failed(
            Operation::new("post /v1/sign-in", "begin_sign_in", "Where a browser goes to sign in")
                .open()
                .takes(reference("NewSignIn"))
                .gives(200, "A URL of the provider.", reference("BegunSignIn")),
        ),
        failed(
            Operation::new(
                "post /v1/sign-in/finish",
                "finish_sign_in",
                "Make a key for whoever signed in; its secret is shown this once",
            )
            .open()
            .takes(reference("EndedSignIn"))
            .gives(201, "It was made, and ends by itself.", reference("CreatedKey")),
        ),
        Operation::new("delete /v1/sign-in", "end_sign_in", "Revoke the own key of a sign-in")
            .gives(200, "It was revoked.", reference("Revoked")),
    ]
}

fn devices() -> Vec<Operation> {
    vec![
        Operation::new(
            "post /v1/tokens",
            "create_token",
            "Make a token that one device enrols with, or several",
        )
        .need("Enrol")
        .takes(reference("NewToken"))
        .gives(201, "It was made.", reference("CreatedToken")),
        Operation::new("get /v1/tokens", "tokens", "Every token, without its secret")
            .need("Enrol")
            .gives(200, "Tokens, the newest first.", list("tokens", "Token")),
        Operation::new("delete /v1/tokens/{id}", "revoke_token", "Take a token back, at once")
            .need("Enrol")
            .in_path("id", &json!({ "type": "string", "minLength": 1 }))
            .gives(200, "It was taken back.", reference("Revoked")),
        Operation::new("get /v1/devices", "devices", "Every device: what it should run, and runs")
            .need("View")
            .in_query("query", &reference("Query"), "Only those that this asks for.")
            .gives(200, "Devices.", list("devices", "Device")),
        Operation::new("get /v1/devices/{id}", "device", "One device: what it is, and runs")
            .need("View")
            .in_path("id", &reference("Name"))
            .gives(200, "It is here.", reference("Device")),
        Operation::new("delete /v1/devices/{id}", "remove_device", "Forget a device for good")
            .need("Enrol")
            .in_path("id", &reference("Name"))
            .gives(200, "It is gone.", reference("RemovedDevice")),
        Operation::new(
            "put /v1/devices/{id}/labels",
            "label_device",
            "Give it labels, or take some",
        )
        .need("Enrol")
        .in_path("id", &reference("Name"))
        .takes(reference("Relabelling"))
        .gives(200, "They hold.", reference("Labelled")),
        Operation::new(
            "put /v1/devices/{id}/denied",
            "deny_device",
            "Shut a device out, or let it in",
        )
        .need("Enrol")
        .in_path("id", &reference("Name"))
        .takes(reference("Denial"))
        .gives(200, "It holds.", reference("Denied")),
        Operation::new(
            "post /v1/measurements",
            "order_measurement",
            "Have models timed on a device that allows it",
        )
        .need("Push")
        .takes(reference("SignedOrder"))
        .gives(201, "The device was told.", reference("Ordered")),
        Operation::new("get /v1/measurements/{id}", "measurement", "What became of an order")
            .need("View")
            .in_path("id", &json!({ "type": "string", "minLength": 1 }))
            .gives(200, "The order, and the device's report.", reference("Measurement")),
    ]
}

fn telemetry() -> Vec<Operation> {
    let id = json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX });
    let class = json!({ "enum": ["counters", "aggregates", "events", "samples"] });
    vec![
        Operation::new("get /v1/telemetry/key", "analytics_key", "For whom devices seal")
            .need("View")
            .gives(200, "The newest statement, if any.", reference("AnalyticsKey")),
        Operation::new("put /v1/telemetry/key", "put_analytics_key", "Say for whom they seal")
            .need("Push")
            .takes(reference("SignedStatement"))
            .gives(200, "Devices are told.", reference("PutAnalyticsKey")),
        Operation::new("get /v1/telemetry/segments", "segments", "What devices have recorded")
            .need("View")
            .in_query("after", &id, "Only behind this id.")
            .in_query("device", &reference("Name"), "Only of this device.")
            .in_query("class", &class, "Only of this class.")
            .in_query(
                "limit",
                &json!({ "type": "integer", "minimum": 1, "maximum": 1000 }),
                "At most so many.",
            )
            .gives(200, "Segments, the first to come first.", list("segments", "Segment")),
        Operation::new(
            "get /v1/telemetry/segments/{id}",
            "segment",
            "One segment, as it was sealed",
        )
        .need("ReadTelemetry")
        .in_path("id", &id)
        .answers(
            200,
            "The segment; the key of samples is in x-outrigger-encapsulated-key.",
            Some(("application/octet-stream", json!({ "type": "string", "format": "binary" }))),
        ),
        Operation::new(
            "delete /v1/telemetry/devices/{name}",
            "delete_device_telemetry",
            "Delete what is here of a device",
        )
        .need("ManageKeys")
        .in_path("name", &reference("Name"))
        .gives(200, "It is gone.", reference("DeletedTelemetry")),
        Operation::new(
            "delete /v1/telemetry/tenants/{name}",
            "delete_tenant_telemetry",
            "Delete what is here of a tenant",
        )
        .need("ManageKeys")
        .in_path("name", &reference("Name"))
        .gives(200, "It is gone.", reference("DeletedTelemetry")),
    ]
}

fn nodes() -> Vec<Operation> {
    vec![
        Operation::new("get /v1/nodes", "nodes", "Every inference node, and how busy it is")
            .need("View")
            .gives(200, "Nodes.", list("nodes", "Node")),
        Operation::new("post /v1/nodes/tokens", "create_node_token", "Make a token for one node")
            .need("ManageKeys")
            .takes(reference("NewNodeToken"))
            .gives(201, "It was made.", reference("CreatedToken")),
        Operation::new("delete /v1/nodes/{id}", "remove_node", "Shut a node out, for good")
            .need("ManageKeys")
            .in_path("id", &reference("Name"))
            .gives(200, "It was removed.", reference("RemovedNode")),
    ]
}
