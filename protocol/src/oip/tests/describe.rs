use super::super::{ModelDescription, OutputForm, SequenceLimits, classify, parse_request};
use super::response;
use crate::id::Version;
use crate::infer::InferResponse;
use crate::manifest::TensorSpec;
use crate::tensor::{DataType, Tensor};
use crate::versions::VersionPolicy;

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: shape.to_vec() }
}

fn model(batch: i64) -> ModelDescription {
    ModelDescription {
        name: "m".parse().unwrap(),
        version: Version::FIRST,
        inputs: vec![spec("x", DataType::Fp32, &[batch, 3, 224, 224])],
        outputs: vec![spec("y", DataType::Fp32, &[batch, 3])],
        classes: Some("y".into()),
        labels: vec!["cat".into(), String::new()],
        instances: 2,
        kind: crate::wire::inference::model_instance_group::Kind::Auto,
        versions: vec![Version::FIRST],
        policy: VersionPolicy::default(),
        takes_sequences: false,
    }
}

#[test]
fn metadata_and_configuration_as_json() {
    let json = |model: &ModelDescription| {
        let metadata = serde_json::to_string(&model.metadata()).unwrap();
        format!(
            "{metadata}\n{}",
            serde_json::to_string_pretty(&model.config(SequenceLimits::default())).unwrap()
        )
    };
    insta::assert_snapshot!(format!("{}\n{}", json(&model(-1)), model(1).max_batch_size()));
}

#[test]
fn a_model_with_state_says_so() {
    let streams = ModelDescription { takes_sequences: true, ..model(-1) };
    let config = streams.config(SequenceLimits { count: 7, ..SequenceLimits::default() });
    let config = serde_json::to_value(config).unwrap();
    let expected = serde_json::json!({
        "max_sequence_idle_microseconds": 60_000_000,
        "oldest": { "max_candidate_sequences": 7, "preserve_ordering": true },
    });
    assert_eq!((&config["sequence_batching"], &config["max_batch_size"]), (&expected, &0.into()));
    let without = serde_json::to_value(model(-1).config(SequenceLimits::default())).unwrap();
    assert!(without.get("sequence_batching").is_none(), "clients look for the field's name");
}

#[test]
fn a_batch_fits_the_limits() {
    assert_eq!(model(-1).max_batch_size(), 111); // 64 MiB hold 111 images of 602,112 bytes
    let mut small = model(-1);
    small.inputs[0].shape = vec![-1, 64];
    assert_eq!(small.max_batch_size(), 4096);
    small.outputs[0].shape = vec![];
    assert_eq!(small.max_batch_size(), 0);
}

fn form(count: usize) -> OutputForm {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"UINT8","shape":[1],"data":[1]}}],"outputs":[{{"name":"y","parameters":{{"classification":{count}}}}}]}}"#
    );
    parse_request("m".parse().unwrap(), None, None, &json.into()).unwrap().form
}

fn classes(output: Tensor, count: usize, batch: i64) -> Result<String, String> {
    let mut answer = InferResponse { outputs: vec![output], ..response(0.0) };
    classify(&mut answer, &form(count), &model(batch)).map_err(|e| e.to_string())?;
    let output = &answer.outputs[0];
    let texts: Vec<_> =
        output.byte_elements().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect();
    Ok(format!("{:?} {}", output.shape(), texts.join(" ")))
}

#[test]
fn the_greatest_elements_with_their_labels() {
    let floats =
        |shape: &[i64], values: &[f32]| Tensor::from_f32("y", shape.to_vec(), values).unwrap();
    let batch = floats(&[2, 3], &[0.5, -1.0, 2.0, 7.0, 7.0, 0.0]);
    let expected = "[2, 2] 2.000000:2 0.500000:0:cat 7.000000:0:cat 7.000000:1";
    assert_eq!(classes(batch, 2, -1).unwrap(), expected);
    let single = floats(&[3], &[1.0, 3.0, 2.0]);
    assert_eq!(classes(single, 9, 3).unwrap(), "[3] 3.000000:1 2.000000:2 1.000000:0:cat");
    assert_eq!(classes(floats(&[0, 3], &[]), 2, -1).unwrap(), "[0, 0] ");
    let texts = Tensor::from_byte_strings("y", vec![1], &["a"]).unwrap();
    assert!(classes(texts, 1, -1).unwrap_err().contains("cannot be classified"));
}
