//! The trials of a search: what is built, in which order, and how each is measured.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use models::backend::{Backend, Session, SessionOptions};
use models::onnx::Model;
use models::ort_backend::OrtBackend;
use protocol::tensor::Tensor;

use super::journal::Journal;
use super::parts::Parts;
use super::{Options, Trial};
use crate::calibrate::{Seen, calibrate};
use crate::error::CompressError;
use crate::fused::fused;
use crate::histogram::Method;
use crate::measure::{Items, Quality, Reference, latency};
use crate::quantize::{Quantized, Recipe, Scheme, plan, quantize};
use crate::scratch::Scratch;
use crate::sensitivity::{Ranking, layers, rank};

/// Methods of calibration, in the order in which they are tried.
const METHODS: [Method; 5] = [
    Method::MinMax,
    Method::Percentile(0.9999),
    Method::Percentile(0.99999),
    Method::Entropy,
    Method::Mse,
];
/// How many groups of layers stay in float, from trial to trial.
const EXCLUDED: [usize; 7] = [1, 2, 4, 8, 12, 16, 24];
/// Items that a ranking asks.
const RANKED_ITEMS: usize = 6;
/// How long two models take turns.
const TIMING: Duration = Duration::from_millis(1500);

/// All that trials share.
pub(super) struct Bench<'b> {
    float: &'b Model,
    session: Box<dyn Session>,
    items: &'b Items<'b>,
    parts: &'b Parts,
    seen: Seen,
    reference: Reference,
    backend: &'b OrtBackend,
    scratch: Scratch,
    pub(super) trials: Vec<Trial>,
}

impl<'b> Bench<'b> {
    /// Measures ranges, and asks the float model for its answers.
    pub(super) fn new(
        float: &'b Model,
        (items, labels): (&'b Items<'b>, Option<&[usize]>),
        parts: &'b Parts,
        backend: &'b OrtBackend,
    ) -> Result<Self, CompressError> {
        let values = plan(float, &BTreeSet::new(), None).measured();
        let given = parts.ranges.iter().map(|item| items(*item));
        let seen = calibrate(float, &values, given, backend)?;
        let scratch = Scratch::new()?;
        let mut session = scratch.load(float, backend)?;
        let reference = Reference::new(&mut *session, items, &parts.choosing, labels)?;
        let trials = Vec::new();
        Ok(Self { float, session, items, parts, seen, reference, backend, scratch, trials })
    }

    pub(super) fn float_quality(&self) -> Quality {
        self.reference.own()
    }

    pub(super) fn build(&self, recipe: &Recipe) -> Result<Quantized, CompressError> {
        quantize(self.float, &self.seen, recipe)
    }

    fn measure(&mut self, recipe: &Recipe) -> Result<Trial, CompressError> {
        let begin = Instant::now();
        let built = self.build(recipe)?;
        let path = self.scratch.path("trial.onnx");
        built.model.write(&path)?;
        let size_bytes = super::length(&path)?;
        let fused = fused(&path, &built.wanted, self.backend)?;
        let mut session = self.backend.load(&path, &SessionOptions::default())?;
        let quality = self.reference.compare(&mut *session, self.items, &self.parts.choosing)?;
        let inputs = self.timed_inputs()?;
        let latency = latency(&mut *self.session, &mut *session, &inputs, TIMING)?;
        let drop = quality.drop_from(&self.reference.own());
        let seconds = begin.elapsed().as_secs_f64();
        let recipe = recipe.clone();
        let elsewhere = None;
        Ok(Trial { recipe, size_bytes, quality, drop, latency, elsewhere, fused, seconds })
    }

    /// A file with the float model, until the search ends.
    pub(super) fn write_float(&self) -> Result<PathBuf, CompressError> {
        let path = self.scratch.path("float.onnx");
        self.float.write(&path)?;
        Ok(path)
    }

    /// A file with the build of a trial, until the search ends.
    pub(super) fn write_build(&mut self, trial: usize) -> Result<PathBuf, CompressError> {
        let recipe = self.trials[trial].recipe.clone();
        let path = self.scratch.path(&format!("build-{trial}.onnx"));
        self.build(&recipe)?.model.write(&path)?;
        Ok(path)
    }

    /// What builds are timed with.
    pub(super) fn timed_inputs(&self) -> Result<Vec<Tensor>, CompressError> {
        (self.items)(self.parts.choosing[0])
    }

    fn rank(&self, recipe: &Recipe) -> Result<Ranking, CompressError> {
        let few = &self.parts.choosing[..self.parts.choosing.len().min(RANKED_ITEMS)];
        rank(self.float, &self.seen, recipe, (self.items, few), self.backend)
    }
}

/// Runs all trials; true when the time was over before.
pub(super) fn run(
    bench: &mut Bench<'_>,
    options: &Options,
    begin: Instant,
    journal: &mut Journal,
    progress: &mut dyn FnMut(&Trial),
) -> Result<bool, CompressError> {
    let spent = Duration::from_secs_f64(journal.seconds());
    let deadline = begin + options.budget.saturating_sub(spent);
    let mut runner = Runner { deadline, journal, progress };
    for scheme in [Scheme::Static, Scheme::Dynamic] {
        let base = Recipe { scheme, ..Recipe::default() };
        if layers(bench.float, &bench.seen, &base).is_empty() {
            continue;
        }
        let methods = if scheme == Scheme::Static { &METHODS[..] } else { &METHODS[..1] };
        let first = bench.trials.len();
        for method in methods {
            if !runner.attempt(bench, &Recipe { method: *method, ..base.clone() })? {
                return Ok(true);
            }
        }
        let tried = bench.trials[first..].iter();
        let best = tried.min_by(|a, b| a.drop.total_cmp(&b.drop)).cloned();
        if let Some(best) = best.filter(|best| best.drop > options.target_drop)
            && !runner.exclude(bench, &best.recipe, options.target_drop)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Runner<'r> {
    deadline: Instant,
    journal: &'r mut Journal,
    progress: &'r mut dyn FnMut(&Trial),
}

impl Runner<'_> {
    /// Takes a trial from the journal, or measures it; false when there is no time left.
    fn attempt(&mut self, bench: &mut Bench<'_>, recipe: &Recipe) -> Result<bool, CompressError> {
        let trial = match self.journal.trial(recipe) {
            Some(trial) => trial.clone(),
            None if Instant::now() >= self.deadline => return Ok(false),
            None => {
                let trial = bench.measure(recipe)?;
                self.journal.add_trial(trial)?
            }
        };
        (self.progress)(&trial);
        bench.trials.push(trial);
        Ok(true)
    }

    /// Puts the most sensitive layers back into float, more and more of them.
    fn exclude(
        &mut self,
        bench: &mut Bench<'_>,
        recipe: &Recipe,
        target: f64,
    ) -> Result<bool, CompressError> {
        let ranking = match self.journal.ranking(recipe) {
            Some(ranking) => ranking.clone(),
            None if Instant::now() >= self.deadline => return Ok(false),
            None => {
                let ranking = bench.rank(recipe)?;
                self.journal.add_ranking(recipe, &ranking)?;
                ranking
            }
        };
        for count in EXCLUDED.into_iter().filter(|count| *count <= ranking.len() / 2) {
            let worst = ranking.iter().take(count).flat_map(|(layers, _)| layers.clone());
            let recipe = Recipe { float: worst.collect(), ..recipe.clone() };
            if !self.attempt(bench, &recipe)? {
                return Ok(false);
            }
            if bench.trials.last().is_some_and(|trial| trial.drop <= target) {
                break;
            }
        }
        Ok(true)
    }
}
