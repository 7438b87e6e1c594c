//! What was metered here goes to the control node in batches, each of which counts once: it is kept
//! until the control node has said that it is durable there.

use link::connection::Connection;
use link::frames;
use protocol::wire::NodeUsageTaken;

use super::enrol::JoinError;
use crate::state::{Cloud, now_s};

/// Sends all that was written down.
pub(super) async fn deliver(cloud: &Cloud, connection: &Connection) -> Result<(), JoinError> {
    while let Some(batch) = cloud.db.call(|store| store.usage_batch(now_s())).await? {
        let (mut send, mut receive) = connection.open_bi().await?;
        frames::send_last(&mut send, &batch, []).await?;
        let taken: NodeUsageTaken = frames::receive(&mut receive).await?;
        cloud.db.call(move |store| store.usage_taken(taken.batch)).await?;
    }
    Ok(())
}
