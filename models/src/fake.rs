//! A deterministic stand-in for ONNX Runtime, for tests of everything around a model.
//!
//! Its "model" is a few lines of text:
//!
//! ```text
//! fake
//! input x FP32 -1 3
//! output logits FP32 -1 3
//! scale 2
//! ```
//!
//! Output rows hold the first input's row, repeated or cut to length and times `scale` (1 when
//! absent), so a test writes the logits it wants as the input. More lines make it misbehave:
//! `delay_ms N` sleeps, `fail` and `panic` do so always, `fail V`, `lose V` and `panic V` when the
//! first number of the first input is `V`; `lose` loses the session. A [`Gate`] holds every run until the test opens it.
//!
//! A backend that offers execution providers ([`FakeBackend::offering`]) opens sessions on them, which
//! take all of one node. `on PROVIDER ...` (also `on cpu`) lets one of them misbehave alone: any line from above
//! but inputs and outputs, `takes TAKEN ALL` nodes, `refuse` to open, `untold` nodes, answers of
//! `nan`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use protocol::manifest::TensorSpec;
use protocol::tensor::{InvalidTensor, Tensor, TensorMeta};

use crate::backend::{Backend, LoadError, Session, SessionOptions, check_request};
use crate::error::RunError;
use crate::numbers;
use crate::providers::{NodeCount, Provider, Reason};

/// Loads the text described above.
#[derive(Debug, Clone, Default)]
pub struct FakeBackend {
    gate: Option<Gate>,
    providers: Vec<Provider>,
    loads: Arc<Mutex<Vec<SessionOptions>>>,
}

impl FakeBackend {
    /// A backend whose sessions wait at the gate before every run.
    pub fn gated(gate: Gate) -> Self {
        Self { gate: Some(gate), ..Self::default() }
    }

    /// A backend on whose providers sessions may be tried.
    pub fn offering(providers: &[Provider]) -> Self {
        Self { providers: providers.to_vec(), ..Self::default() }
    }

    /// How every session was opened so far, those too that were refused.
    pub fn loads(&self) -> Vec<SessionOptions> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Backend for FakeBackend {
    fn load(&self, onnx: &Path, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let path: PathBuf = onnx.to_owned();
        self.loads.lock().unwrap_or_else(PoisonError::into_inner).push(options.clone());
        let text = std::fs::read_to_string(onnx)
            .map_err(|source| LoadError::Read { path: path.clone(), source })?;
        let script = Script::parse(&text, options.provider)
            .map_err(|message| LoadError::Malformed { path, message })?;
        if script.refuse {
            let (provider, message) = (options.provider, "told to refuse".to_owned());
            return Err(LoadError::Provider { provider, message });
        }
        Ok(Box::new(FakeSession { script, gate: self.gate.clone() }))
    }

    fn offers(&self, provider: Provider) -> Result<(), Reason> {
        self.providers.contains(&provider).then_some(()).ok_or(Reason::NotBuiltIn)
    }

    fn identity(&self) -> String {
        "fake".to_owned()
    }
}

/// Holds runs back until it is opened.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    arrived: usize,
}

impl Gate {
    /// Lets every run through, now and later.
    pub fn open(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).open = true;
        self.0.1.notify_all();
    }

    /// Holds every run that comes from now on.
    pub fn close(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).open = false;
    }

    /// How many runs have come to the gate since it was made.
    pub fn arrivals(&self) -> usize {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).arrived
    }

    /// Waits until `runs` runs have come to the gate since it was made.
    pub fn wait_for(&self, runs: usize) {
        self.wait_while(|state| state.arrived < runs);
    }

    /// How many runs have come to the gate.
    pub fn arrived(&self) -> usize {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).arrived
    }

    fn pass(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).arrived += 1;
        self.0.1.notify_all();
        self.wait_while(|state| !state.open);
    }

    fn wait_while(&self, blocked: impl Fn(&GateState) -> bool) {
        let state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_while(state, |state| blocked(state));
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// When a session misbehaves.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum When {
    #[default]
    Never,
    Always,
    First(f64),
}

impl When {
    fn parse(words: &[&str]) -> Result<Self, String> {
        match words {
            [] => Ok(Self::Always),
            [value] => Ok(Self::First(number(value)?)),
            _ => Err("one number or none is expected".to_owned()),
        }
    }

