//! Files of the repository for agents. That there is no such file is an answer of its own.

use link::connection::{RecvStream, SendStream};
use link::frames;
use protocol::codec::FrameHeader;
use protocol::mux::Priority;
use protocol::problem::{Problem, ProblemCode};
use protocol::wire;

use super::answer_problem;
use super::session::{Session, StreamError};

/// Serves one stream.
pub(super) async fn serve(
    session: &Session,
    mut send: SendStream,
    mut recv: RecvStream,
    header: FrameHeader,
) -> Result<(), StreamError> {
    let request: wire::MetadataRequest = frames::message(&mut recv, header).await?;
    send.set_priority(Priority::Blob);
    let repository = session.cloud.repository.clone();
    let read = move |store: &crate::store::Store| repository.file(store, &request.name);
    match session.cloud.db.call(read).await {
        Ok(file) => {
            let size_bytes = file.as_ref().map_or(0, |bytes| bytes.len() as u64);
            let answer = wire::MetadataHeader { found: file.is_some(), size_bytes };
            let raw = file.map(bytes::Bytes::from);
            Ok(frames::send_last(&mut send, &answer, raw).await?)
        }
        Err(error) => {
            session.cloud.events.internal_error(&error);
            let problem = Problem::new(ProblemCode::Internal, "the repository cannot be read");
            Ok(answer_problem(&mut send, &mut recv, problem).await?)
        }
    }
}
