//! Hostile ONNX files: whatever the bytes say, reading and editing them ends with an answer or a typed error.
//!
//! Each case follows from one number. Half of them are bytes of a good model, altered; the others are good messages with
//! altered meaning, which get past the parser: cycles, names that are made twice, sizes that contradict the data, nodes
//! without inputs. What is read is written and read again, and given to everything that works on graphs alone.

use compress::diff::diff;
use compress::prune::channels::Channels;
use compress::quantize::{Recipe, Scheme, plan, quantize, weights};
use models::calibrate::random::Random;
use models::onnx::proto::{ModelProto, NodeProto};
use models::onnx::{Model, tensor};
use prost::Message;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::onnx::perceptron;

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// The number of the first case.
    pub first: u64,
    /// At most so many cases.
    pub cases: u64,
    /// At most so long.
    pub time: Duration,
}

impl Amount {
    /// To see that it holds.
    pub const SHORT: Self = Self { first: 0, cases: 2_000, time: Duration::from_secs(60) };
    /// Half an hour.
    pub const WHOLE: Self = Self { first: 0, cases: u64::MAX, time: Duration::from_secs(1800) };
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Cases that were tried.
    pub cases: u64,
    /// Those that are models, and were read again as the same.
    pub read: u64,
    /// Those that were refused by a typed error.
    pub refused: u64,
}

/// Tries cases until one breaks something, or all are done.
///
/// # Errors
/// The number of the case that panicked, or that was not read again as the same.
pub fn run(amount: Amount) -> anyhow::Result<Tally> {
    let seeds = seeds()?;
    let (begin, mut tally) = (Instant::now(), Tally::default());
    let last = amount.first.saturating_add(amount.cases);
    for number in amount.first..last {
        if begin.elapsed() > amount.time {
            break;
        }
        let bytes = case(&seeds, number);
        let found = catch_unwind(AssertUnwindSafe(|| try_one(&bytes)));
        let read = found.map_err(|_| anyhow::anyhow!("case {number} panicked"))?;
        let read = read.map_err(|e| e.context(format!("case {number}")))?;
        tally.cases += 1;
        tally.read += u64::from(read);
        tally.refused += u64::from(!read);
    }
    Ok(tally)
}

/// Good models to begin with: the demo's small one, and one of three layers.
fn seeds() -> anyhow::Result<Vec<Vec<u8>>> {
    let edge = std::fs::read(crate::world::fashion().join("edge.onnx"))?;
    Ok(vec![edge, perceptron(1)])
}

/// The bytes of a case.
pub fn case(seeds: &[Vec<u8>], number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let seed = &seeds[random.below(seeds.len())];
    match random.below(2) {
        0 => altered_bytes(seed, &mut random),
        _ => altered_meaning(seed, &mut random),
    }
}