    fn holds(self, first: f64) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::First(value) => value == first,
        }
    }
}

#[derive(Debug)]
struct Script {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    scale: f64,
    delay: Duration,
    fail: When,
    lose: When,
    panic: When,
    nodes: Option<NodeCount>,
    refuse: bool,
    nan: bool,
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("{word:?} is no number of the expected kind"))
}

fn spec(words: &[&str]) -> Result<TensorSpec, String> {
    let [name, datatype, shape @ ..] = words else {
        return Err("a name and a datatype are expected".to_owned());
    };
    let datatype = datatype.parse().map_err(|e: InvalidTensor| e.to_string())?;
    let shape = shape.iter().map(|word| number(word)).collect::<Result<_, _>>()?;
    Ok(TensorSpec { name: (*name).to_owned(), datatype, shape })
}

impl Script {
    fn parse(text: &str, provider: Provider) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some("fake") {
            return Err("the first line must be `fake`".to_owned());
        }
        let mut script = Self {
            inputs: Vec::new(),
            outputs: Vec::new(),
            scale: 1.0,
            delay: Duration::ZERO,
            fail: When::Never,
            lose: When::Never,
            panic: When::Never,
            nodes: (provider != Provider::Cpu).then_some(NodeCount { taken: 1, all: 1 }),
            refuse: false,
            nan: false,
        };
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let own = match words.as_slice() {
                ["on", other, ..] if *other != provider.as_str() => continue,
                ["on", _, rest @ ..] => rest,
                all => all,
            };
            script.take(own).map_err(|e| format!("{line:?}: {e}"))?;
        }
        let whole = !script.inputs.is_empty() && !script.outputs.is_empty();
        whole.then_some(script).ok_or_else(|| "an input and an output are needed".to_owned())
    }

    fn take(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            [] => {}
            ["input", rest @ ..] => self.inputs.push(spec(rest)?),
            ["output", rest @ ..] => self.outputs.push(spec(rest)?),
            ["scale", value] => self.scale = number(value)?,
            ["delay_ms", value] => self.delay = Duration::from_millis(number(value)?),
            ["fail", rest @ ..] => self.fail = When::parse(rest)?,
            ["lose", rest @ ..] => self.lose = When::parse(rest)?,
            ["panic", rest @ ..] => self.panic = When::parse(rest)?,
            ["takes", taken, all] => {
                self.nodes = Some(NodeCount { taken: number(taken)?, all: number(all)? });
            }
            ["untold"] => self.nodes = None,
            ["refuse"] => self.refuse = true,
            ["nan"] => self.nan = true,
            _ => return Err("unknown word".to_owned()),
        }
        Ok(())
    }

    /// The output's rows: the first input's rows, repeated or cut to length, times the scale.
    fn answer(&self, spec: &TensorSpec, input: &Tensor) -> Result<Tensor, RunError> {
        let rows = input.shape().first().copied().unwrap_or(1);
        let mut shape: Vec<i64> = spec.shape.iter().map(|d| if *d < 0 { 1 } else { *d }).collect();
        if let (Some(first), Some(-1)) = (shape.first_mut(), spec.shape.first()) {
            *first = rows;
        }
        let values = first_numbers(input);
        let given = chunk_len(values.len(), Some(&rows));
        let build = || {
            let meta = TensorMeta::new(&spec.name, spec.datatype, shape)?;
            let elements = usize::try_from(meta.elements()).unwrap_or(0);
            let own = chunk_len(elements, meta.shape.first());
            let pick = |index: usize| {
                let at = (index / own) * given + (index % own) % given;
                let nan = if self.nan { f64::NAN } else { 0.0 };
                values.get(at).map_or(0.0, |value| value * self.scale) + nan
            };
            let output: Vec<f64> = (0..elements).map(pick).collect();
            numbers::from_f64(meta, &output)
        };
        build().map_err(|e: InvalidTensor| RunError::Failed(e.to_string()))
    }
}

/// How many of so many elements one row holds, at least 1.
fn chunk_len(elements: usize, rows: Option<&i64>) -> usize {
    let rows = rows.and_then(|rows| usize::try_from(*rows).ok()).unwrap_or(1);
    (elements / rows.max(1)).max(1)
}

