//! One connected agent: who it is, and its streams.

use link::connection::{Connection, Ended, RecvStream, SendStream};
use link::frames::{self, LinkError};
use link::pki::DeviceCertificate;
use protocol::codec::{CodecError, FrameHeader, FrameKind};
use protocol::id::{ContentHash, DeviceId, ModelName, TenantName};
use protocol::problem::{Problem, ProblemCode};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};
use tokio::task::JoinSet;

use super::scope::Scope;
use super::violation;
use super::{
    FIRST_FRAME_TIMEOUT, answer_problem, blob, control, infer, metadata, pulse, telemetry, time,
};
use crate::access::Identity;
use crate::questions;
use crate::rollouts::heard::News;
use crate::state::{Cloud, now_s};
use crate::store::StoreError;
use crate::store::devices::note_seen;
use crate::store::repository::TakeError;
use crate::telemetry::TelemetryError;

/// A connected agent.
pub(super) struct Session {
    pub(super) cloud: Arc<Cloud>,
    pub(super) device: DeviceId,
    /// The fleet CA that has signed its certificate.
    pub(super) ca_hash: Option<ContentHash>,
    pub(super) connection: Connection,
    pub(super) has_control: AtomicBool,
    /// Done once it has asked for an answer.
    opened_wide: Once,
    pub(super) identity: Identity,
    scope: Scope,
    /// Changes where there is something new for this device alone.
    pub(super) news: Arc<News>,
    pub(super) times: time::Allowance,
    pub(super) pace: blob::Pace,
}

/// Why a stream ended otherwise than it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The peer or the connection.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A second control stream.
    #[error("a second control stream")]
    SecondControl,
    /// Our own message is beyond its limit.
    #[error("the answer cannot be sent")]
    Outgoing(#[source] LinkError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database of telemetry failed.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The repository's own keys do not fit its root.
    #[error("the repository cannot be signed")]
    Repository(#[from] TakeError),
}

/// Serves one agent's connection to its end.
pub(super) async fn serve(cloud: Arc<Cloud>, connection: Connection) {
    let Some(session) = Box::pin(begin(cloud, connection)).await else { return };
    let ended = session.run().await;
    Box::pin(session.end(&ended)).await;
}

/// Who it is; nothing where that is nobody who may be here.
async fn begin(cloud: Arc<Cloud>, connection: Connection) -> Option<Arc<Session>> {
    let remote = connection.remote_address();
    let known = identify(&cloud, &connection).await;
    let known = known.and_then(|known| known.valid_at(cloud.control.judged_at_s()));
    let (device, tenant, ca_hash) = match known {
        Ok(Known { certificate, tenant, ca_hash }) => (certificate.device, tenant, ca_hash),
        Err(reason) => {
            cloud.events.agent_unauthorised(remote, reason);
            connection.close(ProblemCode::Unauthorised, reason);
            return None;
        }
    };
    cloud.events.agent_connected(&device, remote);
    cloud.online.enter(&device, &connection);
    let news = cloud.rollouts.heard.enter(&device);
    // Whoever was denied between the question and this was not among those to be expelled.
    if let Err(reason) = identify(&cloud, &connection).await {
        connection.close(ProblemCode::Unauthorised, reason);
    }
    let (has_control, opened_wide) = (AtomicBool::new(false), Once::new());
    let times = time::Allowance::default();
    let identity = Identity { tenant, caller: format!("device {device}").into() };
    let scope = Scope::default();
    let pace = blob::Pace::default();
    Some(Arc::new(Session {
        cloud,
        device,
        ca_hash,
        connection,
        has_control,
        opened_wide,
        times,
        identity,
        scope,
        news,
        pace,
    }))
}

/// A device that is known here.
pub(super) struct Known {
    pub(super) certificate: DeviceCertificate,
    /// The fleet CA that has signed it; an inference node may not know it yet.
    ca_hash: Option<ContentHash>,
    tenant: TenantName,
}

impl Known {
    /// The handshake took what renewal takes.
    fn valid_at(self, at_s: i64) -> Result<Self, &'static str> {
        if self.certificate.not_after_s <= at_s {
            return Err("the device's certificate has expired: renew it first");
        }
        if self.certificate.not_before_s > now_s() {
            return Err("the device's certificate is not valid yet: renew it first");
        }
        Ok(self)
    }
}

/// The certificate behind a connection, if its device is known here and not shut out; it may have
/// expired. A resumed TLS session is checked like a new one.
pub(super) async fn identify(
    cloud: &Cloud,
    connection: &Connection,
) -> Result<Known, &'static str> {
    let chain = connection.peer_certificates();
    let leaf = chain.first().ok_or("no client certificate: enrol the device first")?;
    let certificate = DeviceCertificate::parse(leaf).map_err(|_| "not a device's certificate")?;
    let ca_hash = cloud.ca.issuer_of(leaf);
    let id = certificate.device.clone();
    let known = cloud.db.call(move |store| store.known_device(&id)).await.map_err(|error| {
        cloud.events.internal_error(&error);
        "the cloud cannot look the device up now"
    })?;
    match known {
        Some(known) if known.key != certificate.key => Err("the device enrolled with another key"),
        Some(known) if known.denied => Err("this device was denied by the operator"),
        Some(known) => Ok(Known { certificate, ca_hash, tenant: known.tenant }),
        None => Err("this device never enrolled here"),
    }
}

