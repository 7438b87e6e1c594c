//! A server in this process, and clients for both of its sides.

#![allow(dead_code)] // not every test binary needs all of it

use bytes::Bytes;
use fleet::access::Role;
use link::connection::{Connection, Ended, RecvStream, SendStream};
use link::dial::{DialError, Dialler, Target};
use link::frames;
use link::pki::DeviceKey;
use link::tls::{self, Identity};
use models::fake::{FakeBackend, Gate};
use outrigger_cloud::server::{Config, Engine, Server};
use outrigger_cloud::serving::accelerators::Accelerators;
use outrigger_cloud::serving::settings::{AdmissionSettings, ModelSettings, ServingSettings};
use outrigger_cloud::settings::Settings;
use prost::Message;
use protocol::carrier::Wanted;
use protocol::id::{ContentHash, Variant, Version};
use protocol::infer::{InferRequest, PlacementHint};
use protocol::manifest::{
    Classes, FORMAT, FileRef, MODEL_FILE, Manifest, Probes, SigningKey, TensorSpec,
};
use protocol::problem::ProblemCode;
use protocol::tensor::{DataType, Tensor};
use protocol::token::Token;
use protocol::transport::Parcel;
use protocol::wire;
use protocol::{ALPN_AGENT, ALPN_ENROL};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A running server with its first admin's key.
pub(crate) struct Cloud {
    pub(crate) runtime: Runtime,
    pub(crate) server: Server,
    pub(crate) admin: Token,
    pub(crate) folder: tempfile::TempDir,
    http: ureq::Agent,
}

/// An enrolled device.
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) identity: Identity,
}

pub(crate) fn start() -> Cloud {
    start_with(FakeBackend::default())
}

pub(crate) fn start_gated() -> (Cloud, Gate) {
    let gate = Gate::default();
    (start_with(FakeBackend::gated(gate.clone())), gate)
}

fn start_with(backend: FakeBackend) -> Cloud {
    start_as(backend, |_| ())
}

/// With settings of its own.
pub(crate) fn start_as(backend: FakeBackend, set: impl FnOnce(&mut Settings)) -> Cloud {
    start_whole(backend, set, ServingSettings::default())
}

/// A server whose models have one session each, and that waits at a gate.
pub(crate) fn start_narrow(admission: AdmissionSettings) -> (Cloud, Gate) {
    let gate = Gate::default();
    let model = ModelSettings { sessions_max: Some(1), ..ModelSettings::default() };
    let settings = ServingSettings { admission, model, ..ServingSettings::default() };
    (start_whole(FakeBackend::gated(gate.clone()), |_| (), settings), gate)
}

/// A server whose models may run on accelerators.
pub(crate) fn start_accelerated(backend: FakeBackend, accelerators: Accelerators) -> Cloud {
    let settings = ServingSettings { accelerators, ..ServingSettings::default() };
    start_whole(backend, |_| (), settings)
}

fn start_whole(
    backend: FakeBackend,
    set: impl FnOnce(&mut Settings),
    serving: ServingSettings,
) -> Cloud {
    let runtime = Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    set(&mut settings);
    settings.server.data_dir = folder.path().to_owned();
    settings.server.listen = "127.0.0.1:0".parse().unwrap();
    let config = Config { settings, engine: Engine::Here(Arc::new(backend)), serving };
    let server = runtime.block_on(Server::start(config)).unwrap();
    let key = std::fs::read_to_string(server.new_admin_key().unwrap()).unwrap();
    let http = http_client(server.cloud().ca.certificate());
    Cloud { admin: key.parse().unwrap(), runtime, server, folder, http }
}

fn http_client(ca: &CertificateDer<'_>) -> ureq::Agent {
    let tls = link::roots::http_client_of(std::slice::from_ref(ca));
    let config = ureq::Agent::config_builder()
        .max_idle_connections(0)
        .tls_config(tls)
        .http_status_as_error(false);
    config.build().new_agent()
}

pub(crate) fn bearer(token: &Token) -> String {
    format!("Bearer {}.{}", token.id, token.secret.reveal())
}

