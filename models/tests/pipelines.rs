//! Texts and sounds through bundles of small models on ONNX Runtime: declared in a `model.toml`,
//! made, probed and asked.

#![cfg(all(feature = "image", feature = "text", feature = "audio"))]
#![allow(clippy::unwrap_used)] // also in the helpers of tests

use outrigger_models::authoring::BuildError;
use outrigger_models::error::{AudioError, InvalidRequest, RunError, TextError};
use outrigger_models::model::LoadedModel;
use outrigger_models::stream::{Piece, StreamState};
use outrigger_models::worker::{Answer, Job};
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::Tensor;

mod support;
use support::onnx::{self, FLOAT, INT64};
use support::{Shop, ask, bytes, names, texts, wav};

const TOKENIZER: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": { "type": "Lowercase" }, "pre_tokenizer": { "type": "Whitespace" },
    "post_processor": null, "decoder": null,
    "model": { "type": "WordLevel", "unk_token": "[UNK]",
        "vocab": { "[UNK]": 1, "[PAD]": 9, "the": 2, "cat": 3, "sat": 4 } }
}"#;

/// Each token is embedded as its number and a 1, and so is padding.
const TEXT: &str = r#"
name = "text"
[[preprocess]]
input = "text"
targets = { ids = "input_ids", mask = "attention_mask" }
steps = [{ step = "tokenize", file = "parts/tokenizer.json", max_tokens = 4 }]
[[postprocess]]
output = "mean"
from = "hidden"
steps = [{ step = "mean-pool", mask = "attention_mask" }]
[[postprocess]]
output = "embedding"
from = "hidden"
steps = [{ step = "mean-pool", mask = "attention_mask" }, { step = "l2-normalize" }]
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-6
inputs = [{ input = "text", lines = "lines.txt" }]
"#;

fn text_shop(recipe: &str) -> Shop {
    let shop = Shop::new(recipe);
    let tokens = |name| onnx::value(name, INT64, &[-1, -1]);
    let to_float = [("to", FLOAT)];
    let model = onnx::model(
        &[tokens("input_ids"), tokens("attention_mask")],
        &[
            onnx::node("Cast", &["input_ids"], "number", &to_float),
            onnx::node("Div", &["number", "number"], "one", &[]),
            onnx::node("Unsqueeze", &["number"], "a", &[("axes", 2)]),
            onnx::node("Unsqueeze", &["one"], "b", &[("axes", 2)]),
            onnx::node("Concat", &["a", "b"], "hidden", &[("axis", 2)]),
        ],
        &[onnx::value("hidden", FLOAT, &[-1, -1, 2])],
    );
    shop.write("model.onnx", model);
    shop.write("parts/tokenizer.json", TOKENIZER);
    shop.write("lines.txt", "the cat\n\nthe cat sat\n");
    shop
}

#[test]
fn texts_become_embeddings() {
    let model = text_shop(TEXT).load().unwrap();
    assert_eq!(model.manifest().files.len(), 3);
    assert!(model.manifest().files.contains_key("tokenizer.json"));
    let batch = bytes("text", &["The CAT", "the cat sat on the mat", ""]);
    let answer = ask(&model, batch, &[]).unwrap();
    assert_eq!(names(&answer), ["hidden", "mean", "embedding"]);
    assert_eq!(
        answer.outputs[0].shape(),
        [3, 4, 2],
        "truncated to 4 tokens, padded to the longest"
    );
    let hidden = answer.outputs[0].to_f32().unwrap();
    assert_eq!(hidden[..8], [2.0, 1.0, 3.0, 1.0, 9.0, 1.0, 9.0, 1.0]);
    let mean = answer.outputs[1].to_f32().unwrap();
    assert_eq!(mean, [2.5, 1.0, 2.5, 1.0, 0.0, 0.0]); // (2,3); (2,3,4,1); nothing
    let embedding = answer.outputs[2].to_f32().unwrap();
    let length = 2.5f32.hypot(1.0);
    assert!((embedding[0] - 2.5 / length).abs() < 1e-6, "{embedding:?}");

    let alone = ask(&model, bytes("text", &["The CAT"]), &["embedding"]).unwrap();
    assert_eq!((names(&alone), alone.outputs[0].shape()), (vec!["embedding"], &[1i64, 2][..]));
    assert_eq!(alone.outputs[0].to_f32().unwrap(), embedding[..2]);
}

#[test]
fn what_the_model_itself_takes_goes_through() {
    let model = text_shop(TEXT).load().unwrap();
    let tokens = |name| {
        let meta = protocol::tensor::TensorMeta::new(name, "INT64".parse().unwrap(), vec![1, 2]);
        let data: Vec<u8> = [2i64, 3].iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor::new(meta.unwrap(), data.into()).unwrap()
    };
    let inputs = vec![tokens("input_ids"), tokens("attention_mask")];
    let answer = model.submit(Job { inputs, ..Job::default() }).unwrap().wait().unwrap();
    assert_eq!(answer.outputs[0].to_f32().unwrap(), [2.0, 1.0, 3.0, 1.0]);
}

