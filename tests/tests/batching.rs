//! 10,000 mixed requests from many callers through all doors, several models, shapes and numbers of
//! items: every answer is the one that the model gives to that request alone.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use models::backend::{Backend, Session, SessionOptions};
use models::ort_backend::{OrtBackend, find_library};
use outrigger_tests::callers::{Call, Device, Grpc, Https, KeyHolder, Said};
use outrigger_tests::fashion::{IMAGE_BYTES, Images};
use outrigger_tests::onnx::{Graph, Input, perceptron};
use outrigger_tests::world::{Publisher, Single, World, fashion};
use protocol::id::{Variant, Version};
use protocol::infer::{InferRequest, PlacementHint};
use protocol::manifest::TensorSpec;
use protocol::problem::ProblemCode;
use protocol::tensor::{DataType, Tensor, TensorMeta};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;

const REQUESTS: usize = 10_000;
const CALLERS_PER_DOOR: usize = 12;
const DEVICES: usize = 4;
const DEADLINE_MS: u32 = 60_000;
/// How far an answer may lie from the one alone, relative to `1 + |b|`.
const WITHIN: f32 = 1e-5;

/// A request, and what must come back.
struct Case {
    request: InferRequest,
    expected: Vec<f32>,
}

impl Case {
    fn new(model: &str, input: Tensor, output: &str, expected: &Tensor) -> Self {
        let request = InferRequest {
            model: model.parse().unwrap(),
            version: None,
            id: String::new(),
            inputs: vec![input],
            outputs: vec![output.to_owned()],
            deadline_ms: Some(DEADLINE_MS),
            priority: 0,
            hint: PlacementHint::Cloud,
            sequence: None,
        };
        Self { request, expected: expected.to_f32().unwrap() }
    }

    /// Looks at an answer; for a refusal, waits for as long as it says, and is false.
    async fn is_answered(&self, said: Said) -> bool {
        match said {
            Ok(outputs) => self.check(&outputs),
            Err(problem) if problem.code == ProblemCode::Overloaded => {
                assert!(problem.retry_after_ms > 0, "{problem}");
                tokio::time::sleep(Duration::from_millis(problem.retry_after_ms.into())).await;
                return false;
            }
            Err(problem) => panic!("{}: {problem}", self.request.model),
        }
        true
    }

    fn check(&self, outputs: &[Tensor]) {
        let [output] = outputs else { panic!("{} outputs", outputs.len()) };
        let numbers = output.to_f32().unwrap();
        assert_eq!(numbers.len(), self.expected.len());
        for (a, b) in numbers.iter().zip(&self.expected) {
            let near = (a - b).abs() <= WITHIN * (1.0 + b.abs());
            assert!(near, "{}: {a} is not {b}", self.request.model);
        }
    }
}

/// A model in this process, which is asked for one request at a time.
struct Alone(Box<dyn Session>);

impl Alone {
    fn load(onnx: &Path) -> Self {
        let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
        Self(backend.load(onnx, &SessionOptions::default()).unwrap())
    }

    fn answer(&mut self, input: &Tensor) -> Tensor {
        self.0.run(std::slice::from_ref(input), &[]).unwrap().remove(0)
    }
}

/// Numbers between -1 and 1 (xorshift64).
fn noise(seed: usize, shape: &[i64]) -> Tensor {
    let mut state = seed as u64 * 2 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let count: i64 = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| next()).collect();
    Tensor::from_f32("x", shape.to_vec(), &values).unwrap()
}

/// The softmax of each row, along the last axis: rows of any length, so that lengths do not mix.
fn softmax() -> Vec<u8> {
    let mut graph = Graph::new("softmax", 1, Input { name: "x", shape: &[-1, -1] });
    let last = graph.node("Softmax", &["x"], &[]);
    graph.finish(&last, "y", &[-1, -1])
}

/// Each row less the mean of all: mates would change the answer.
fn centred() -> Vec<u8> {
    let mut graph = Graph::new("centred", 1, Input { name: "x", shape: &[-1, 4] });
    let mean = graph.node("ReduceMean", &["x"], &[("axes", &[0])]);
    let last = graph.node("Sub", &["x", &mean], &[]);
    graph.finish(&last, "y", &[-1, 4])
}

/// Publishes a model from `x` to `y` as both variants and assigns it; requests of these shapes to it.
fn publish(
    world: &World,
    name: &str,
    onnx: Vec<u8>,
    width: [i64; 2],
    shapes: &[[i64; 2]],
) -> Vec<Case> {
    let file = world.folder().join(format!("{name}.onnx"));
    std::fs::write(&file, &onnx).unwrap();
    let mut alone = Alone::load(&file);
    let spec = |name: &str, width| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: vec![-1, width],
    };
    let mut probe = |seed| {
        let input = noise(seed, &[1, if width[0] < 0 { 8 } else { width[0] }]);
        let output = alone.answer(&input);
        (input, output)
    };
    let mut single = Single {
        model: name.into(),
        version: 1,
        variant: Variant::Cloud,
        onnx,
        input: spec("x", width[0]),
        output: spec("y", width[1]),
        probes: (1..9).map(&mut probe).collect(),
    };
    let publisher = Publisher::with_keys_of(&world.operator).unwrap();
    publisher.publish_single(&single).unwrap();
    single.variant = Variant::Edge;
    publisher.publish_single(&single).unwrap();
    world.operator.run(&["model", "assign", name, "--all"]).unwrap();
    let shapes = shapes.iter().cycle().take(64).enumerate();
    let case = |(seed, shape): (usize, &[i64; 2])| {
        let input = noise(seed + 100, shape);
        let expected = alone.answer(&input);
        Case::new(name, input, "y", &expected)
    };
    shapes.map(case).collect()
}

