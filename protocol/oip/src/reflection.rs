//! gRPC reflection: programs like grpcurl learn the service from the server itself.

use axum::Router;
use tonic_reflection::server::{Builder, Error};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The routes of reflection, in both of its versions: clients still ask the older one first.
///
/// # Errors
/// The descriptors of this build are broken.
pub fn reflection() -> Result<Router, Error> {
    let builder = || Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS);
    let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    Ok(Router::new()
        .route_service("/grpc.reflection.v1.ServerReflection/{call}", v1)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{call}", v1alpha))
}
