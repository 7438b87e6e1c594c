//! The control stream: desired state down, reported state up.

use link::connection::{Connection, RecvStream, SendStream};
use link::frames;
use link::quic::IDLE_TIMEOUT;
use prost::Message;
use protocol::codec::{FrameHeader, FrameKind};
use protocol::id::ContentHash;
use protocol::mux::Priority;
use protocol::problem::ProblemCode;
use protocol::wire;
use rusqlite::Transaction;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

use super::clip;
use super::session::{Session, StreamError};
use super::sites::TOGETHER;
use crate::state::now_s;
use crate::store::Store;
use crate::store::devices::{note_hello, note_reported};
use crate::store::repository::TakeError;

/// How often a director's list is looked at: well within half of its life.
const LIST_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Serves the control stream until the agent ends it.
pub(super) async fn serve(
    session: &Session,
    send: SendStream,
    mut recv: RecvStream,
    header: FrameHeader,
) -> Result<(), StreamError> {
    if session.has_control.swap(true, Ordering::Relaxed) {
        return Err(StreamError::SecondControl);
    }
    send.set_priority(Priority::Control);
    Box::pin(hear_hello(session, &mut recv, header)).await?;
    tokio::select! {
        result = push_desired(session, send) => result,
        result = take_reports(session, recv) => result,
    }
}

async fn hear_hello(
    session: &Session,
    recv: &mut RecvStream,
    header: FrameHeader,
) -> Result<(), StreamError> {
    let mut hello: wire::Hello = frames::message(recv, header).await?;
    for text in [&mut hello.agent_version, &mut hello.os, &mut hello.arch] {
        *text = clip(text);
    }
    if let Some(reported) = &mut hello.reported {
        take_measured(session, reported).await?;
        take_offer(session, reported);
        session.cloud.rollouts.heard.hear_state(&session.device, reported);
    }
    let (device, ca_hash) = (session.device.clone(), session.ca_hash);
    let note = move |t: &Transaction<'_>| note_hello(t, &device, ca_hash, &hello, now_s());
    session.cloud.db.together(note).await?;
    for former in session.cloud.online.beside(&session.device, &session.connection) {
        tokio::spawn(part(former));
    }
    Ok(())
}

/// A device that came back may have left a connection behind, which nobody would miss for minutes: one that gives no sign
/// of life is closed. Another may be a better one's predecessor, with answers to come.
async fn part(former: Connection) {
    let before = former.heard();
    former.nudge();
    tokio::time::sleep(IDLE_TIMEOUT).await;
    if former.heard() == before {
        former.close(ProblemCode::None, "the device has another connection");
    }
}

/// What a device was told, without all the words.
#[derive(PartialEq)]
struct Said {
    peers: Vec<wire::Peer>,
    /// Of everything but the revision, which alone is no news.
    hash: ContentHash,
}

impl Said {
    fn of(desired: &wire::DesiredState) -> Self {
        let news = wire::DesiredState { revision: 0, ..desired.clone() };
        Self { peers: desired.peers.clone(), hash: ContentHash::of(&news.encode_to_vec()) }
    }
}

/// Sends the desired state now, and again whenever it changed for this device.
async fn push_desired(session: &Session, mut send: SendStream) -> Result<(), StreamError> {
    let mut revision = session.cloud.revision.subscribe();
    let mut sites = session.cloud.sites.subscribe();
    let mut said: Option<Said> = None;
    loop {
        revision.mark_unchanged();
        let times = session.news.times();
        sites.mark_unchanged();
        Box::pin(say(session, &mut send, &mut said)).await?;
        // Again after a while although nothing changed: the director's list runs out.
        tokio::select! {
            changed = revision.changed() => if changed.is_err() {
                return Ok(()); // the server is gone
            },
            () = session.news.beyond(times) => {}
            () = others(session, &mut sites, said.as_ref()) => {}
            () = tokio::time::sleep(LIST_PERIOD) => {}
        }
    }
}

/// Sends the desired state where it is another than what was said last.
async fn say(
    session: &Session,
    send: &mut SendStream,
    said: &mut Option<Said>,
) -> Result<(), StreamError> {
    let device = session.device.clone();
    let repository = session.cloud.repository.clone();
    let read = move |store: &Store| -> Result<wire::DesiredState, TakeError> {
        let mut state = store.desired(&device)?.state;
        state.repository = repository.for_device(store, &device, &state)?;
        Ok(state)
    };
    let mut desired = session.cloud.db.call(read).await?;
    desired.peers = session.cloud.sites.peers(&session.device);
    desired.watch = session.cloud.rollouts.heard.watch_of(&session.device);
    desired.questions = session.cloud.questions.waiting_for(&session.device);
    let nodes_only = session.cloud.control.nodes_only.load(Ordering::Relaxed);
    desired.nodes_only = nodes_only && !desired.nodes.is_empty();
    let saying = Said::of(&desired);
    if said.as_ref() != Some(&saying) {
        frames::send(send, &desired).await.map_err(outgoing)?;
        *said = Some(saying);
    }
    Ok(())
}

/// Waits until the device has other peers than was said.
async fn others(session: &Session, sites: &mut watch::Receiver<u64>, said: Option<&Said>) {
    while sites.changed().await.is_ok() {
        tokio::time::sleep(TOGETHER).await;
        sites.mark_unchanged();
        if said.is_none_or(|said| said.peers != session.cloud.sites.peers(&session.device)) {
            return;
        }
    }
    std::future::pending::<()>().await; // the server is gone
}

fn outgoing(error: frames::LinkError) -> StreamError {
    match error {
        frames::LinkError::Codec(_) => StreamError::Outgoing(error),
        other => StreamError::Link(other),
    }
}

async fn take_reports(session: &Session, mut recv: RecvStream) -> Result<(), StreamError> {
    while let Some(header) = frames::next_header(&mut recv).await? {
        Box::pin(take_report(session, &mut recv, header)).await?;
    }
    Ok(())
}

async fn take_report(
    session: &Session,
    recv: &mut RecvStream,
    header: FrameHeader,
) -> Result<(), StreamError> {
    if header.kind == FrameKind::Evidence {
        let evidence: wire::Evidence = frames::message(recv, header).await?;
        session.cloud.rollouts.heard.hear_evidence(&session.device, &evidence);
        return Ok(());
    }
    let mut reported: wire::ReportedState = frames::message(recv, header).await?;
    session.cloud.rollouts.heard.hear_state(&session.device, &reported);
    take_measured(session, &mut reported).await?;
    take_offer(session, &reported);
    let device = session.device.clone();
    let note = move |t: &Transaction<'_>| note_reported(t, &device, &reported, now_s());
    Ok(session.cloud.db.together(note).await?)
}

/// Whether the device serves its site, and where.
fn take_offer(session: &Session, reported: &wire::ReportedState) {
    let Session { cloud, device, identity, .. } = session;
    if let Err(error) = cloud.sites.hear(device, &identity.tenant, reported.peer.as_ref()) {
        cloud.events.peer_refused(device, &error.to_string());
    }
}

/// Takes what the device timed out of its report, and to where whoever ordered it asks for it. The
/// device says it until the order is gone from its desired state.
async fn take_measured(
    session: &Session,
    reported: &mut wire::ReportedState,
) -> Result<(), StreamError> {
    let measured = std::mem::take(&mut reported.measured);
    if measured.is_empty() {
        return Ok(());
    }
    let (cloud, device) = (&session.cloud, session.device.clone());
    let unneeded = cloud.db.call(move |store| store.measured(&device, &measured)).await?;
    cloud.blobs.remove(&unneeded);
    Ok(cloud.publish_desired().await?)
}