#[test]
fn texts_that_cannot_be_used_have_their_error() {
    let model = text_shop(TEXT).load().unwrap();
    let check = |items: &[Vec<u8>]| match ask(&model, bytes("text", items), &[]) {
        Err(RunError::Text { item, source, .. }) => (item, source),
        other => panic!("{other:?}"),
    };
    let good = b"the cat".to_vec();
    assert_eq!(check(&[good.clone(), b"the \xff cat".to_vec()]), (1, TextError::Utf8(4)));
    let size_bytes = 300 << 10;
    assert_eq!(check(&[vec![b'a'; size_bytes]]), (0, TextError::Long { size_bytes }));
    assert_eq!(check(&vec![good; 1025]), (1024, TextError::Many(1025)));
    let long =
        Problem::from(ask(&model, bytes("text", &[vec![b' '; size_bytes]]), &[]).unwrap_err());
    assert_eq!(long.code, ProblemCode::TooLarge);

    let message = |input| ask(&model, input, &[]).unwrap_err().to_string();
    let numbers = Tensor::from_f32("text", vec![1], &[0.0]).unwrap();
    let expected = "the input \"text\" is FP32 [1]; the model takes UTF-8 text as BYTES [n], where \
                    -1 is any size";
    assert_eq!(message(numbers), expected);
    let expected = "the model has no input \"sentence\"; it takes text BYTES [-1]";
    assert_eq!(message(bytes("sentence", &["x"])), expected);
    let none = model.submit(Job::default()).unwrap().wait().unwrap_err().to_string();
    assert_eq!(none, "the input \"text\" is missing; the model takes text BYTES [-1]");
    let twice = vec![bytes("text", &["x"]), bytes("text", &["y"])];
    let twice = model.submit(Job { inputs: twice, ..Job::default() }).unwrap().wait();
    assert!(matches!(twice, Err(RunError::Request(InvalidRequest::Repeated(_)))), "{twice:?}");
    let unknown = ask(&model, bytes("text", &["x"]), &["label"]).unwrap_err().to_string();
    assert!(unknown.contains("it gives hidden FP32 [-1,-1,2], mean FP32 [-1,2]"), "{unknown}");
}

#[test]
fn recipes_for_text_are_checked() {
    let check = |from: &str, to: &str| {
        assert!(TEXT.contains(from), "{from}");
        text_shop(&TEXT.replacen(from, to, 1)).load().err().unwrap()
    };
    let broken = text_shop(TEXT);
    broken.write("parts/tokenizer.json", "{}");
    assert!(matches!(broken.load(), Err(BuildError::Pipeline(_))));
    assert!(matches!(check("parts/tokenizer.json", "parts/none.json"), BuildError::Labels(_)));
    assert!(matches!(check("parts/tokenizer.json", "model.onnx"), BuildError::Data { .. }));
    assert!(matches!(check("max_tokens = 4", "max_tokens = 0"), BuildError::Pipeline(_)));
    assert!(matches!(check("ids = ", "values = "), BuildError::Pipeline(_)));
    assert!(matches!(check("from = \"hidden\"", "from = \"none\""), BuildError::Manifest(_)));
    assert!(matches!(check("lines = ", "files = "), BuildError::Recipe { .. }));
    let twice = "lines = \"lines.txt\", files = [\"lines.txt\"]";
    assert!(matches!(check("lines = \"lines.txt\"", twice), BuildError::Recipe { .. }));
    let pooled = "{ step = \"l2-normalize\" }, { step = \"mean-pool\" }, { step = \"mean-pool\" }";
    let error = check("{ step = \"l2-normalize\" }", pooled).to_string();
    assert_eq!(error, "the output \"embedding\" cannot be made: mean-pool needs [n,tokens,d]");
}

/// Adds each frame, its context included, to what it added before, and tells the sum times `gain`.
const SUMS: &str = r#"
name = "sums"
[[preprocess]]
input = "audio"
targets = { values = "x" }
steps = [
    { step = "decode-wav" },
    { step = "resample", rate_hz = 8000 },
    { step = "frame", size = 4, context = 1 },
]
[[constants]]
input = "gain"
values = [2]
[[state]]
output = "sum"
input = "before"
shape = [1, 1]
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-6
inputs = [{ input = "audio", files = ["a.wav"] }]
"#;

