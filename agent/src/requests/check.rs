//! Checks: the cloud is asked, in the background, for what the device has answered already. One at
//! a time, after everything else: with the lowest priority on the wire, only while there is plenty
//! of budget, and dropped where too many wait. Nobody's answer depends on it.

use super::Requests;
use crate::engine::{ActiveModel, EdgeAnswer};
use crate::install::Installer;
use crate::telemetry::recorder::Sampled;
use ::link::traces::Trace;
use edge::spool::sampling::Kind;
use models::confidence::disagreement;
use protocol::infer::InferRequest;
use protocol::tensor::Tensor;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Checks that wait; one more is left out.
pub(crate) const WAITING_MAX: usize = 8;
/// How long the cloud may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An accepted answer that is to be checked.
pub(crate) struct Check {
    model: Arc<ActiveModel>,
    request: InferRequest,
    /// The edge model's, where the application asked for them.
    logits: Option<Tensor>,
    label: Option<String>,
    /// The rule under which it was accepted.
    level: u8,
}

impl Check {
    pub(super) fn new(
        model: Arc<ActiveModel>,
        request: InferRequest,
        answer: &EdgeAnswer,
        level: u8,
    ) -> Self {
        let logits = logits(&model, &answer.outputs).cloned();
        Self { model, request, logits, label: answer.label.clone(), level }
    }
}

fn logits<'a>(model: &ActiveModel, outputs: &'a [Tensor]) -> Option<&'a Tensor> {
    let name = &model.manifest().classes.as_ref()?.logits;
    outputs.iter().find(|output| output.name() == name)
}

impl Requests {
    /// Queues a check, or leaves it out.
    pub(super) fn check(&self, check: Check) {
        if self.checks.try_send(check).is_err() {
            self.counters.check_left_out("too many wait");
        }
    }

    /// Whether the cloud's answer differs, 0 to 1; nothing where it cannot be told.
    async fn compare(&self, check: &Check) -> Result<f64, &'static str> {
        let parcel = self.pack(&check.model, &check.request);
        let asked = (&check.request, &parcel);
        let mut ask = self.ask_for(&check.model, asked, PATIENCE, Duration::ZERO, 1.0);
        ask.check = true;
        let answer = self.ask_cloud(&check.model, asked, &Trace::default(), ask).await;
        let answer = answer.map_err(|(reason, _)| reason.as_str())?;
        if let (Some(edge), Some(cloud)) = (&check.label, &answer.label) {
            if edge != cloud {
                self.keep_disagreement(check, edge, cloud);
            }
            return Ok(f64::from(edge != cloud));
        }
        let cloud = logits(&check.model, &answer.outputs);
        let both = check.logits.as_ref().zip(cloud);
        let blank = check.model.manifest().classes.as_ref().and_then(|classes| classes.blank);
        let share = both.and_then(|(edge, cloud)| disagreement(edge, cloud, blank));
        share.ok_or("the two answers cannot be compared")
    }
}

impl Requests {
    /// An input on which the two differ is one to learn from.
    fn keep_disagreement(&self, check: &Check, edge: &str, cloud: &str) {
        let Some(recorder) = &self.recorder else { return };
        if recorder.may_sample(&check.model) {
            recorder.sample(&Sampled {
                model: &check.model,
                request: &check.request,
                kind: Kind::Disagreeing,
                confidence: None,
                label: Some(edge),
                cloud_label: Some(cloud),
            });
        }
    }
}

/// Carries checks out, for ever.
pub(crate) struct Checker {
    pub(crate) requests: Arc<Requests>,
    pub(crate) installer: Arc<Installer>,
    pub(crate) queue: mpsc::Receiver<Check>,
}

impl Checker {
    pub(crate) async fn run(mut self) {
        while let Some(check) = self.queue.recv().await {
            match self.requests.compare(&check).await {
                Ok(share) => {
                    check.model.served().checked(share);
                    let audits = &self.requests.audits;
                    if audits.checked(&check.model, check.level, share) {
                        self.installer.report_again();
                    }
                }
                Err(why) => self.requests.counters.check_left_out(why),
            }
        }
    }
}
