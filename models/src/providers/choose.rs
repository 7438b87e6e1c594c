//! Tries the wanted providers in their order until one proves itself with this model.

use std::time::{Duration, Instant};

use protocol::tensor::Tensor;

use super::{Agreement, Choice, PassedOver, Provider, Reason, Timing};
use crate::backend::{Backend, LoadError, SessionOptions};
use crate::bundle::{Bundle, ProbeCase};
use crate::compare::{self, Difference, Tolerance};
use crate::error::RunError;
use crate::model::{ModelError, ProbeError, compare_probe, open_runner};
use crate::numbers;
use crate::runner::{Call, Runner};

/// How many times the CPU's median an accelerator may take and still be used: it also takes work
/// off the CPU.
pub const SLOWER_AT_MOST: f64 = 1.2;
/// How often a model is run for its median.
const TIMED_RUNS: usize = 31;
/// No run for the median begins later than this after the first.
const TIMED_FOR: Duration = Duration::from_secs(2);
/// How often an accelerator that seems slower is timed before it is passed over for good, and the pause before each time.
const TIMED_TIMES: usize = 3;
const TIMED_PAUSE: Duration = Duration::from_millis(250);

/// Why there is nothing to choose from: the model does not even work on the CPU.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// It does not load.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It does not answer its probes as it should.
    #[error(transparent)]
    Probes(#[from] ProbeError),
}

/// The first of the wanted providers on which a session opens, that takes nodes of the model, that
/// answers every probe as the CPU does, and not much later than it; else the CPU. Blocks, and loads
/// the model once for the CPU and once for each provider that is there at all.
///
/// Answers are compared by datatype as [`Tolerance::between_providers`] says, or as the manifest
/// says for its probes where that allows more. A classifier must name the same classes, unless the
/// CPU itself is undecided within the tolerance.
///
/// A provider is foreign code, which may take the process down. `may_try` is asked right before each
/// is tried, so that a caller can keep a note of it and refuse what did so before.
///
/// # Errors
/// [`ChooseError`]: the model does not answer on the CPU.
pub fn choose(
    backend: &dyn Backend,
    bundle: &Bundle,
    options: &SessionOptions,
    order: &[Provider],
    may_try: &dyn Fn(Provider) -> Result<(), Reason>,
) -> Result<Choice, ChooseError> {
    let mut passed_over = Vec::new();
    let mut reference = None;
    let mut wanted = order.iter().copied();
    for provider in wanted.by_ref() {
        if let Err(reason) = backend.offers(provider).and_then(|()| may_try(provider)) {
            passed_over.push(PassedOver { provider, reason });
            continue;
        }
        let reference = match &mut reference {
            Some(reference) => reference,
            none => none.insert(Reference::measure(backend, bundle, options)?),
        };
        match prove(backend, bundle, options, provider, reference) {
            Ok(proof) => {
                let later = |provider| PassedOver {
                    provider,
                    reason: Reason::Later { used: proof.provider },
                };
                passed_over.extend(wanted.map(later));
                return Ok(Choice { passed_over, ..proof });
            }
            Err(reason) => passed_over.push(PassedOver { provider, reason }),
        }
    }
    let timing = reference.map(|r| Timing { provider_us: r.median_us, cpu_us: r.median_us });
    Ok(Choice { timing, ..Choice::cpu(passed_over) })
}

/// What the CPU answers, and how fast.
struct Reference {
    cases: Vec<ProbeCase>,
    answers: Vec<Vec<Tensor>>,
    median_us: u64,
}

impl Reference {
    fn measure(
        backend: &dyn Backend,
        bundle: &Bundle,
        options: &SessionOptions,
    ) -> Result<Self, ChooseError> {
        let on_cpu = SessionOptions { provider: Provider::Cpu, ..options.clone() };
        let cases = bundle.probes().map_err(ProbeError::from)?;
        let (mut runner, _) = open_runner(backend, bundle, &on_cpu)?;
        let tolerance = Tolerance::of_manifest(bundle.manifest().probes.tolerance);
        let mut answers = Vec::new();
        for (probe, case) in cases.iter().enumerate() {
            let outputs = run(&mut runner, case);
            let outputs = outputs.map_err(|source| ProbeError::Run { probe, source })?;
            compare_probe(probe, case, &outputs, |_| tolerance)?;
            answers.push(outputs);
        }
        let median_us = median_us(&mut runner, &cases)
            .map_err(|(probe, source)| ProbeError::Run { probe, source })?;
        Ok(Self { cases, answers, median_us })
    }
}

fn run(runner: &mut Runner, case: &ProbeCase) -> Result<Vec<Tensor>, RunError> {
    let outputs: Vec<String> = case.outputs.iter().map(|o| o.name().to_owned()).collect();
    let call = Call { inputs: &case.inputs, outputs: &outputs, ..Call::default() };
    Ok(runner.answer(call)?.outputs)
}

