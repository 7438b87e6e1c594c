//! One connected node: what changed goes down, how it is comes up; usage, blobs and a fresh
//! certificate on streams of their own.
//!
//! A certificate that has ended is taken here: a node that was off for weeks comes back by itself, for
//! it is known by its key, and asks for a fresh one first thing.

use link::connection::{Connection, RecvStream, SendStream};
use link::frames::{self, LinkError};
use link::pki::DeviceCertificate;
use protocol::codec::{CodecError, FrameHeader, FrameKind};
use protocol::id::{ContentHash, InvalidName, NodeId};
use protocol::problem::{Problem, ProblemCode};
use protocol::wire;
use std::sync::Arc;
use tokio::task::JoinSet;

use crate::agents::blob::{self, Asker, Pace};
use crate::agents::{answer_problem, clip, once, violation};
use crate::state::{Cloud, now_s};
use crate::store::nodes::NodeRecord;
use crate::store::{Store, StoreError};

pub(super) const REMOVED: &str = "this node was removed by the operator";

/// The database may have been restored from before it joined: no reason for it to stop.
const UNKNOWN: &str = "this node never joined here";

/// A connected node.
struct Session {
    cloud: Arc<Cloud>,
    node: NodeRecord,
    certificate: DeviceCertificate,
    connection: Connection,
    pace: Pace,
}

/// Why a stream ended otherwise than it should.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Serves one node's connection to its end.
pub(crate) async fn serve(cloud: Arc<Cloud>, connection: Connection) {
    let (node, certificate) = match identify(&cloud, &connection).await {
        Ok(known) => known,
        Err(reason) => {
            cloud.events.node_refused(connection.remote_address(), reason);
            return connection.close(code_of(reason), reason);
        }
    };
    cloud.events.node_connected(&node.id, connection.remote_address());
    let shown = connection.peer_certificates().first().and_then(|leaf| cloud.ca.issuer_of(leaf));
    certified(&cloud, &node.id, shown).await;
    cloud.nodes.enter(&node.id, &connection);
    connection.open_wide();
    // Whoever was removed between the question and this was not expelled.
    if let Err(reason) = identify(&cloud, &connection).await {
        connection.close(code_of(reason), reason);
    }
    let session = Arc::new(Session { cloud, node, certificate, connection, pace: Pace::default() });
    let mut streams = JoinSet::new();
    let ended = loop {
        tokio::select! {
            accepted = session.connection.accept_bi() => match accepted {
                Ok((send, recv)) => drop(streams.spawn(session.clone().stream(send, recv))),
                Err(ended) => break ended,
            },
            Some(_) = streams.join_next() => {}
        }
    };
    let Session { cloud, node, connection, .. } = &*session;
    cloud.nodes.leave(&node.id, connection);
    cloud.events.node_disconnected(&node.id, &ended);
    let id = node.id.clone();
    if let Err(error) = cloud.db.call(move |store| store.node_seen(&id, now_s())).await {
        cloud.events.internal_error(&error);
    }
}

/// Notes whose certificate a node has.
async fn certified(cloud: &Cloud, node: &NodeId, ca_hash: Option<ContentHash>) {
    let Some(ca_hash) = ca_hash else { return };
    let id = node.clone();
    if let Err(error) = cloud.db.call(move |store| store.node_certified(&id, ca_hash)).await {
        cloud.events.internal_error(&error);
    }
}

fn code_of(reason: &str) -> ProblemCode {
    match reason {
        UNKNOWN => ProblemCode::NotFound,
        _ => ProblemCode::Unauthorised,
    }
}

async fn identify(
    cloud: &Cloud,
    connection: &Connection,
) -> Result<(NodeRecord, DeviceCertificate), &'static str> {
    let chain = connection.peer_certificates();
    let leaf = chain.first().ok_or("no client certificate: join the node first")?;
    let certificate = DeviceCertificate::parse(leaf).map_err(|_| "not a node's certificate")?;
    let id: NodeId = certificate.device.as_str().parse().map_err(|_| "not a node's name")?;
    let known = cloud.db.call(move |store| store.node(&id)).await.map_err(|error| {
        cloud.events.internal_error(&error);
        "the cloud cannot look the node up now"
    })?;
    match known {
        Some(node) if node.key != certificate.key => Err("the node joined with another key"),
        Some(node) if node.removed => Err(REMOVED),
        Some(node) => Ok((node, certificate)),
        None => Err(UNKNOWN),
    }
}

impl Session {
    async fn stream(self: Arc<Self>, send: SendStream, recv: RecvStream) {
        let error = match self.dispatch(send, recv).await {
            Ok(()) => return,
            Err(StreamError::Store(error)) => {
                self.cloud.events.internal_error(&error);
                return self.connection.close(ProblemCode::Internal, "");
            }
            Err(StreamError::Link(error)) => error,
        };
        if let Some(code) = violation(&error) {
            let text = protocol::problem::chain(&error);
            self.cloud.events.protocol_error(self.connection.remote_address(), &text);
            self.connection.close(code, &text);
        }
    }

    async fn dispatch(&self, send: SendStream, mut recv: RecvStream) -> Result<(), StreamError> {
        let header = frames::next_header(&mut recv).await?.ok_or(LinkError::Ended)?;
        match header.kind {
            FrameKind::NodeHello => self.control(send, recv, header).await,
            FrameKind::NodeUsage => self.usage(send, recv, header).await,
            FrameKind::BlobRequest => self.blob(send, recv, header).await,
            FrameKind::RenewRequest => self.renew(send, recv, header).await,
            actual => {
                let expected = FrameKind::NodeHello;
                Err(LinkError::Codec(CodecError::Unexpected { expected, actual }).into())
            }
        }
    }