fn sums() -> LoadedModel {
    let shop = Shop::new(SUMS);
    let model = onnx::model(
        &[
            onnx::value("x", FLOAT, &[-1, 5]),
            onnx::value("before", FLOAT, &[-1, 1]),
            onnx::value("gain", INT64, &[]),
        ],
        &[
            onnx::node("ReduceSum", &["x"], "new", &[("axes", 1)]),
            onnx::node("Add", &["new", "before"], "sum", &[]),
            onnx::node("Cast", &["gain"], "g", &[("to", FLOAT)]),
            onnx::node("Mul", &["sum", "g"], "y", &[]),
        ],
        &[onnx::value("y", FLOAT, &[-1, 1]), onnx::value("sum", FLOAT, &[-1, 1])],
    );
    shop.write("model.onnx", model);
    shop.write("a.wav", wav(8000, &[0.25; 10]));
    shop.load().unwrap()
}

fn samples(values: &[f32]) -> Tensor {
    Tensor::from_f32("audio", vec![1, values.len() as i64], values).unwrap()
}

/// Ten samples: frames (0|1234), (4|5678), (8|9,10,0,0) sum to 10, 30, 27.
const TEN: [f32; 10] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];

#[test]
fn a_whole_sound_runs_frame_by_frame() {
    let model = sums();
    let answer = ask(&model, samples(&TEN), &[]).unwrap();
    assert_eq!((names(&answer), answer.outputs[0].shape()), (vec!["y"], &[3i64, 1][..]));
    assert_eq!(answer.outputs[0].to_f32().unwrap(), [20.0, 80.0, 134.0]);
    assert_eq!(answer.stream, None);
    let state = ask(&model, samples(&TEN), &["sum", "y"]).unwrap();
    assert_eq!(state.outputs[0].to_f32().unwrap(), [67.0], "of the state, the last");
    let again = ask(&model, samples(&TEN), &[]).unwrap();
    assert_eq!(again.outputs, answer.outputs, "nothing is kept from request to request");
}

fn piece(model: &LoadedModel, input: Tensor, state: StreamState) -> Result<Answer, RunError> {
    model.submit_stream(Job { inputs: vec![input], ..Job::default() }, state.into()).unwrap().wait()
}

#[test]
fn a_stream_in_pieces_is_the_same_sound() {
    let model = sums();
    for size in 1..=10 {
        let (mut state, mut all) = (StreamState::default(), Vec::new());
        for part in TEN.chunks(size) {
            let answer = piece(&model, samples(part), state).unwrap();
            assert_eq!(answer.outputs[0].shape()[1], 1, "also of no frame");
            all.extend(answer.outputs[0].to_f32().unwrap());
            state = answer.stream.unwrap();
        }
        assert_eq!(all, [20.0, 80.0], "pieces of {size}; the last frame is not full");
        assert_eq!(state.size_bytes(), 4 + 3 * 4); // the sum; 8, 9, 10
    }
}

#[test]
fn the_last_piece_of_a_stream_is_answered_to_its_end() {
    let model = sums();
    let whole = ask(&model, samples(&TEN), &[]).unwrap().outputs[0].to_f32().unwrap();
    for size in 1..=10 {
        let (mut state, mut all) = (StreamState::default(), Vec::new());
        let count = TEN.len().div_ceil(size);
        for (index, part) in TEN.chunks(size).enumerate() {
            let piece = Piece { state, last: index + 1 == count };
            let job = Job { inputs: vec![samples(part)], ..Job::default() };
            let answer = model.submit_stream(job, piece).unwrap().wait().unwrap();
            all.extend(answer.outputs[0].to_f32().unwrap());
            state = answer.stream.unwrap();
        }
        assert_eq!(all, whole, "pieces of {size}");
    }
    let begun = piece(&model, samples(&TEN), StreamState::default()).unwrap().stream.unwrap();
    let end = |state| {
        let job = Job { inputs: vec![samples(&[])], ..Job::default() };
        let answer = model.submit_stream(job, Piece { state, last: true }).unwrap().wait();
        answer.unwrap().outputs[0].to_f32().unwrap()
    };
    assert_eq!(end(begun), [134.0], "nothing new, but what was left over");
    assert_eq!(end(StreamState::default()), [0.0; 0], "nothing at all");
}

#[test]
fn streams_do_not_mix() {
    let model = sums();
    let start = || StreamState::default();
    let a = piece(&model, samples(&TEN[..4]), start()).unwrap().stream.unwrap();
    let b = piece(&model, samples(&TEN[4..8]), start()).unwrap().stream.unwrap();
    let next = |state: &StreamState| {
        let answer = piece(&model, samples(&[0.0; 4]), state.clone()).unwrap();
        answer.outputs[0].to_f32().unwrap()[0]
    };
    assert_eq!([next(&a), next(&b), next(&a)], [28.0, 68.0, 28.0]);
    let broken = piece(&model, samples(&[f32::NAN]), a.clone()).unwrap_err();
    let source = AudioError::NotFinite(0);
    assert_eq!(broken, RunError::Audio { input: "audio".into(), item: 0, source });
    let other = text_shop(TEXT).load().unwrap();
    let foreign = piece(&other, bytes("text", &["x"]), a).unwrap();
    assert_eq!(foreign.stream, Some(StreamState::default()), "a model without state has none");
}

