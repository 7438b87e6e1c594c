//! How a device's connections hear that there is something new for it alone.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use tokio::sync::Notify;

/// Counts what is new. A `watch` would do, and takes several times as much for each connected device.
#[derive(Debug, Default)]
pub(crate) struct News {
    times: AtomicU64,
    more: Notify,
}

impl News {
    /// There is something new.
    pub(super) fn add(&self) {
        self.times.fetch_add(1, SeqCst);
        self.more.notify_waiters();
    }

    /// How often there was.
    pub(crate) fn times(&self) -> u64 {
        self.times.load(SeqCst)
    }

    /// Waits until there was something new more often than this.
    pub(crate) async fn beyond(&self, times: u64) {
        loop {
            let more = self.more.notified(); // hears what comes from here on
            if self.times() > times {
                return;
            }
            more.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn nothing_new_is_missed() {
        let news = News::default();
        let known = news.times();
        assert_eq!(news.beyond(known).now_or_never(), None);
        news.add();
        news.beyond(known).await; // before somebody waited
        let known = news.times();
        let (waiting, ()) = tokio::join!(news.beyond(known), async { news.add() }); // and while two wait
        assert_eq!((waiting, news.times()), ((), 2));
    }
}