/// The numbers of a tensor; of `BYTES`, the elements' lengths.
#[allow(clippy::cast_precision_loss)] // lengths are small
fn first_numbers(input: &Tensor) -> Vec<f64> {
    let lengths = || input.byte_elements().map(|e| e.len() as f64).collect();
    numbers::to_f64(input).unwrap_or_else(lengths)
}

struct FakeSession {
    script: Script,
    gate: Option<Gate>,
}

impl Session for FakeSession {
    fn inputs(&self) -> &[TensorSpec] {
        &self.script.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.script.outputs
    }

    fn nodes(&self) -> Option<NodeCount> {
        self.script.nodes
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, RunError> {
        let script = &self.script;
        check_request((&script.inputs, &script.outputs), inputs, outputs)?;
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        std::thread::sleep(script.delay);
        let first = first_numbers(&inputs[0]).first().copied().unwrap_or(0.0);
        assert!(!script.panic.holds(first), "told to panic");
        if script.lose.holds(first) {
            return Err(RunError::Lost("told to lose".to_owned()));
        }
        if script.fail.holds(first) {
            return Err(RunError::Failed("told to fail".to_owned()));
        }
        let given = |name: &String| script.outputs.iter().find(|spec| spec.name == *name);
        let wanted: Vec<&TensorSpec> = match outputs {
            [] => script.outputs.iter().collect(),
            some => some.iter().filter_map(given).collect(),
        };
        wanted.into_iter().map(|spec| script.answer(spec, &inputs[0])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(text: &str) -> Result<FakeSession, String> {
        Ok(FakeSession { script: Script::parse(text, Provider::Cpu)?, gate: None })
    }

    #[test]
    fn rows_are_echoed() {
        let text = "fake\ninput x FP32 -1 2\noutput y FP32 -1 3\noutput z INT8 1\nscale 2";
        let x = Tensor::from_f32("x", vec![2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        let outputs = session(text).unwrap().run(&[x], &[]).unwrap();
        assert_eq!(outputs[0].shape(), [2, 3]);
        assert_eq!(outputs[0].to_f32().unwrap(), [2.0, 4.0, 2.0, 6.0, 8.0, 6.0]);
        assert_eq!(numbers::to_f64(&outputs[1]), Some(vec![2.0]));
    }

    #[test]
    fn requests_are_checked_before_the_model_is_called() {
        let text = "fake\ninput x FP32 -1 2\noutput y FP32 -1 2\npanic";
        let x = |name, len: usize| Tensor::from_f32(name, vec![1, len as i64], &vec![0.0; len]);
        let check = |inputs: &[Tensor], outputs: &[&str]| {
            let outputs: Vec<String> = outputs.iter().map(|o| (*o).to_owned()).collect();
            session(text).unwrap().run(inputs, &outputs).unwrap_err().to_string()
        };
        let good = x("x", 2).unwrap();
        for (message, expected) in [
            (check(&[], &[]), "the input \"x\" is missing; the model takes x FP32 [-1,2]"),
            (
                check(&[x("a", 2).unwrap()], &[]),
                "the model has no input \"a\"; it takes x FP32 [-1,2]",
            ),
            (check(&[good.clone(), good.clone()], &[]), "the tensor \"x\" is named twice"),
            (
                check(&[x("x", 3).unwrap()], &[]),
                "the input \"x\" is FP32 [1,3]; the model takes FP32 [-1,2], where -1 is any size",
            ),
            (
                check(std::slice::from_ref(&good), &["x"]),
                "the model has no output \"x\"; it gives y FP32 [-1,2]",
            ),
            (check(std::slice::from_ref(&good), &["y", "y"]), "the tensor \"y\" is named twice"),
        ] {
            assert_eq!(message, expected);
        }
    }

    #[test]
    fn texts_that_are_no_model_are_refused() {
        let whole = "fake\ninput x FP32 1\noutput y FP32 1\n";
        assert!(session(whole).is_ok());
        for bad in ["", "onnx", "fake\ninput x FP32 1", "fake\ninput x"] {
            assert!(session(bad).is_err(), "{bad}");
        }
        for line in ["scale x", "fly", "input x FP33 1", "fail a b"] {
            assert!(session(&format!("{whole}{line}")).is_err(), "{line}");
        }
    }
}