#[test]
fn sounds_that_cannot_be_used_have_their_error() {
    let model = sums();
    let check = |input: Tensor| match ask(&model, input, &[]) {
        Err(RunError::Audio { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    assert_eq!(check(samples(&[])), AudioError::Empty);
    assert_eq!(check(bytes("audio", &[wav(8000, &[])])), AudioError::Empty);
    assert_eq!(check(bytes("audio", &["RIFF...."])), AudioError::NotWav);
    let two = wav(8000, &[0.0; 8]);
    assert_eq!(check(bytes("audio", &[two.clone(), two])), AudioError::Several(2));
    let count = 40_000;
    assert_eq!(check(samples(&vec![0.0; count * 4])), AudioError::Frames(count));
    let faster = piece(&model, bytes("audio", &[wav(16_000, &[0.0])]), StreamState::default());
    let source = AudioError::StreamRate { expected: 8000, actual: 16_000 };
    assert_eq!(faster, Err(RunError::Audio { input: "audio".into(), item: 0, source }));
    let twice = Job { inputs: vec![samples(&TEN), samples(&TEN)], ..Job::default() };
    let twice = model.submit(twice).unwrap().wait();
    assert_eq!(twice, Err(InvalidRequest::Repeated("audio".into()).into()));
    let shape = Tensor::from_f32("audio", vec![1, 1, 1], &[0.0]).unwrap();
    let message = ask(&model, shape, &[]).unwrap_err().to_string();
    assert!(message.contains("samples as FP32 or INT16 [n,samples], or WAV files"), "{message}");
}

#[test]
fn a_long_sound_ends_at_its_deadline() {
    let model = sums();
    let deadline = Some(std::time::Instant::now() + std::time::Duration::from_millis(20));
    let inputs = vec![samples(&vec![0.0; 30_000 * 4])];
    let late = model.submit(Job { inputs, deadline, ..Job::default() }).unwrap().wait();
    assert_eq!(late, Err(RunError::Expired));
}

const SCORES: &str = r#"
name = "scores"
default_outputs = ["label", "probability", "shares"]
[[postprocess]]
output = "shares"
from = "logits"
steps = [{ step = "softmax" }]
[classes]
logits = "logits"
labels = "labels.json"
top_k = 2
[variants]
edge = { onnx = "model.onnx" }
[probes]
tolerance = 1e-6
inputs = [{ input = "x", file = "x.f32", datatype = "FP32", item_shape = [3] }]
"#;

#[test]
fn scores_become_labels_with_probabilities() {
    let shop = Shop::new(SCORES);
    let (x, logits) = (onnx::value("x", FLOAT, &[-1, 3]), onnx::value("logits", FLOAT, &[-1, 3]));
    shop.write(
        "model.onnx",
        onnx::model(&[x], &[onnx::node("Identity", &["x"], "logits", &[])], &[logits]),
    );
    shop.write("labels.json", r#"["no","yes","perhaps"]"#);
    shop.write("x.f32", [0u8; 24]);
    let model = shop.load().unwrap();
    let x =
        |values: &[f32]| Tensor::from_f32("x", vec![values.len() as i64 / 3, 3], values).unwrap();
    let answer = ask(&model, x(&[0.0, 3f32.ln(), 0.0, 0.0, 0.0, 9.0]), &[]).unwrap();
    assert_eq!(names(&answer), ["label", "probability", "shares"]);
    assert_eq!(texts(&answer.outputs[0]), ["yes", "no", "perhaps", "no"]);
    let near = |tensor: &Tensor, expected: &[f32]| {
        let values = tensor.to_f32().unwrap();
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
    };
    near(&answer.outputs[1], &[0.6, 0.2]);
    near(&answer.outputs[2], &[0.2, 0.6, 0.2]);
    assert_eq!(
        (answer.outputs[0].shape(), answer.outputs[2].shape()),
        (&[2i64, 2][..], &[2i64, 3][..])
    );
    let one = ask(&model, x(&[0.0, 1.0, 0.0]), &["probability", "logits"]).unwrap();
    assert_eq!((names(&one), one.label.as_deref()), (vec!["probability", "logits"], Some("yes")));
    let nan = ask(&model, x(&[0.0, f32::NAN, 0.0]), &[]).unwrap_err();
    assert_eq!(nan, InvalidRequest::NotFinite { name: "x".into(), index: 1 }.into());
}
