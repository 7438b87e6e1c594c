//! What operators ask of this device (`outrigger device check`, `outrigger device logs`), answered where its owner allows
//! it (`[remote]`): questions stand in the desired state, and each answer goes up on a stream of its own.
//!
//! One question at a time. An answer is kept, and sent again, until the cloud asks no more; a question that is asked again
//! after a restart is answered again. How often, whatever the cloud allows, is in `edge::questions`. Every text goes through
//! the gate of the support bundle first.

mod check;

use crate::config::Remote;
use crate::counters::Counters;
use crate::logging::KeptLines;
use crate::support::Gate;
use crate::uplink::Uplink;
use ::link::frames::{self, LinkError};
use edge::questions::Allowance;
use protocol::limits::{ANSWER_MAX_BYTES, QUESTIONS_WAITING_MAX};
use protocol::mux::Priority;
use protocol::question::{Refused, What};
use protocol::wire::{DesiredState, DeviceAnswer, Question};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long the cloud may take to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What answering works with.
pub(crate) struct Parts {
    pub(crate) state_dir: PathBuf,
    pub(crate) config_file: PathBuf,
    pub(crate) allowed: Remote,
    pub(crate) lines: KeptLines,
    pub(crate) uplink: Uplink,
    pub(crate) counters: Arc<Counters>,
}

/// Answers questions.
pub(crate) struct Answers {
    parts: Parts,
    allowance: Allowance,
    /// What was answered and is still asked.
    given: BTreeMap<String, DeviceAnswer>,
}

/// What a question comes to, where it is answered.
struct Found {
    text: String,
    left_out: u64,
}

/// Why a question is not answered.
struct Refusal {
    word: Refused,
    why: String,
}

impl Refusal {
    fn new(word: Refused, why: impl Into<String>) -> Self {
        Self { word, why: why.into() }
    }

    /// What the owner has switched off.
    fn forbidden(setting: &str) -> Self {
        let why = format!("this device's owner does not want that ([remote] {setting} = false)");
        Self::new(Refused::Forbidden, why)
    }
}

impl Answers {
    /// Nothing was asked yet.
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts, allowance: Allowance::default(), given: BTreeMap::new() }
    }

    /// Follows the desired state for ever.
    pub(crate) async fn run(mut self, mut desired: watch::Receiver<Option<DesiredState>>) {
        loop {
            let asked = asked(desired.borrow_and_update().as_ref());
            self.given.retain(|id, _| asked.iter().any(|question| question.id == *id));
            for question in &asked {
                if !self.given.contains_key(&question.id) {
                    let answer = self.answer(question).await;
                    self.given.insert(question.id.clone(), answer);
                }
            }
            for answer in self.given.values() {
                if let Err(error) = self.send(answer).await {
                    tracing::debug!(%error, id = answer.id, "an answer to an operator is kept");
                    break; // a new connection brings the desired state anew
                }
            }
            if desired.changed().await.is_err() {
                return; // the agent is shutting down
            }
        }
    }

    async fn answer(&mut self, question: &Question) -> DeviceAnswer {
        let result = self.find(question).await;
        self.parts.counters.question_ended(&question.what, result.is_ok());
        let mut answer = DeviceAnswer { id: question.id.clone(), ..DeviceAnswer::default() };
        match result {
            Ok(Found { text, left_out }) => {
                answer.text = text;
                answer.left_out = left_out;
            }
            Err(Refusal { word, why }) => {
                word.as_str().clone_into(&mut answer.refused);
                answer.why = why;
            }
        }
        answer
    }

    async fn find(&mut self, question: &Question) -> Result<Found, Refusal> {
        let what = What::of_wire(question).ok_or_else(|| {
            let version = crate::program::version();
            Refusal::new(Refused::Unknown, format!("agent {version} does not know this question"))
        })?;
        self.allowance.take(Instant::now()).map_err(|wait| {
            let why = format!("it has answered enough; again in {} s", wait.as_secs().max(1));
            Refusal::new(Refused::TooOften, why)
        })?;
        match what {
            What::Check if !self.parts.allowed.checks => Err(Refusal::forbidden("checks")),
            What::Check => self.check().await,
            What::Logs { .. } if !self.parts.allowed.logs => Err(Refusal::forbidden("logs")),
            What::Logs { lines, since_s } => Ok(self.lines(lines, since_s)),
        }
    }

    fn lines(&self, lines: u32, since_s: u64) -> Found {
        let within = (since_s > 0).then(|| Duration::from_secs(since_s));
        let lines = usize::try_from(lines).unwrap_or(usize::MAX);
        let gate = self.gate();
        let pass = |line: &str| gate.pass(line);
        let excerpt = self.parts.lines.newest(lines, within, ANSWER_MAX_BYTES, pass);
        Found { text: excerpt.text, left_out: excerpt.left_out }
    }

    async fn check(&self) -> Result<Found, Refusal> {
        let (state_dir, config_file) =
            (self.parts.state_dir.clone(), self.parts.config_file.clone());
        let report = move || check::ask(&state_dir, &config_file);
        let report = tokio::task::spawn_blocking(report).await;
        let failed = |error: &dyn std::fmt::Display| {
            Refusal::new(Refused::Failed, format!("it cannot check itself: {error}"))
        };
        let report = report.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        let (text, left_out) = check::fitted(report, &self.gate(), ANSWER_MAX_BYTES);
        Ok(Found { text, left_out })
    }

    fn gate(&self) -> Gate {
        let state_dir: &Path = &self.parts.state_dir;
        Gate::new(state_dir)
    }

    /// Sends an answer, and waits until the cloud has it.
    async fn send(&self, answer: &DeviceAnswer) -> Result<(), LinkError> {
        let connection = self.parts.uplink.connection().ok_or(LinkError::Ended)?;
        let sent = async {
            let (mut send, mut receive) = connection.open_bi().await?;
            send.set_priority(Priority::Blob);
            frames::send_last(&mut send, answer, []).await?;
            match frames::next_header(&mut receive).await? {
                None => Ok(()),
                Some(_) => Err(LinkError::Ended), // a refusal: an older cloud does not ask
            }
        };
        tokio::time::timeout(PATIENCE, sent).await.unwrap_or(Err(LinkError::Ended))
    }
}

/// What the cloud asks; more than it may is left out.
fn asked(desired: Option<&DesiredState>) -> Vec<Question> {
    let all = desired.into_iter().flat_map(|state| &state.questions);
    all.take(QUESTIONS_WAITING_MAX).cloned().collect()
}