/// Requests about 1 to 4 pictures, as pixels and as numbers.
fn pictures() -> Vec<Case> {
    let images = Images::test().unwrap();
    let mut alone = Alone::load(&fashion().join("cloud.onnx"));
    let case = |at: usize| {
        let count = 1 + at % 4;
        let pixels: Vec<u8> = (at..at + count).flat_map(|i| images.pixels(i).to_vec()).collect();
        assert_eq!(pixels.len(), count * IMAGE_BYTES);
        let values: Vec<f32> = pixels.iter().map(|pixel| f32::from(*pixel) / 255.0).collect();
        let items = count.try_into().unwrap();
        let numbers = Tensor::from_f32("image", vec![items, 1, 28, 28], &values).unwrap();
        let expected = alone.answer(&numbers);
        let meta = TensorMeta::new("image", DataType::Uint8, vec![items, 28, 28]).unwrap();
        let input = match at % 2 {
            0 => numbers,
            _ => Tensor::new(meta, pixels.into()).unwrap(),
        };
        Case::new("fashion", input, "logits", &expected)
    };
    (0..64).map(case).collect()
}

/// The cases in turn, until there were enough requests.
struct Turns {
    cases: Vec<Case>,
    next: AtomicUsize,
    /// How many were answered through each door.
    answered: [AtomicUsize; Door::COUNT],
}

/// The ways in.
#[derive(Clone, Copy)]
enum Door {
    Https,
    Grpc,
    Quic,
}

impl Door {
    const COUNT: usize = 3;
}

impl Turns {
    fn next(&self) -> Option<&Case> {
        let turn = self.next.fetch_add(1, Relaxed);
        // A step that is coprime to the number of cases mixes models, shapes and items.
        (turn < REQUESTS).then(|| &self.cases[turn * 37 % self.cases.len()])
    }

    fn answered(&self, door: Door) {
        self.answered[door as usize].fetch_add(1, Relaxed);
    }
}

async fn over_https(who: KeyHolder, turns: Arc<Turns>) {
    let mut https = Https::connect(&who).await.unwrap();
    while let Some(case) = turns.next() {
        let InferRequest { model, inputs, outputs, .. } = &case.request;
        let parameters = json!({ "timeout": u64::from(DEADLINE_MS) * 1000 });
        let call = Call::new(&who, model.as_str(), (inputs, outputs), &parameters);
        while !case.is_answered(https.call(&call).await.unwrap().said().unwrap()).await {}
        turns.answered(Door::Https);
    }
}

async fn over_grpc(who: KeyHolder, turns: Arc<Turns>) {
    let mut grpc = Grpc::connect(&who).await.unwrap();
    while let Some(case) = turns.next() {
        let InferRequest { model, inputs, outputs, .. } = &case.request;
        let timeout_us = i64::from(DEADLINE_MS) * 1000;
        loop {
            let said = grpc.ask(model.as_str(), (inputs, outputs), timeout_us).await.unwrap();
            if case.is_answered(said).await {
                break;
            }
        }
        turns.answered(Door::Grpc);
    }
}

async fn over_quic(device: Device, turns: Arc<Turns>) {
    while let Some(case) = turns.next() {
        let ask = || device.ask(&case.request, Version::FIRST, DEADLINE_MS);
        while !case.is_answered(ask().await.unwrap()).await {}
        turns.answered(Door::Quic);
    }
}

#[test]
fn every_answer_is_its_own() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let mut cases = pictures();
    let rows: Vec<[i64; 2]> = (1..=5).map(|items| [items, 64]).collect();
    cases.extend(publish(&world, "perceptron", perceptron(1), [64, 10], &rows));
    let lengths: Vec<[i64; 2]> = (0..12).map(|at| [1 + at % 3, 8 << (at % 4)]).collect();
    cases.extend(publish(&world, "softmax", softmax(), [-1, -1], &lengths));
    cases.extend(publish(&world, "centred", centred(), [4, 4], &[[2, 4], [1, 4], [3, 4]]));
    let turns = Arc::new(Turns { cases, next: AtomicUsize::new(0), answered: Default::default() });
    let who = KeyHolder::new(&world, "shop").unwrap();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut callers = JoinSet::new();
        for number in 0..DEVICES {
            let device = Device::enrol(&world, &format!("device-{number}")).await.unwrap();
            for _ in 0..CALLERS_PER_DOOR / DEVICES {
                callers.spawn(over_https(who.clone(), turns.clone()));
                callers.spawn(over_grpc(who.clone(), turns.clone()));
                callers.spawn(over_quic(device.clone(), turns.clone()));
            }
        }
        while let Some(ended) = callers.join_next().await {
            ended.unwrap();
        }
    });
    let answered = turns.answered.each_ref().map(|count| count.load(Relaxed));
    assert_eq!(answered.iter().sum::<usize>(), REQUESTS, "{answered:?}");
    assert!(answered.iter().all(|count| *count > REQUESTS / 50), "{answered:?}");
    let stats = Publisher::with_keys_of(&world.operator).unwrap().stats().unwrap();
    let number = |key: &str| stats[key].as_u64().unwrap();
    assert!(number("admitted") >= REQUESTS as u64, "{stats}");
    assert!(number("runs_of_several_requests") > 100, "{stats}");
    println!("{stats}");
}
