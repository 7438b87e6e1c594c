//! What is kept for how long: a segment's body goes after its time, and a while later the note that it was here, which
//! keeps a device from bringing it again.

use std::sync::Arc;
use std::time::Duration;

use crate::state::{Cloud, now_s};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
const DAY_S: i64 = 24 * 3600;

/// Sweeps at the start, and every hour, until the server ends.
pub(crate) async fn keep_sweeping(cloud: Arc<Cloud>, days: u32) {
    let mut stopping = cloud.stopping.subscribe();
    while days > 0 && !*stopping.borrow_and_update() {
        let before_s = now_s() - i64::from(days) * DAY_S;
        match cloud.telemetry.call(move |store| store.expire(before_s)).await {
            Ok(swept) => cloud.events.telemetry_expired(swept),
            Err(error) => cloud.events.internal_error(&error),
        }
        tokio::select! {
            _ = stopping.changed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
