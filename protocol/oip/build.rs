//! Generates the gRPC service over the messages that `outrigger-protocol` already holds, and what
//! reflection says about it.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let files = protox::compile(["inference.proto"], ["../proto"])?;
    let folder = std::env::var("OUT_DIR")?;
    std::fs::write(format!("{folder}/descriptors.bin"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".inference", "::protocol::wire::inference")
        .codec_path("crate::grpc::codec::BoundedCodec")
        .use_arc_self(true)
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(test)]")
        .compile_fds(files)?;
    Ok(())
}
