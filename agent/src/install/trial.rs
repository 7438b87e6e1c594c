//! The watch over a version that has taken over: its runs are shown to `edge::probation`, what that says is
//! written down, and where it does not hold, whoever waits for [`Trial::broken`] hears of it.

use crate::counters::Counters;
use crate::engine::{ActiveModel, Observer, Seen};
use crate::state::{ProbationRow, State, StateError};
use ::link::durable::aside;
use edge::probation::{Fault, Lives, Probation, Run, Standing, Terms, Verdict};
use models::compare::are_numbers;
use protocol::id::ModelName;
use protocol::problem::{ProblemCode, chain};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// One version on probation.
pub(super) struct Trial {
    watch: Arc<Watch>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    row: ProbationRow,
    version: u64,
    /// The version before, as long as this one is on trial: in memory while there is room, so that it
    /// answers again at once.
    pub(super) before: Option<Arc<ActiveModel>>,
}

struct Watch {
    probation: Mutex<Probation>,
    /// Few: one pass, and one end.
    said: mpsc::UnboundedSender<Verdict>,
    /// Whether what is no number is a failure: its own probes have none.
    numbers: bool,
}

impl Watch {
    fn probation(&self) -> MutexGuard<'_, Probation> {
        self.probation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn see(&self, seen: &Seen<'_>) {
        let text;
        let run = match seen.end {
            Ok(answer) if self.numbers && gives_no_numbers(seen, &answer.outputs) => {
                Run::Failed("its answer holds NaN or infinity")
            }
            Ok(answer) => Run::Answered(Duration::from_micros(answer.infer_us)),
            Err(problem) => match problem.code {
                // Behind others it may have been their turn that took the time.
                ProblemCode::DeadlineExceeded if seen.alone => Run::Late(seen.took),
                ProblemCode::InferenceFailed | ProblemCode::Internal => {
                    text = problem.to_string();
                    Run::Failed(&text)
                }
                _ => return,
            },
        };
        let verdict = self.probation().handle_run(run, Instant::now());
        if let Some(verdict) = verdict {
            let _ = self.said.send(verdict); // nobody waits any more: the agent ends
        }
    }
}

fn gives_no_numbers(seen: &Seen<'_>, outputs: &[protocol::tensor::Tensor]) -> bool {
    !are_numbers(outputs) && are_numbers(&seen.request.inputs)
}

impl Trial {
    /// Watches a model from now on. `has_previous` tells whether there is a version to go back to.
    pub(super) fn watch(
        terms: Terms,
        model: &ActiveModel,
        row: ProbationRow,
        has_previous: bool,
    ) -> Self {
        let standing = (row.standing, row.lived);
        let probation =
            Probation::new(terms, standing, row.reference, has_previous, Instant::now());
        let (said, verdicts) = mpsc::unbounded_channel();
        // What cannot be read now was read when it proved itself: then nothing is held against it.
        let probes = model.probes().unwrap_or_default();
        let numbers = !probes.is_empty() && probes.iter().all(|p| are_numbers(&p.outputs));
        let watch = Arc::new(Watch { probation: Mutex::new(probation), said, numbers });
        let version = model.target().version.get();
        let trial = Self { watch, verdicts, row, version, before: None };
        model.watch(trial.observer());
        trial
    }

    /// Looks on at a model's runs.
    pub(super) fn observer(&self) -> Observer {
        let watch = self.watch.clone();
        Arc::new(move |seen| watch.see(seen))
    }

    pub(super) fn standing(&self) -> Standing {
        self.watch.probation().standing()
    }

    /// The version before could not be loaded: the watch goes on.
    pub(super) fn stays(&self) {
        self.watch.probation().stays(Instant::now());
    }

    /// Waits for what makes it give way, and writes down meanwhile how it does. Says `None` when it has
    /// come further. To be dropped at any time.
    pub(super) async fn broken(
        &mut self,
        (name, state, counters): (&ModelName, &State, &Counters),
    ) -> Option<Fault> {
        loop {
            let due = self.watch.probation().poll_timeout();
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let verdict = tokio::select! {
                Some(verdict) = self.verdicts.recv() => verdict,
                () = timeout => {
                    let verdict = self.watch.probation().handle_timeout(Instant::now());
                    let Some(verdict) = verdict else { continue };
                    verdict
                }
            };
            if let Verdict::RollBack(fault) = verdict {
                return Some(fault);
            }
            let further = !matches!(verdict, Verdict::Word { .. });
            if let Err(error) = aside(|| self.keep(name, state, &verdict)) {
                tracing::warn!(model = %name, error = chain(&error), "a probation is not kept");
            }
            if further {
                counters.held(name, self.version, self.standing());
                return None;
            }
        }
    }

    fn keep(
        &mut self,
        name: &ModelName,
        state: &State,
        verdict: &Verdict,
    ) -> Result<(), StateError> {
        match verdict {
            Verdict::Word { lived } => {
                self.row.lived = *lived;
                let lives = self.row.lives.clone();
                self.row.lives = Lives { well: true, starts: 0, ..lives };
            }
            Verdict::Passed => {
                self.before = None;
                (self.row.standing, self.row.lived) = (Standing::Soak, Duration::ZERO);
            }
            Verdict::Settled | Verdict::RollBack(_) => return state.settle(name),
        }
        state.keep_probation(name, &self.row)
    }
}