#[allow(clippy::cast_possible_truncation)] // one byte
fn altered_bytes(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(8) {
        if bytes.is_empty() {
            break;
        }
        // Structure stands at the front and between weights: half of the changes go there.
        let end = if random.below(2) == 0 { bytes.len() } else { bytes.len().min(4096) };
        let at = random.below(end);
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.bits() as u8,
            2 => bytes.truncate(at),
            3 => {
                let length = random.below(64).min(bytes.len() - at);
                bytes.drain(at..at + length);
            }
            _ => {
                let from = random.below(bytes.len());
                let length = random.below(64).min(bytes.len() - from);
                let piece = bytes[from..from + length].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn altered_meaning(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let Ok(mut model) = ModelProto::decode(seed) else { return seed.to_vec() };
    for _ in 0..=random.below(4) {
        alter(&mut model, random);
    }
    model.encode_to_vec()
}

const OPERATORS: [&str; 16] = [
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Concat",
    "Reshape",
    "Transpose",
    "Softmax",
    "Clip",
    "Gather",
    "BatchNormalization",
    "Flatten",
    "ReduceMean",
    "GlobalAveragePool",
    "Shape",
];
const SIZES: [i64; 8] = [-1, 0, 1, 2, 7, 1 << 20, i64::MAX, i64::MIN];

/// One change of meaning.
fn alter(model: &mut ModelProto, random: &mut Random) {
    let opset = random.below(24);
    if random.below(8) == 0 {
        let version = i64::try_from(opset).unwrap_or(1);
        model.opset_import.iter_mut().for_each(|set| set.version = Some(version));
    }
    let Some(graph) = model.graph.as_mut().filter(|graph| !graph.node.is_empty()) else { return };
    let names: Vec<String> =
        graph.node.iter().flat_map(|node| node.input.iter().chain(&node.output)).cloned().collect();
    let name = names[random.below(names.len())].clone();
    let (index, other) = (random.below(graph.node.len()), random.below(graph.node.len()));
    let node = &mut graph.node[index];
    match random.below(10) {
        0 => pick(&mut node.input, random).into_iter().for_each(|input| *input = name.clone()),
        1 => pick(&mut node.output, random).into_iter().for_each(|output| *output = name.clone()),
        2 => node.op_type = Some(OPERATORS[random.below(OPERATORS.len())].to_owned()),
        3 => node.input.truncate(random.below(3)),
        4 => node.output.truncate(random.below(2)),
        5 => graph.node.swap(index, other),
        6 => {
            let copy: NodeProto = node.clone();
            graph.node.push(copy);
        }
        7 => {
            for attribute in &mut node.attribute {
                let size = SIZES[random.below(SIZES.len())];
                attribute.i = attribute.i.map(|_| size);
                pick(&mut attribute.ints, random).into_iter().for_each(|number| *number = size);
            }
        }
        8 => {
            if let Some(weight) = pick(&mut graph.initializer, random) {
                let size = SIZES[random.below(SIZES.len())];
                pick(&mut weight.dims, random).into_iter().for_each(|dimension| *dimension = size);
            }
        }
        _ => {
            if let Some(weight) = pick(&mut graph.initializer, random) {
                weight.data_type = i32::try_from(random.below(30)).ok();
                weight.dims.truncate(random.below(5));
            }
        }
    }
}

fn pick<'v, T>(values: &'v mut [T], random: &mut Random) -> Option<&'v mut T> {
    if values.is_empty() {
        return None;
    }
    let index = random.below(values.len());
    values.get_mut(index)
}

/// Whether it is a model. Nothing here may panic.
fn try_one(bytes: &[u8]) -> anyhow::Result<bool> {
    let Ok(model) = Model::from_bytes(bytes.to_vec().into()) else { return Ok(false) };
    let written = model.to_bytes()?;
    let again = Model::from_bytes(written.clone())?;
    anyhow::ensure!(again.to_bytes()? == written, "it is not read again as it was written");
    work(&model);
    Ok(true)
}

/// Everything that works on a graph without a runtime; errors are answers.
fn work(model: &Model) {
    let _ = weights::check(model.graph());
    model.graph().weights().for_each(|weight| {
        let _ = (tensor::f32s(weight), tensor::i64s(weight), tensor::size_bytes(weight));
    });
    let _ = diff(model, model).is_empty();
    let mut raised = model.clone();
    if raised.raise_to_13().is_ok() {
        let _ = plan(&raised, &Default::default(), None).measured();
        let recipe = Recipe { scheme: Scheme::Dynamic, ..Recipe::default() };
        let _ = quantize(&raised, &Default::default(), &recipe);
    }
    let said = model.graph().nodes().flat_map(|(_, node)| &node.output);
    let shapes = said.map(|value| (value.clone(), vec![1, 16, 4, 4]));
    let shapes: HashMap<String, Vec<i64>> = shapes.collect();
    let _ = Channels::find(model, &shapes);
    let mut emptied = model.clone();
    emptied.graph_mut().remove_dead();
}