    async fn control(
        &self,
        send: SendStream,
        mut recv: RecvStream,
        header: FrameHeader,
    ) -> Result<(), StreamError> {
        let hello: wire::NodeHello = frames::message(&mut recv, header).await?;
        tokio::select! {
            result = self.push_changes(send, &hello) => result,
            result = self.take_reports(recv, &hello) => result,
        }
    }

    /// From now on agents hear of it.
    async fn announce(&self, hello: &wire::NodeHello) -> Result<(), StoreError> {
        let id = self.node.id.clone();
        let (version, address) = (clip(&hello.version), clip(&hello.address));
        let note = move |store: &Store| store.node_hello(&id, &version, &address, now_s());
        self.cloud.db.call(note).await?;
        self.cloud.publish_desired().await
    }

    /// Tells what changed since what the node knows, now and from now on.
    async fn push_changes(
        &self,
        mut send: SendStream,
        hello: &wire::NodeHello,
    ) -> Result<(), StreamError> {
        let epoch = bytes::Bytes::copy_from_slice(&self.cloud.nodes.epoch);
        let mut fresh = hello.epoch != epoch;
        let mut cursor = if fresh { 0 } else { hello.cursor };
        let mut newest = self.cloud.db.newest_change();
        loop {
            newest.mark_unchanged();
            // The first word is always said, so that the node knows that there is nothing more.
            loop {
                let piece = self.cloud.db.call(move |store| store.changes(cursor)).await?;
                let complete = piece.complete;
                cursor = piece.cursor;
                let piece = wire::NodeUpdate { epoch: epoch.clone(), fresh, ..piece };
                frames::send(&mut send, &piece).await?;
                fresh = false;
                if complete {
                    break;
                }
            }
            if newest.changed().await.is_err() {
                return Ok(()); // the server is gone
            }
        }
    }

    async fn take_reports(
        &self,
        mut recv: RecvStream,
        hello: &wire::NodeHello,
    ) -> Result<(), StreamError> {
        let mut announced = false;
        while let Some(header) = frames::next_header(&mut recv).await? {
            let report: wire::NodeReport = frames::message(&mut recv, header).await?;
            if report.ready && !announced {
                self.announce(hello).await?;
                announced = true;
            }
            self.cloud.nodes.said(&self.node.id, report);
        }
        Ok(())
    }

    async fn usage(
        &self,
        mut send: SendStream,
        mut recv: RecvStream,
        header: FrameHeader,
    ) -> Result<(), StreamError> {
        let usage: wire::NodeUsage = frames::message(&mut recv, header).await?;
        let (id, batch) = (self.node.id.clone(), usage.batch);
        for key in &usage.keys_used {
            self.cloud.access.note_use(&key.id, key.at_s);
        }
        self.cloud.db.call(move |store| store.add_node_usage(&id, &usage)).await?;
        Ok(frames::send_last(&mut send, &wire::NodeUsageTaken { batch }, []).await?)
    }

    /// A file of a cloud variant.
    async fn blob(
        &self,
        mut send: SendStream,
        mut recv: RecvStream,
        header: FrameHeader,
    ) -> Result<(), StreamError> {
        let request: wire::BlobRequest = frames::message(&mut recv, header).await?;
        let hash = request.sha256.parse().map_err(|error: InvalidName| {
            Problem::new(ProblemCode::InvalidRequest, error.to_string())
        });
        let opened = match hash {
            Ok(hash) => {
                let size = self.cloud.db.call(move |store| store.cloud_blob(hash)).await?;
                blob::open_for_node(&self.cloud, hash, size, &request).await
            }
            Err(problem) => Err(problem),
        };
        match opened {
            Ok(open) => {
                let Self { cloud, node, connection, pace, .. } = self;
                let asker = Asker { name: &node.id, connection, pace };
                Ok(blob::pour(cloud, &asker, &mut send, open).await?)
            }
            Err(problem) => {
                self.cloud.events.blob_refused(&self.node.id, &problem);
                Ok(answer_problem(&mut send, &mut recv, problem).await?)
            }
        }
    }

    async fn renew(
        &self,
        mut send: SendStream,
        mut recv: RecvStream,
        header: FrameHeader,
    ) -> Result<(), StreamError> {
        let _: wire::RenewRequest = frames::message(&mut recv, header).await?;
        let NodeRecord { id, names, .. } = &self.node;
        match self.cloud.ca.renewed_node_certificate(id, names, &self.certificate) {
            Ok(leaf) => {
                self.cloud.events.renewed(id);
                let reply = wire::EnrolReply {
                    device_id: id.to_string(),
                    certificates: once::server_chain(&self.cloud, leaf),
                    signer_keys: Vec::new(),
                    root: bytes::Bytes::new(),
                };
                frames::send_last(&mut send, &reply, []).await?;
                certified(&self.cloud, id, Some(self.cloud.ca.hash())).await;
                Ok(())
            }
            Err(error) => {
                self.cloud.events.internal_error(&error);
                let text = "the cloud could not renew the certificate";
                let problem = Problem::new(ProblemCode::Internal, text);
                Ok(answer_problem(&mut send, &mut recv, problem).await?)
            }
        }
    }
}
