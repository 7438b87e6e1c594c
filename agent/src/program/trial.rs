//! Whether a candidate is well: applications can call it, the models that answered before it answer, and it has
//! reached the cloud, from which it came. Then it is watched for a while, and has taken over.

use super::{Own, alarm};
use crate::install::Installer;
use crate::uplink::Uplink;
use ::link::durable::aside;
use edge::takeover::{Candidate, Stage, Takeover};
use protocol::problem::chain;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How often it is looked whether something answers.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long one look may take.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is written down that a candidate goes on being well; at first after a minute.
const WORD_EVERY: Duration = Duration::from_secs(600);
const WORD_AFTER: Duration = Duration::from_secs(60);

/// What a candidate needs, in this order.
const STEPS: [&str; 3] =
    ["its local API does not answer", "the models do not answer", "it has not reached the cloud"];
/// The only step that others may be to blame for.
const CLOUD: usize = 2;

/// The watch over the program that runs, if it is a candidate.
pub(crate) struct Trial {
    pub(crate) own: Arc<Own>,
    pub(crate) uplink: Uplink,
    pub(crate) installer: Arc<Installer>,
    /// Where applications call.
    pub(crate) http: SocketAddr,
}

impl Trial {
    /// Watches until the candidate has taken over, or gives way. `began` is when this program did.
    pub(crate) async fn run(self, began: Instant) {
        let Some(candidate) = self.own.now().candidate else { return };
        if self.stage() == Stage::Trial && !self.is_well_in_time(&candidate, began).await {
            return;
        }
        if self.stage() == Stage::Soak {
            self.soak(&candidate).await;
        }
    }

    /// Whether it is well in time; if it is not, it gives way.
    async fn is_well_in_time(&self, candidate: &Candidate, began: Instant) -> bool {
        let patience = Duration::from_secs(candidate.terms.patience_s.into());
        let step = AtomicUsize::new(0);
        let left = patience.saturating_sub(began.elapsed());
        let well = tokio::time::timeout(left, self.is_well(candidate, &step)).await.is_ok();
        if well {
            alarm::set(0);
            self.note(Takeover::well);
            tracing::info!(version = super::version(), "the agent's new program is well");
            return true;
        }
        let step = step.load(Relaxed);
        let (what, seconds) = (STEPS[step], patience.as_secs());
        let reason = format!("{what} within {seconds} s");
        tracing::error!(reason, "the agent's new program gives way to the one before");
        self.note(|takeover| takeover.fail(reason, step != CLOUD));
        self.own.restart();
        false
    }

    async fn is_well(&self, candidate: &Candidate, step: &AtomicUsize) {
        while !answers(self.http).await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        step.store(1, Relaxed);
        while !candidate.models.iter().all(|model| self.installer.answers(model)) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        step.store(CLOUD, Relaxed);
        self.uplink.connected().await;
    }

    async fn soak(&self, candidate: &Candidate) {
        let end = tokio::time::Instant::now() + Duration::from_secs(candidate.terms.soak_s.into());
        let mut word = tokio::time::Instant::now() + WORD_AFTER;
        while word < end {
            tokio::time::sleep_until(word).await;
            self.note(Takeover::word);
            word += WORD_EVERY;
        }
        tokio::time::sleep_until(end).await;
        if self.stage() == Stage::Soak {
            self.note(Takeover::held);
            self.own.sweep();
            tracing::info!(version = super::version(), "the agent's new program has taken over");
        }
    }

    fn stage(&self) -> Stage {
        self.own.now().stage
    }

    /// What cannot be written down shows at the next start: a candidate is on trial still.
    fn note<T>(&self, change: impl FnOnce(&mut Takeover) -> T) {
        if let Err(error) = aside(|| self.own.change(change)) {
            tracing::warn!(error = chain(&error), "the trial of the agent's program is not kept");
        }
    }
}

/// Whether applications get an answer at this address, be it that they are not known.
async fn answers(http: SocketAddr) -> bool {
    let look = move || {
        let config = ureq::Agent::config_builder().timeout_global(Some(LOOK_PATIENCE));
        let agent: ureq::Agent = config.http_status_as_error(false).build().into();
        agent.get(format!("http://{http}/v2/health/live")).call().is_ok()
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(false)
}
