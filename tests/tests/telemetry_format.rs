//! PyPI's pyhpke opens our segments with the private key, and refuses whatever is not what was sealed in its place: the
//! format is RFC 9180 as everybody has it, and what its description says.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::python::Environment;
use prost::Message;
use protocol::id::ContentHash;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use telemetry::Class;
use telemetry::key::PrivateKey;
use telemetry::seal::{Beginning, Sealer};
use telemetry::segment::Segment;
use telemetry::wire::record::What;
use telemetry::wire::{InferenceEvent, Record, RecordBatch, Sample};

const FRAME_HEAD: usize = 16;

/// A segment with three frames, what is in them, and its key where that is apart.
fn segment(class: Class, number: u64, key: &PrivateKey) -> (Vec<u8>, Vec<String>, String) {
    let device = "d-12345678".parse().unwrap();
    let beginning = Beginning {
        device,
        segment: number,
        class,
        now_unix_ms: 1_700_000_000_000,
        previous: (0, 0),
    };
    let entropy = *ContentHash::of(&number.to_be_bytes()).as_bytes();
    let (mut sealer, begun) = Sealer::begin(beginning, Some(key.public()), entropy).unwrap();
    let (mut bytes, mut plain) = (begun.head, Vec::new());
    for frame in 0..3u64 {
        let model = "marker".repeat(9);
        let what = match class {
            Class::Samples => What::Sample(Sample { model, version: frame, ..Default::default() }),
            _ => What::Inference(InferenceEvent { model, version: frame, ..Default::default() }),
        };
        let records = vec![Record { number: frame + 1, observed_unix_ms: 5, what: Some(what) }];
        plain.push(hex::encode(RecordBatch { records: records.clone() }.encode_to_vec()));
        bytes.extend(sealer.frame(records).unwrap());
    }
    (bytes, plain, begun.detached_key.map(hex::encode).unwrap_or_default())
}

/// The front of a segment, and frames in another order, with checks that are good: only the sealing can notice.
fn rebuilt(front: &[u8], frames_of: &[u8], order: &[usize]) -> Vec<u8> {
    let start = Segment::parse(front).unwrap().frames[0].body.start - FRAME_HEAD;
    let mut bytes = front[..start].to_vec();
    let mut check = bytes[start - 8..].to_vec();
    let frames = Segment::parse(frames_of).unwrap().frames;
    for index in order {
        let body = frames[*index].body.clone();
        let head = &frames_of[body.start - FRAME_HEAD..body.start - 8];
        let all = [check.as_slice(), head, &frames_of[body.clone()]].concat();
        check = ContentHash::of(&all).as_bytes()[..8].to_vec();
        bytes.extend([head, check.as_slice(), &frames_of[body]].concat());
    }
    Segment::parse(&bytes).unwrap();
    bytes
}

struct Asked<'a> {
    folder: &'a Path,
    all: Vec<Value>,
}

impl Asked<'_> {
    fn add(&mut self, bytes: &[u8], key: &PrivateKey, detached: &str) {
        let path: PathBuf = self.folder.join(self.all.len().to_string());
        std::fs::write(&path, bytes).unwrap();
        self.all.push(json!({ "segment": path, "key": key.to_hex(), "detached": detached }));
    }
}

#[test]
fn pyhpke_opens_what_was_sealed_and_nothing_else() {
    let packages = ["pyhpke==0.6.5", "zstandard==0.25.0"];
    let Some(environment) = Environment::with(&packages).unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut asked = Asked { folder: folder.path(), all: Vec::new() };
    let (key, other) = (PrivateKey::from_entropy(&[1; 32]), PrivateKey::from_entropy(&[2; 32]));
    let (one, plain, _) = segment(Class::Events, 7, &key);
    let (two, ..) = segment(Class::Events, 8, &key);
    let (sample, sampled, detached) = segment(Class::Samples, 9, &key);
    asked.add(&one, &key, "");
    asked.add(&sample, &key, &detached);
    asked.add(&rebuilt(&one, &one, &[0, 1, 2]), &key, "");
    let good = asked.all.len();

    asked.add(&one, &other, "");
    asked.add(&sample, &key, "");
    asked.add(&sample, &key, &"07".repeat(32));
    asked.add(&rebuilt(&one, &two, &[0, 1, 2]), &key, ""); // another segment's frames
    asked.add(&rebuilt(&one, &one, &[1, 0, 2]), &key, ""); // frames that changed places
    asked.add(&rebuilt(&one, &one, &[0, 0, 1, 2]), &key, ""); // a frame again
    asked.add(&rebuilt(&one, &one, &[1, 2]), &key, ""); // a frame less in front
    let end = one.len();
    for at in [9, 20, 60, 100, end / 2, end - 1] {
        let mut flipped = one.clone();
        flipped[at] ^= 1;
        asked.add(&flipped, &key, "");
    }
    let text = serde_json::to_string(&asked.all).unwrap();
    let answers = environment.run("telemetry_open.py", &[&text]).unwrap();
    let answers: Vec<Value> = serde_json::from_str(&answers).unwrap();
    assert_eq!(answers.len(), asked.all.len());
    assert_eq!(
        (&answers[0], &answers[1], &answers[2]),
        (&json!(plain), &json!(sampled), &json!(plain))
    );
    for (number, answer) in answers.iter().enumerate().skip(good) {
        assert!(answer.is_string(), "segment {number} opened: {answer}");
    }
}
