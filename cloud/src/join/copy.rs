//! Takes over what the control node says, as a whole and at once: a key that was revoked there is not
//! believed here, and a device that was shut out there loses its connections here.

use link::connection::RecvStream;
use link::frames;
use prost::Message;
use protocol::wire::NodeUpdate;
use std::sync::Arc;
use tokio::sync::Notify;

use super::enrol::JoinError;
use crate::state::{Cloud, DENIED, now_s};
use crate::store::Store;
use crate::store::replica::CopyError;

/// What a control node may say at once: a million devices take less.
const COPY_MAX_BYTES: usize = 256 << 20;

/// Takes over what comes, until the stream ends. `models` is rung after each time.
pub(super) async fn follow(
    cloud: &Arc<Cloud>,
    receive: &mut RecvStream,
    models: &Notify,
) -> Result<(), JoinError> {
    loop {
        next(cloud, receive).await?;
        models.notify_one();
    }
}

/// Takes over what comes next, once all of it is here.
pub(super) async fn next(cloud: &Arc<Cloud>, receive: &mut RecvStream) -> Result<(), JoinError> {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    loop {
        let piece: NodeUpdate = frames::receive(receive).await?;
        bytes += piece.encoded_len();
        if bytes > COPY_MAX_BYTES {
            return Err(CopyError::Unreadable("more than a node can hold").into());
        }
        let complete = piece.complete;
        pieces.push(piece);
        if complete {
            return take_over(cloud, pieces).await;
        }
    }
}

async fn take_over(cloud: &Arc<Cloud>, pieces: Vec<NodeUpdate>) -> Result<(), JoinError> {
    let all = Arc::new(pieces);
    let copied = all.clone();
    cloud.db.call(move |store| store.copy(&copied, now_s())).await?;
    let keys = cloud.db.call(Store::api_keys).await?;
    cloud.access.replace(keys, cloud.db.call(Store::tenants).await?);
    for (model, policy) in cloud.db.call(Store::policies).await? {
        cloud.serving.set_policy(&model, policy);
    }
    cloud.revision.send_modify(|revision| *revision += 1); // assignments are read anew
    let denied = all.iter().flat_map(|piece| &piece.devices).filter(|device| device.denied);
    for device in denied {
        if let Ok(id) = device.id.parse() {
            cloud.online.expel(&id, DENIED);
        }
    }
    cloud.events.copied(all.last().map_or(0, |piece| piece.cursor));
    Ok(())
}
