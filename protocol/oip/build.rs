//! Generates the gRPC service over the messages that `outrigger-protocol` already holds.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let files = protox::compile(["inference.proto"], ["../proto"])?;
    tonic_prost_build::configure()
        .extern_path(".inference", "::protocol::wire::inference")
        .codec_path("crate::grpc::codec::BoundedCodec")
        .use_arc_self(true)
        .build_transport(false)
        .client_mod_attribute(".", "#[cfg(test)]")
        .compile_fds(files)?;
    Ok(())
}
