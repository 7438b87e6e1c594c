//! The trials of a search: what is built, in which order, and how each is measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use models::backend::{Backend, SessionOptions};
use models::onnx::Model;
use models::ort_backend::OrtBackend;
use protocol::tensor::Tensor;

use super::choice::{ALIKE, merit};
use super::journal::Journal;
use super::material::Material;
use super::parts::Parts;
use super::{Goal, Options, Trial};
use crate::error::CompressError;
use crate::fused::fused;
use crate::histogram::Method;
use crate::measure::{Items, Quality, Reference, latency};
use crate::quantize::{Quantized, Recipe, Rounding, Scheme};
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
/// What meets the target with less room than this share of it is tried with layers in float too, while it is as fast: on
/// other data than it was chosen by, a build loses more.
const ROOM: f64 = 0.5;
/// How many groups of layers stay in float, from trial to trial.
const EXCLUDED: [usize; 8] = [1, 2, 4, 8, 12, 16, 24, 32];
/// Weights alone become integers only where products have at least that share of them.
const PRODUCTS_MIN: f64 = 0.2;
/// The float model's answers that are kept to choose by; with longer answers fewer items choose.
const ANSWERS_MAX_BYTES: usize = 48 << 20;
/// Items that a ranking asks.
const RANKED_ITEMS: usize = 16;
/// How long two models take turns.
const TIMING: Duration = Duration::from_millis(1500);

/// All that trials share.
pub(super) struct Bench<'b> {
    float: &'b Model,
    items: &'b Items<'b>,
    choosing: &'b [usize],
    material: Material<'b>,
    reference: Reference,
    blank: Option<u32>,
    backend: &'b OrtBackend,
    scratch: Scratch,
    pub(super) trials: Vec<Trial>,
}

impl<'b> Bench<'b> {
    /// Measures ranges, and asks the float model for its answers.
    pub(super) fn new(
        float: &'b Model,
        (items, known): (&'b Items<'b>, (Option<&[usize]>, Option<u32>)),
        parts: &'b Parts,
        backend: &'b OrtBackend,
    ) -> Result<Self, CompressError> {
        let material = Material::new(float, (items, &parts.ranges), backend)?;
        let scratch = Scratch::new()?;
        let mut session = scratch.load(float, backend)?;
        let few = &parts.choosing[..parts.choosing.len().min(2)];
        let one = Reference::reading(&mut *session, items, few, known)?.size_bytes() / few.len();
        let most = (ANSWERS_MAX_BYTES / one.max(1)).max(2);
        let choosing = &parts.choosing[..parts.choosing.len().min(most)];
        let reference = Reference::reading(&mut *session, items, choosing, known)?;
        let trials = Vec::new();
        Ok(Self {
            float,
            items,
            choosing,
            material,
            reference,
            blank: known.1,
            backend,
            scratch,
            trials,
        })
    }

    pub(super) fn float_quality(&self) -> Quality {
        self.reference.own()
    }

    pub(super) fn build(&mut self, recipe: &Recipe) -> Result<Quantized, CompressError> {
        self.material.build(recipe)
    }

    fn measure(&mut self, recipe: &Recipe) -> Result<Trial, CompressError> {
        let begin = Instant::now();
        let built = self.build(recipe)?;
        let path = self.scratch.path("trial.onnx");
        built.model.write(&path)?;
        let size_bytes = super::length(&path)?;
        let fused = fused(&path, &built.wanted, self.backend)?;
        let mut session = self.backend.load(&path, &SessionOptions::default())?;
        drop(built);
        let quality = self.reference.compare(&mut *session, self.items, self.choosing)?;
        let inputs = self.timed_inputs()?;
        // Kept between trials it would be in memory beside all that makes a build.
        let mut float = self.scratch.load(self.float, self.backend)?;
        let latency = latency(&mut *float, &mut *session, &inputs, TIMING)?;
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
        (self.items)(self.choosing[0])
    }

    fn rank(&mut self, recipe: &Recipe) -> Result<Ranking, CompressError> {
        let few = &self.choosing[..self.choosing.len().min(RANKED_ITEMS)];
        let base = self.material.base(recipe)?;
        rank(&base.model, &base.seen, recipe, (self.items, few), self.blank, self.backend)
    }

    /// Whether the last trial is so much worse by the goal than another one that its lesser loss would not count.
    fn last_is_worse_than(&self, recipe: &Recipe, goal: Goal) -> bool {
        let before = self.trials.iter().rposition(|trial| trial.recipe == *recipe);
        let merit = |trial| merit(&self.trials, trial, goal);
        before.is_some_and(|before| merit(self.trials.len() - 1) < merit(before) * ALIKE)
    }