impl Session {
    /// Refuses a model that this device should not run, or that its tenant may not ask.
    pub(super) async fn check_model(&self, model: &ModelName) -> Result<(), Problem> {
        self.scope.check(self, model).await
    }

    /// Accepts streams until the connection ends, which a stopping server leaves to the end of the
    /// endpoint, once the requests that it took are answered.
    async fn run(self: &Arc<Self>) -> Ended {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.connection.accept_bi() => match accepted {
                    Ok((send, recv)) => drop(streams.spawn(self.clone().stream(send, recv))),
                    Err(ended) => return ended,
                },
                Some(_) = streams.join_next() => {}
            }
        }
    }

    async fn end(&self, ended: &Ended) {
        let Self { cloud, device, connection, .. } = self;
        cloud.online.leave(device, connection);
        cloud.rollouts.heard.leave(device);
        if !cloud.online.contains(device) {
            cloud.sites.left(device);
        }
        cloud.events.agent_disconnected(device, ended);
        let id = device.clone();
        if let Err(error) = cloud.db.together(move |t| note_seen(t, &id, now_s())).await {
            cloud.events.internal_error(&error);
        }
    }

    async fn stream(self: Arc<Self>, send: SendStream, recv: RecvStream) {
        if let Err(error) = self.dispatch(send, recv).await {
            self.close_for(&error);
        }
    }

    async fn dispatch(
        &self,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Result<(), StreamError> {
        let first = tokio::time::timeout(FIRST_FRAME_TIMEOUT, frames::next_header(&mut recv));
        let Ok(header) = Box::pin(first).await else { return Ok(()) }; // silence ends the stream
        let header = header?.ok_or(LinkError::Ended)?;
        match header.kind {
            FrameKind::Pulse => {
                let serve = pulse::serve(&self.cloud, &self.connection, send, recv, header);
                Ok(Box::pin(serve).await?)
            }
            FrameKind::Hello
            | FrameKind::TimeRequest
            | FrameKind::BlobRequest
            | FrameKind::MetadataRequest
            | FrameKind::TelemetryOffer
            | FrameKind::DeviceAnswer
                if self.cloud.control.is_elsewhere() =>
            {
                let text = "this is an inference node, which only answers requests";
                let problem = Problem::new(ProblemCode::NotFound, text);
                Ok(Box::pin(answer_problem(&mut send, &mut recv, problem)).await?)
            }
            FrameKind::Hello => Box::pin(control::serve(self, send, recv, header)).await,
            FrameKind::InferOpen => {
                self.opened_wide.call_once(|| self.connection.open_wide());
                Box::pin(infer::serve(self, send, recv, header)).await
            }
            FrameKind::TimeRequest => {
                let remote = self.connection.remote_address();
                let (times, streams) = (&self.times, (send, recv));
                Ok(Box::pin(time::serve(&self.cloud, times, remote, streams, header)).await?)
            }
            FrameKind::BlobRequest => Box::pin(blob::serve(self, send, recv, header)).await,
            FrameKind::MetadataRequest => Box::pin(metadata::serve(self, send, recv, header)).await,
            FrameKind::TelemetryOffer => Box::pin(telemetry::serve(self, send, recv, header)).await,
            FrameKind::DeviceAnswer => {
                Box::pin(self.take_answer(&mut recv, header)).await?;
                Ok(send.finish()?)
            }
            actual => {
                let expected = FrameKind::InferOpen;
                Err(LinkError::Codec(CodecError::Unexpected { expected, actual }).into())
            }
        }
    }

    async fn take_answer(
        &self,
        recv: &mut RecvStream,
        header: FrameHeader,
    ) -> Result<(), StreamError> {
        let answer = frames::message(recv, header).await?;
        Ok(questions::take(&self.cloud, &self.device, answer).await?)
    }

    /// Closes the connection when the error is the peer's fault, or ours.
    fn close_for(&self, error: &StreamError) {
        let code = match error {
            StreamError::Link(error) => violation(error),
            StreamError::SecondControl => Some(ProblemCode::Protocol),
            StreamError::Outgoing(_)
            | StreamError::Store(_)
            | StreamError::Telemetry(_)
            | StreamError::Repository(_) => Some(ProblemCode::Internal),
        };
        let Some(code) = code else { return };
        let text = protocol::problem::chain(error);
        match code {
            ProblemCode::Internal => self.cloud.events.internal_error(error),
            _ => self.cloud.events.protocol_error(self.connection.remote_address(), &text),
        }
        self.connection.close(code, &text);
    }
}
