//! When evidence is told: as often as the cloud asks for it, and not at all where it does not.

use protocol::evidence::{EVERY_MAX_S, EVERY_MIN_S, EVIDENCE_MODELS_MAX};
use protocol::wire::{DesiredState, Evidence, ModelEvidence, Watch};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What counts how versions answer.
pub trait Counts {
    /// The cloud looks closely at these models, or at none.
    fn look_closely(&self, watch: Option<&Watch>);

    /// The sums of these models so far, of those that answer.
    fn rows(&self, models: &[String]) -> Vec<ModelEvidence>;

    /// Where in its first period the first evidence is told, from 0 to 1: at random, since a whole fleet is asked at
    /// the same moment.
    fn phase(&self) -> f64 {
        f64::from(u32::from_le_bytes(crate::entropy())) / f64::from(u32::MAX)
    }
}

/// When what is told next, on one connection.
pub struct Told<C> {
    counts: Arc<C>,
    desired: watch::Receiver<Option<DesiredState>>,
    due: Option<Instant>,
    last: Evidence,
}

impl<C: Counts> Told<C> {
    /// Nothing has been told yet.
    pub fn new(counts: Arc<C>, desired: watch::Receiver<Option<DesiredState>>) -> Self {
        Self { counts, desired, due: None, last: Evidence::default() }
    }

    /// Waits until there is something to tell. To be dropped at any time.
    pub(super) async fn next(&mut self) -> Evidence {
        loop {
            let asked = self.desired.borrow_and_update().as_ref().and_then(|d| d.watch.clone());
            self.counts.look_closely(asked.as_ref());
            let Some(Watch { mut models, every_s, .. }) = asked else {
                self.due = None;
                if self.desired.changed().await.is_err() {
                    std::future::pending::<()>().await; // the device ends
                }
                continue;
            };
            let every = Duration::from_secs(every_s.clamp(EVERY_MIN_S, EVERY_MAX_S).into());
            let now = Instant::now();
            let first = || now + every.mul_f64(self.counts.phase());
            let due = self.due.unwrap_or_else(first).min(now + every);
            self.due = Some(due);
            tokio::select! {
                Ok(()) = self.desired.changed() => continue,
                () = tokio::time::sleep_until(due) => {}
            }
            self.due = Some(Instant::now() + every);
            models.truncate(EVIDENCE_MODELS_MAX);
            let evidence = Evidence { models: self.counts.rows(&models) };
            if evidence != self.last {
                self.last = evidence.clone();
                return evidence;
            }
        }
    }
}
