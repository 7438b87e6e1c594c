//! What is of no use any more: uploads whose bundle never came, files of orders that are done, deltas of what
//! is gone, keys of sign-ins that ended long ago. They go after a grace, so that whoever uploads has the time to say what for.

use protocol::id::ContentHash;
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::blobs::Blobs;
use crate::state::{Cloud, now_s};
use crate::store::Store;

/// How often it is looked for them.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// What was swept away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Files.
    pub(crate) count: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// Sweeps at the start, and every hour, until the server ends.
pub(crate) async fn keep_sweeping(cloud: Arc<Cloud>, grace: Duration) {
    let mut stopping = cloud.stopping.subscribe();
    while !*stopping.borrow_and_update() {
        sweep(&cloud, grace).await;
        tokio::select! {
            _ = stopping.changed() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn sweep(cloud: &Arc<Cloud>, grace: Duration) {
    let now_s = now_s();
    if let Err(error) = cloud.db.call(move |store| store.forget_sign_ins(now_s)).await {
        cloud.events.internal_error(&error);
    }
    let named = match cloud.db.call(Store::named_blobs).await {
        Ok(named) => named,
        Err(error) => return cloud.events.internal_error(&error),
    };
    let (own, before) = (cloud.clone(), SystemTime::now() - grace);
    let swept = tokio::task::spawn_blocking(move || {
        own.deltas.retain(|target| named.contains(&target));
        remove_unnamed(&own.blobs, &named, before)
    });
    match swept.await {
        Ok(Ok(swept)) => cloud.events.blobs_swept(swept),
        Ok(Err(error)) => cloud.events.internal_error(&error),
        Err(_) => {} // the server is ending
    }
}

/// Removes what is not named, and was not asked for since.
fn remove_unnamed(
    blobs: &Blobs,
    named: &BTreeSet<ContentHash>,
    before: SystemTime,
) -> io::Result<Swept> {
    let mut swept = Swept::default();
    for (hash, file) in blobs.all()? {
        if !named.contains(&hash) && file.modified()? < before {
            blobs.remove(&[hash]);
            swept.count += 1;
            swept.bytes += file.len();
        }
    }
    Ok(swept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_or_young_stays() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(folder.path().join("blobs"), folder.path().join("incoming"));
        let put = |text: &str| {
            let hash = ContentHash::of(text.as_bytes());
            let path = blobs.path(hash);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
            hash
        };
        let (named, unnamed) = (put("named"), put("unnamed"));
        let names = BTreeSet::from([named]);
        let later = SystemTime::now() + Duration::from_secs(60);
        let earlier = SystemTime::now() - Duration::from_secs(60);
        assert_eq!(remove_unnamed(&blobs, &names, earlier).unwrap(), Swept::default());
        assert_eq!(remove_unnamed(&blobs, &names, later).unwrap(), Swept { count: 1, bytes: 7 });
        let here = |hash| blobs.size_bytes(hash).unwrap().is_some();
        assert!(here(named) && !here(unnamed));
        blobs.touch(named); // of what is there
        blobs.touch(unnamed); // and of what is not
    }
}
