use super::*;
use std::collections::BTreeMap;

const TOKENIZER: &str = r#"{
    "version": "1.0", "added_tokens": [], "normalizer": null, "decoder": null,
    "pre_tokenizer": { "type": "Whitespace" },
    "truncation": { "max_length": 1, "strategy": "LongestFirst", "stride": 0 },
    "padding": { "strategy": { "Fixed": 7 }, "direction": "Left", "pad_to_multiple_of": null,
        "pad_id": 8, "pad_type_id": 5, "pad_token": "[P]" },
    "post_processor": { "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "[B]", "type_id": 0 } },
                   { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
        "special_tokens": { "[B]": { "id": "[B]", "ids": [9], "tokens": ["[B]"] } } },
    "model": { "type": "WordLevel", "unk_token": "u", "vocab": { "u": 1, "a": 2, "b": 3, "[B]": 9 } }
}"#;

fn build(datatype: DataType, len: i64, max_tokens: u32) -> Result<TextFeed, InvalidPipeline> {
    let names = ["ids", "mask", "types"];
    let spec = |name: &str| TensorSpec { name: name.into(), datatype, shape: vec![-1, len] };
    let parts = [Part::Ids, Part::Mask, Part::Types];
    let targets: BTreeMap<Part, String> = parts.into_iter().zip(names.map(str::to_owned)).collect();
    let steps = vec![Step::Tokenize { file: "t.json".into(), max_tokens }];
    let pipeline = Pipeline { input: "text".into(), targets, steps };
    let files = StepFiles::from([("t.json".to_owned(), TOKENIZER.into())]);
    TextFeed::new(&pipeline, &names.map(spec), &files)
}

/// The numbers of ids, mask and types.
fn check(feed: &TextFeed, texts: &[&str]) -> Vec<(Vec<i64>, Vec<f64>)> {
    let input = Tensor::from_byte_strings("text", vec![texts.len() as i64], texts).unwrap();
    let numbers = |t: Tensor| (t.shape().to_vec(), crate::numbers::to_f64(&t).unwrap());
    feed.apply(&input, &Moment::default()).unwrap().into_iter().map(numbers).collect()
}

#[test]
fn padded_to_the_longest_whatever_the_file_says() {
    for datatype in [DataType::Int64, DataType::Int32] {
        let feed = build(datatype, -1, 3).unwrap();
        let made = check(&feed, &["a", "a b a b"]);
        let shape = vec![2, 3];
        assert_eq!(made[0], (shape.clone(), vec![9.0, 2.0, 8.0, 9.0, 2.0, 3.0]));
        assert_eq!(made[1], (shape.clone(), vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0]));
        assert_eq!(made[2], (shape, vec![0.0, 0.0, 5.0, 0.0, 0.0, 0.0]));
    }
}

#[test]
fn padded_to_the_length_of_the_model() {
    let feed = build(DataType::Int64, 4, 512).unwrap();
    assert_eq!(check(&feed, &["a c"])[0], (vec![1, 4], vec![9.0, 2.0, 1.0, 8.0]));
    assert_eq!(check(&feed, &["a b a b a"])[0], (vec![1, 4], vec![9.0, 2.0, 3.0, 2.0]));
    assert_eq!(check(&feed, &[""])[1], (vec![1, 4], vec![1.0, 0.0, 0.0, 0.0]));
}

#[test]
fn pipelines_are_checked_at_load() {
    let refused = |datatype, len, max| build(datatype, len, max).unwrap_err();
    assert!(matches!(refused(DataType::Fp32, -1, 3), InvalidPipeline::Target { .. }));
    assert!(matches!(refused(DataType::Int64, 0, 3), InvalidPipeline::Size { .. }));
    assert!(matches!(refused(DataType::Int64, -1, 0), InvalidPipeline::Size { .. }));
    assert!(matches!(refused(DataType::Int64, -1, 1 << 20), InvalidPipeline::Size { .. }));
    for json in ["", "{}", "[]", &TOKENIZER[..400]] {
        let files = StepFiles::from([("t.json".to_owned(), json.into())]);
        let refused = open("t.json", &files, 8).err();
        assert!(matches!(refused, Some(InvalidPipeline::Tokenizer { .. })), "{json}");
    }
}

#[test]
fn no_room_for_more_than_the_marks() {
    let feed = build(DataType::Int64, -1, 1).unwrap();
    assert_eq!(check(&feed, &["a b"])[0], (vec![1, 1], vec![9.0]));
}