impl Cloud {
    /// One call of the API: status and body.
    pub(crate) fn call(
        &self,
        auth: Option<&str>,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> (u16, Value) {
        let url = format!("https://{}{path}", self.server.address());
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if let Some(auth) = auth {
            request = request.header("authorization", auth);
        }
        let mut response = self.http.run(request.body(body).unwrap()).unwrap();
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// One call as the first admin.
    pub(crate) fn admin(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call(Some(&bearer(&self.admin)), method, path, body.as_bytes())
    }

    /// A key of that role; its `Authorization` header.
    pub(crate) fn key(&self, role: Role) -> String {
        self.key_with(&json!({ "name": role, "role": role })).1
    }

    /// A key as asked for: its id, and its `Authorization` header.
    pub(crate) fn key_with(&self, wanted: &Value) -> (String, String) {
        let (status, body) = self.admin("POST", "/v1/keys", wanted);
        assert_eq!(status, 201, "{body}");
        let id = body["id"].as_str().unwrap().to_owned();
        (id, format!("Bearer {}", body["key"].as_str().unwrap()))
    }

    #[allow(clippy::needless_pass_by_value)] // so that a test can say it in one line
    pub(crate) fn connect(&self, tls: rustls::ClientConfig) -> Result<Connection, DialError> {
        self.connect_over(crate::CARRIER, &tls)
    }

    pub(crate) fn connect_over(
        &self,
        wanted: Wanted,
        tls: &rustls::ClientConfig,
    ) -> Result<Connection, DialError> {
        self.runtime.block_on(dial(wanted, self.server.address(), tls))
    }

    /// Asks for a certificate.
    pub(crate) fn enrol(&self, token: &Token, key: &DeviceKey) -> Result<wire::EnrolReply, String> {
        self.runtime.block_on(enrol(self.server.address(), token, key))
    }

    pub(crate) fn token(&self) -> Token {
        self.token_for(&json!({}))
    }

    /// A token as asked for.
    pub(crate) fn token_for(&self, wanted: &Value) -> Token {
        let (status, body) = self.admin("POST", "/v1/tokens", wanted);
        assert_eq!(status, 201, "{body}");
        body["token"].as_str().unwrap().parse().unwrap()
    }

    /// A fresh device.
    pub(crate) fn device(&self) -> Device {
        let key = DeviceKey::generate().unwrap();
        let reply = self.enrol(&self.token(), &key).unwrap();
        let chain =
            reply.certificates.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let key = link::pki::key_from_pem(key.to_pem().as_bytes()).unwrap();
        Device { id: reply.device_id, identity: Identity { chain, key: key.into() } }
    }

    /// A connection as that device.
    pub(crate) fn agent(&self, device: &Device) -> Connection {
        let ca = self.server.cloud().ca.certificate();
        let tls = tls::client(ca, Some(device.identity.clone()), ALPN_AGENT).unwrap();
        self.connect(tls).unwrap()
    }

    /// How the server ends a connection.
    pub(crate) fn closed(&self, connection: &Connection) -> (ProblemCode, String) {
        let closed =
            async { tokio::time::timeout(Duration::from_secs(10), connection.closed()).await };
        match self.runtime.block_on(closed).unwrap() {
            Ended::ByPeer { code, reason } => (code, reason),
            other => panic!("ended otherwise: {other}"),
        }
    }
}

async fn dial(
    wanted: Wanted,
    address: SocketAddr,
    tls: &rustls::ClientConfig,
) -> Result<Connection, DialError> {
    let (host, server_name) = (address.ip().to_string(), "localhost".to_owned());
    let target = Target { host, port: address.port(), server_name };
    Dialler::new(wanted, None).dial(&target, tls).await
}

/// Asks the server there for a certificate.
pub(crate) async fn enrol(
    address: SocketAddr,
    token: &Token,
    key: &DeviceKey,
) -> Result<wire::EnrolReply, String> {
    let tls = tls::pinned_client(token.ca_hash, ALPN_ENROL).unwrap();
    let connection = dial(crate::CARRIER, address, &tls).await.map_err(|e| e.to_string())?;
    let request = wire::EnrolRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.reveal(),
        csr: key.signing_request().unwrap().into(),
        hostname: "box".into(),
        agent_version: "0.1.0".into(),
    };
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await?;
        frames::send(&mut send, &request).await?;
        frames::receive::<wire::EnrolReply>(&mut recv).await
    };
    let reply = exchange.await;
    connection.close(ProblemCode::None, "");
    reply.map_err(|e| e.to_string())
}

/// A bundle of a stand-in model that doubles its input.
pub(crate) struct Bundle {
    pub(crate) manifest: Manifest,
    pub(crate) files: Vec<Bytes>,
}

pub(crate) const MODEL: &str = "fake\ninput x FP32 -1 3\noutput logits FP32 -1 3\nscale 2";

