//! Compiles the ONNX format with protox, so that no `protoc` has to be installed, and writes down
//! which fields it has: the scan of untrusted bytes before they are parsed reads that table.

use prost_types::{DescriptorProto, FileDescriptorSet};
use std::fmt::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/onnx.proto"], ["proto"])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("onnx_fields.rs"), table(&files)?)?;
    prost_build::Config::new()
        .bytes(["."]) // weights are slices of the file
        .compile_fds(files)?;
    Ok(())
}

/// All messages with their fields, as Rust: name, then number and index of the message inside.
fn table(files: &FileDescriptorSet) -> Result<String, std::fmt::Error> {
    let mut messages = Vec::new();
    for file in &files.file {
        let package = format!(".{}", file.package());
        file.message_type.iter().for_each(|message| collect(&package, message, &mut messages));
    }
    let index = |name: &str| messages.iter().position(|(other, _)| other == name);
    let mut text = String::from("pub(super) static MESSAGES: &[Message] = &[\n");
    for (name, message) in &messages {
        writeln!(text, "    Message {{ name: {:?}, fields: &[", name.trim_start_matches(".onnx."))?;
        for field in &message.field {
            let inner = field.type_name.as_deref().and_then(index);
            writeln!(
                text,
                "        Field {{ number: {}, name: {:?}, message: {inner:?} }},",
                field.number(),
                field.name()
            )?;
        }
        text.push_str("    ] },\n");
    }
    text.push_str("];\n");
    let root = index(".onnx.ModelProto").ok_or(std::fmt::Error)?;
    let graph = index(".onnx.GraphProto").ok_or(std::fmt::Error)?;
    writeln!(
        text,
        "pub(super) const MODEL: usize = {root};\npub(super) const GRAPH: usize = {graph};"
    )?;
    Ok(text)
}

fn collect<'d>(
    prefix: &str,
    message: &'d DescriptorProto,
    messages: &mut Vec<(String, &'d DescriptorProto)>,
) {
    let name = format!("{prefix}.{}", message.name());
    messages.push((name.clone(), message));
    message.nested_type.iter().for_each(|nested| collect(&name, nested, messages));
}
