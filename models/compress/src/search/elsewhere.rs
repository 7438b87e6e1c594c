//! Builds timed on another machine, where the model will run: which of two is faster depends on the processor.
//!
//! Quality does not, so the trials are made here; of each graph that meets the target, the build that loses least is
//! timed there, in turn with the float model, and the choice is made by those times.

use std::path::PathBuf;

use protocol::limits::MEASURED_MODELS_MAX;
use protocol::measurement::{Machine, Measured, Timed};
use protocol::tensor::Tensor;

use super::choice::{merit, same_graph};
use super::trials::Bench;
use super::{Options, Trial};
use crate::error::CompressError;
use crate::measure::Latency;

/// Times ONNX files on one item's inputs, the others in turn with the first; or says why not.
pub type Elsewhere<'e> = dyn Fn(&[PathBuf], &[Tensor]) -> Result<Measured, String> + 'e;

/// Times builds of a search, and notes it in its trials. Nothing where no trial meets the target.
pub(super) fn time(
    bench: &mut Bench<'_>,
    options: &Options,
    ask: &Elsewhere<'_>,
) -> Result<Option<Machine>, CompressError> {
    let wanted = wanted(&bench.trials, options);
    if wanted.is_empty() {
        return Ok(None);
    }
    let mut files = vec![bench.write_float()?];
    for trial in &wanted {
        files.push(bench.write_build(*trial)?);
    }
    let measured = ask(&files, &bench.timed_inputs()?).map_err(CompressError::Elsewhere)?;
    let mut timed = measured.models.iter();
    let float_us = match timed.next() {
        Some(Timed::Times(times)) => times.median_us,
        _ => return Err(CompressError::Elsewhere("the float model did not run there".to_owned())),
    };
    for (trial, timed) in wanted.into_iter().zip(timed) {
        // One that does not run there cannot be chosen: it has no time.
        if let Timed::Times(times) = timed {
            let (own_us, speedup) = (times.median_us, times.speedup);
            bench.trials[trial].elsewhere = Some(Latency { float_us, own_us, speedup });
        }
    }
    Ok(Some(measured.machine))
}

/// Of each graph, the trial that loses least of those that meet the target; the most promising first.
fn wanted(trials: &[Trial], options: &Options) -> Vec<usize> {
    let mut good: Vec<usize> =
        (0..trials.len()).filter(|i| trials[*i].drop <= options.target_drop).collect();
    good.sort_by(|a, b| trials[*a].loses(&trials[*b]));
    let mut wanted: Vec<usize> = Vec::new();
    for trial in good {
        if !wanted.iter().any(|other| same_graph(&trials[*other], &trials[trial])) {
            wanted.push(trial);
        }
    }
    let by_merit = |trial: &usize| merit(trials, *trial, options.goal);
    wanted.sort_by(|a, b| by_merit(b).total_cmp(&by_merit(a)));
    wanted.truncate(MEASURED_MODELS_MAX - 1);
    wanted
}

#[cfg(test)]
mod tests {
    use super::super::choice::tests::trial;
    use super::*;
    use crate::histogram::Method;
    use crate::quantize::Recipe;

    #[test]
    fn of_each_graph_the_build_that_loses_least() {
        let mut trials = vec![trial(2.0, 100, 0.004), trial(2.1, 100, 0.001), trial(3.0, 90, 0.5)];
        for (trial, method) in trials.iter_mut().zip([Method::MinMax, Method::Mse]) {
            trial.recipe = Recipe { method, ..Recipe::default() };
        }
        trials.push(trial(4.0, 80, 0.002));
        assert_eq!(wanted(&trials, &Options::default()), [3, 1]);
        let many: Vec<Trial> = (1..20).map(|i| trial(f64::from(i), 1, 0.0)).collect();
        let wanted = wanted(&many, &Options::default());
        assert_eq!((wanted.len(), wanted[0]), (MEASURED_MODELS_MAX - 1, 18));
    }
}