pub(crate) fn bundle(version: u64, variant: Variant, model: &str) -> Bundle {
    let tensor = |name: &str, values: &[f32]| Tensor::from_f32(name, vec![1, 3], values).unwrap();
    let probe =
        wire::Probe::new(&[tensor("x", &[1.0, 2.0, 3.0])], &[tensor("logits", &[2.0, 4.0, 6.0])]);
    let probes = wire::ProbeSet { probes: vec![probe] }.encode_to_vec();
    let contents = [
        (MODEL_FILE, Bytes::from(model.to_owned())),
        ("probes.pb", probes.into()),
        ("labels.json", Bytes::from_static(br#"["a","b","c"]"#)),
    ];
    let spec =
        |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![-1, 3] };
    let file =
        |bytes: &Bytes| FileRef { sha256: ContentHash::of(bytes), size_bytes: bytes.len() as u64 };
    let manifest = Manifest {
        format: FORMAT,
        model: "m".parse().unwrap(),
        version: Version::new(version).unwrap(),
        variant,
        inputs: vec![spec("x")],
        outputs: vec![spec("logits")],
        files: contents.iter().map(|(name, bytes)| ((*name).to_owned(), file(bytes))).collect(),
        preprocess: vec![],
        constants: vec![],
        state: vec![],
        postprocess: vec![],
        default_outputs: vec![],
        classes: Some(Classes {
            logits: "logits".into(),
            labels: Some("labels.json".into()),
            top_k: None,
            blank: None,
        }),
        calibration: None,
        thrift: None,
        probes: Probes { file: "probes.pb".into(), tolerance: 1e-3 },
        never_leaves_device: false,
        provenance: BTreeMap::new(),
    };
    Bundle { manifest, files: contents.into_iter().map(|(_, bytes)| bytes).collect() }
}

/// The key that signs in these tests.
pub(crate) fn signing_key() -> SigningKey {
    SigningKey::from_seed(&[5; 32])
}

impl Cloud {
    pub(crate) fn trust_signer(&self) {
        let public_key = hex::encode(signing_key().public().0);
        let body = json!({ "public_key": public_key, "name": "test" });
        assert!(self.admin("POST", "/v1/signers", &body).0 < 300);
    }

    pub(crate) fn push_files(&self, bundle: &Bundle) {
        for bytes in &bundle.files {
            let path = format!("/v1/blobs/{}", ContentHash::of(bytes));
            let (status, body) = self.call(Some(&bearer(&self.admin)), "PUT", &path, bytes);
            assert!(status < 300, "{body}");
        }
    }

    pub(crate) fn push_manifest(&self, bundle: &Bundle, key: &SigningKey) -> (u16, Value) {
        let signed = key.sign(&bundle.manifest).to_json();
        self.call(Some(&bearer(&self.admin)), "POST", "/v1/models", &signed)
    }

    /// Files, manifest, and trust.
    pub(crate) fn push(&self, bundle: &Bundle) -> (u16, Value) {
        self.trust_signer();
        self.push_files(bundle);
        self.push_manifest(bundle, &signing_key())
    }
}

impl Cloud {
    /// A device that should run version 1, so that it may ask the cloud's variants.
    pub(crate) fn device_with_model(&self) -> Device {
        self.push(&bundle(1, Variant::Edge, MODEL));
        let assigned = json!({ "model": "m", "version": 1, "device": null });
        assert_eq!(self.admin("PUT", "/v1/assignments", &assigned).0, 200);
        self.device()
    }
}

pub(crate) fn request(values: &[f32]) -> InferRequest {
    InferRequest {
        model: "m".parse().unwrap(),
        version: None,
        id: "1".into(),
        inputs: vec![Tensor::from_f32("x", vec![1, 3], values).unwrap()],
        outputs: vec![],
        deadline_ms: None,
        priority: 0,
        hint: PlacementHint::Cloud,
        sequence: None,
    }
}

/// Opens the control stream; the desired state that comes back, and the stream.
pub(crate) async fn hello(
    connection: &Connection,
) -> Result<(wire::DesiredState, Control), frames::LinkError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    let hello = wire::Hello { agent_version: "0.1.0".into(), ..Default::default() };
    frames::send(&mut send, &hello).await?;
    let desired = frames::receive(&mut recv).await?;
    Ok((desired, Control { send, recv }))
}

/// An open control stream.
pub(crate) struct Control {
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

/// Sends a request for version 1 and reads the answer.
pub(crate) async fn infer(
    connection: &Connection,
    request: &InferRequest,
    version: u64,
    deadline_ms: u32,
) -> Result<(wire::InferReply, Vec<Tensor>), frames::LinkError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    let open = wire::infer_open(
        request,
        &Parcel::raw(&request.inputs),
        Version::new(version).unwrap(),
        deadline_ms,
    );
    let raw = request.inputs.iter().map(|input| input.data().clone());
    // A refusal may come before everything was taken.
    let _ = frames::send_last(&mut send, &open, raw).await;
    let reply: wire::InferReply = frames::receive(&mut recv).await?;
    let pending = wire::PendingReply::from_reply(reply).map_err(frames::LinkError::Refused)?;
    let data = frames::receive_raw(&mut recv, &pending.tensor_sizes).await?;
    let reply = pending.reply.clone();
    Ok((reply, pending.with_data(data).map_err(frames::LinkError::Refused)?))
}