    /// The trial that loses least of those from there on.
    fn best_from(&self, first: usize) -> Option<Trial> {
        self.trials[first..].iter().min_by(|a, b| a.loses(b)).cloned()
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
    let mut runner =
        Runner { deadline, journal, progress, target: options.target_drop, goal: options.goal };
    for scheme in [Scheme::Static, Scheme::Dynamic, Scheme::Int8Weights, Scheme::Int4Weights] {
        let base = Recipe { scheme, ..Recipe::default() };
        let plain = bench.material.plain();
        if layers(bench.float, &plain.seen, &base).is_empty() {
            continue;
        }
        let weights = matches!(scheme, Scheme::Int8Weights | Scheme::Int4Weights);
        if weights && share_of_products(bench.float) < PRODUCTS_MIN {
            continue;
        }
        if !runner.scheme(bench, &base)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The share of all weights that belong to matrix products.
fn share_of_products(model: &Model) -> f64 {
    let size = |weight: &models::onnx::proto::TensorProto| {
        models::onnx::tensor::size_bytes(weight).unwrap_or(0) as f64
    };
    let graph = model.graph();
    let products = [graph.nodes_of("MatMul"), graph.nodes_of("Gemm")].concat();
    let weight = |id| graph.weight(graph.node(id).input.get(1)?).map(size);
    let all: f64 = graph.weights().map(size).sum();
    products.into_iter().filter_map(weight).sum::<f64>() / all.max(1.0)
}

struct Runner<'r> {
    deadline: Instant,
    journal: &'r mut Journal,
    progress: &'r mut dyn FnMut(&Trial),
    target: f64,
    goal: Goal,
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

    /// All trials of one scheme; false when there is no time left.
    fn scheme(&mut self, bench: &mut Bench<'_>, base: &Recipe) -> Result<bool, CompressError> {
        let methods = if base.scheme == Scheme::Static { &METHODS[..] } else { &METHODS[..1] };
        let first = bench.trials.len();
        for method in methods {
            if !self.attempt(bench, &Recipe { method: *method, ..base.clone() })? {
                return Ok(false);
            }
        }
        if !self.improve(bench, first)? {
            return Ok(false);
        }
        match bench.best_from(first) {
            Some(best) if best.drop > self.target => self.exclude(bench, &best.recipe, self.target),
            Some(best) if best.drop > self.target * ROOM => {
                self.exclude(bench, &best.recipe, self.target * ROOM)
            }
            _ => Ok(true),
        }
    }

    /// Rounds the best build otherwise, and evens out its channels: each is kept where it helps.
    fn improve(&mut self, bench: &mut Bench<'_>, first: usize) -> Result<bool, CompressError> {
        for rounding in [Rounding::BiasCorrected, Rounding::LeastSquares] {
            let Some(best) = bench.best_from(first) else { return Ok(true) };
            if !self.attempt(bench, &Recipe { rounding, ..best.recipe })? {
                return Ok(false);
            }
        }
        let Some(best) = bench.best_from(first) else { return Ok(true) };
        // With float inputs there is nothing to even out.
        let inputs = matches!(best.recipe.scheme, Scheme::Static | Scheme::Dynamic);
        if inputs
            && Instant::now() < self.deadline
            && bench.material.can_even(best.recipe.scheme)?
        {
            return self.attempt(bench, &Recipe { even: true, ..best.recipe });
        }
        Ok(true)
    }

    /// Puts the most sensitive layers back into float, or their inputs alone, more and more of them, until no more than
    /// `most` is lost; then as many as possible are taken back. What meets the target already may not become slower by it.
    fn exclude(
        &mut self,
        bench: &mut Bench<'_>,
        recipe: &Recipe,
        most: f64,
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
        let without = |count: usize| {
            let worst = ranking.iter().take(count).flat_map(|(layers, _)| layers.clone());
            Recipe { float: worst.collect(), light: true, ..recipe.clone() }
        };
        let met_by =
            |bench: &Bench<'_>| bench.trials.last().is_some_and(|trial| trial.drop <= most);
        let (mut missed, mut met) = (0, None);
        for count in EXCLUDED.into_iter().filter(|count| *count <= ranking.len() * 2 / 3) {
            if !self.attempt(bench, &without(count))? {
                return Ok(false);
            }
            if met_by(bench) {
                met = Some(count);
                break;
            }
            if most < self.target && bench.last_is_worse_than(recipe, self.goal) {
                return Ok(true);
            }
            missed = count;
        }
        while let Some(count) = met.filter(|met| *met > missed + 1) {
            let middle = usize::midpoint(missed, count);
            if !self.attempt(bench, &without(middle))? {
                return Ok(false);
            }
            match met_by(bench) {
                true => met = Some(middle),
                false => missed = middle,
            }
        }
        Ok(true)
    }
}
