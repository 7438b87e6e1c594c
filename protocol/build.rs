//! Compiles the .proto files with protox, so that no `protoc` has to be installed.

/// Messages that are HTTP bodies as well: the standard's JSON has the names of their fields.
const JSON_BODIES: [&str; 14] = [
    "ServerMetadataResponse",
    "ModelMetadataResponse",
    "ModelConfig",
    "ModelInput",
    "ModelOutput",
    "ModelInstanceGroup",
    "ModelVersionPolicy",
    "ModelTransactionPolicy",
    "ModelSequenceBatching",
    "ModelStatistics",
    "InferStatistics",
    "InferBatchStatistics",
    "StatisticDuration",
    "RepositoryIndexResponse.ModelIndex",
];

/// Fields that hold a number here and its name in JSON.
const NAMED_VALUES: [(&str, &str); 4] = [
    ("ModelInput.data_type", "DataType"),
    ("ModelInput.format", "model_input::Format"),
    ("ModelOutput.data_type", "DataType"),
    ("ModelInstanceGroup.kind", "model_instance_group::Kind"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        ["proto/outrigger.proto", "proto/inference.proto", "proto/otlp.proto"],
        ["proto"],
    )?;
    let mut config = prost_build::Config::new();
    config
        .bytes(["."]) // zero-copy slices of the received frame
        .btree_map(["."]); // one byte sequence per message, so that golden bytes can exist
    for message in JSON_BODIES {
        config.message_attribute(format!(".inference.{message}"), "#[derive(serde::Serialize)]");
    }
    for choice in ["latest", "all", "specific"] {
        let absent = r#"#[serde(skip_serializing_if = "Option::is_none")]"#;
        config.field_attribute(format!(".inference.ModelVersionPolicy.{choice}"), absent);
    }
    for (field, names) in NAMED_VALUES {
        let with = format!("super::json_name::<{names}, _>");
        let attribute = format!("#[serde(serialize_with = {with:?})]");
        config.field_attribute(format!(".inference.{field}"), attribute);
    }
    // Clients take the field itself for the word that a model takes sequences.
    let absent = "#[serde(skip_serializing_if = \"Option::is_none\")]";
    config.field_attribute(".inference.ModelConfig.sequence_batching", absent);
    config.compile_fds(files)?;
    Ok(())
}
