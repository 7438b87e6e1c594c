//! Compiles the .proto files with protox, so that no `protoc` has to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/outrigger.proto", "proto/inference.proto"], ["proto"])?;
    prost_build::Config::new()
        .bytes(["."]) // zero-copy slices of the received frame
        .btree_map(["."]) // one byte sequence per message, so that golden bytes can exist
        .compile_fds(files)?;
    Ok(())
}