/// The median over the probes, one after the other.
fn median_us(runner: &mut Runner, cases: &[ProbeCase]) -> Result<u64, (usize, RunError)> {
    let begin = Instant::now();
    let mut times = Vec::with_capacity(TIMED_RUNS);
    for (probe, case) in cases.iter().enumerate().cycle().take(TIMED_RUNS) {
        if times.len() >= 3 && begin.elapsed() > TIMED_FOR {
            break;
        }
        let start = Instant::now();
        run(runner, case).map_err(|error| (probe, error))?;
        times.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    Ok(times.get(times.len() / 2).copied().unwrap_or(0))
}

/// The median, measured again while it is too large: whatever else the machine does makes a run longer, never shorter.
fn least_median_us(
    runner: &mut Runner,
    cases: &[ProbeCase],
    is_too_large: impl Fn(u64) -> bool,
) -> Result<u64, (usize, RunError)> {
    let mut least_us = median_us(runner, cases)?;
    for _ in 1..TIMED_TIMES {
        if !is_too_large(least_us) {
            break;
        }
        std::thread::sleep(TIMED_PAUSE);
        least_us = least_us.min(median_us(runner, cases)?);
    }
    Ok(least_us)
}

/// Whether a provider does with this model what the CPU does.
fn prove(
    backend: &dyn Backend,
    bundle: &Bundle,
    options: &SessionOptions,
    provider: Provider,
    reference: &Reference,
) -> Result<Choice, Reason> {
    let own = SessionOptions { provider, ..options.clone() };
    let (mut runner, nodes) = open_runner(backend, bundle, &own).map_err(|e| opening(&e))?;
    let nodes = nodes.ok_or(Reason::Untold)?;
    if nodes.taken == 0 {
        return Err(Reason::TookNoNode { all: nodes.all });
    }
    let mut probes = Agreement::Exact;
    for (probe, case) in reference.cases.iter().enumerate() {
        let answers = run(&mut runner, case).map_err(|e| fails(probe, &e))?;
        if judge(bundle, probe, &reference.answers[probe], &answers)? == Agreement::Within {
            probes = Agreement::Within;
        }
    }
    let cases = &reference.cases;
    let cpu_us = reference.median_us;
    #[allow(clippy::cast_precision_loss)] // microseconds
    let is_slower = |provider_us: u64| provider_us as f64 > cpu_us as f64 * SLOWER_AT_MOST;
    let provider_us = least_median_us(&mut runner, cases, is_slower);
    let provider_us = provider_us.map_err(|(probe, e)| fails(probe, &e))?;
    if is_slower(provider_us) {
        return Err(Reason::Slower { provider_us, cpu_us });
    }
    let timing = Some(Timing { provider_us, cpu_us });
    Ok(Choice { provider, nodes: Some(nodes), probes, timing, passed_over: Vec::new() })
}

fn fails(probe: usize, error: &RunError) -> Reason {
    Reason::Fails { probe, message: error.to_string() }
}

fn opening(error: &ModelError) -> Reason {
    let message = match error {
        ModelError::Load(LoadError::Provider { message, .. }) => message.clone(),
        other => protocol::problem::chain(other),
    };
    Reason::DoesNotOpen { message }
}

/// Compares one probe's answers with the CPU's.
fn judge(
    bundle: &Bundle,
    probe: usize,
    expected: &[Tensor],
    actual: &[Tensor],
) -> Result<Agreement, Reason> {
    let mut agreement = Agreement::Exact;
    let logits = bundle.manifest().classes.as_ref().map(|classes| classes.logits.as_str());
    for wanted in expected {
        let name = wanted.name();
        let differs = |difference| Reason::Differs { probe, difference };
        let absent = || differs(format!("the output {name:?} is absent"));
        let got = actual.iter().find(|got| got.name() == name).ok_or_else(absent)?;
        let tolerance = tolerance(bundle, wanted);
        compare::check(wanted, got, tolerance).map_err(|difference| match difference {
            Difference::Kind => differs(format!("{name:?} is of another kind, or other text")),
            Difference::Value { element, expected, actual } => {
                differs(format!("element {element} of {name:?} is {actual}, not {expected}"))
            }
        })?;
        if logits == Some(name) && !same_classes(wanted, got, tolerance) {
            return Err(Reason::OtherClass { probe });
        }
        if wanted.data() != got.data() {
            agreement = Agreement::Within;
        }
    }
    Ok(agreement)
}

/// How far an answer of an accelerator may lie from the CPU's.
fn tolerance(bundle: &Bundle, output: &Tensor) -> Tolerance {
    let stated = Tolerance::of_manifest(bundle.manifest().probes.tolerance);
    Tolerance::between_providers(output.datatype()).or(stated)
}

/// Whether each item's most probable class is the CPU's, or as good as that to the CPU.
fn same_classes(expected: &Tensor, actual: &Tensor, tolerance: Tolerance) -> bool {
    let classes = expected.shape().last().and_then(|n| usize::try_from(*n).ok()).unwrap_or(0);
    let (Some(wanted), Some(got)) = (numbers::to_f64(expected), numbers::to_f64(actual)) else {
        return true;
    };
    if classes == 0 {
        return true;
    }
    wanted.chunks(classes).zip(got.chunks(classes)).all(|(wanted, got)| {
        let (Some(best), Some(other)) = (top(wanted), top(got)) else { return true };
        // Both numbers may have moved, towards each other.
        let near = 2.0 * (tolerance.absolute + tolerance.relative * wanted[best].abs());
        best == other || wanted[best] - wanted[other] <= near
    })
}

fn top(logits: &[f64]) -> Option<usize> {
    (0..logits.len()).reduce(|best, i| if logits[i] > logits[best] { i } else { best })
}
