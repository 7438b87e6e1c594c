//! The standard over gRPC.

mod codec;
mod early;
mod refused;
mod service;

use crate::Inference;
use axum::Router;
use protocol::limits::TENSORS_MAX_BYTES;
use protocol::problem::{Problem, ProblemCode};
use service::Service;
use std::sync::Arc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
mod generated {
    tonic::include_proto!("inference");
}
#[cfg(test)]
pub(crate) use generated::grpc_inference_service_client::GrpcInferenceServiceClient as Client;
use generated::grpc_inference_service_server::GrpcInferenceServiceServer as Server;

/// The tensors of one message at most, and a mebibyte for all that is said about them.
#[allow(clippy::cast_possible_truncation)] // 64 MiB
const MESSAGE_MAX_BYTES: usize = TENSORS_MAX_BYTES as usize + (1 << 20);

/// The calls that are served; any other of the service is answered as one that is not.
const CALLS: [&str; 12] = [
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
];

/// The routes. Compressed requests are taken; answers are not compressed, because gRPC clients
/// announce every compression that they know, whether they want it or not.
pub(crate) fn routes<I: Inference>(inference: Arc<I>) -> Router {
    let gate = axum::middleware::from_fn_with_state(inference.clone(), refused::measure::<I>);
    let server = Server::new(Service(inference))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Deflate)
        .max_decoding_message_size(MESSAGE_MAX_BYTES)
        .max_encoding_message_size(MESSAGE_MAX_BYTES);
    let routes = CALLS.iter().fold(Router::new(), |router, call| {
        router.route_service(&format!("/inference.GRPCInferenceService/{call}"), server.clone())
    });
    routes.route_layer(gate)
}

/// The word for a problem's kind, beside the status: several kinds share one gRPC code.
const CODE_KEY: &str = "outrigger-code";

/// gRPC's code for a problem.
pub(crate) fn code_of(code: ProblemCode) -> Code {
    match code {
        ProblemCode::InvalidRequest | ProblemCode::Protocol => Code::InvalidArgument,
        ProblemCode::NotFound => Code::NotFound,
        ProblemCode::TooLarge => Code::ResourceExhausted,
        ProblemCode::Unauthorised => Code::PermissionDenied,
        ProblemCode::Overloaded | ProblemCode::Unreachable | ProblemCode::GoingAway => {
            Code::Unavailable
        }
        ProblemCode::DeadlineExceeded => Code::DeadlineExceeded,
        ProblemCode::InferenceFailed | ProblemCode::Internal | ProblemCode::None => Code::Internal,
    }
}

/// The gRPC answer to a problem.
pub(crate) fn status_of(problem: &Problem) -> Status {
    let mut status = Status::new(code_of(problem.code), problem.to_string());
    let word = MetadataValue::from_static(problem.code.as_str());
    status.metadata_mut().insert(CODE_KEY, word);
    if problem.retry_after_ms > 0 {
        let wait = MetadataValue::from(problem.retry_after_ms);
        status.metadata_mut().insert("grpc-retry-pushback-ms", wait);
    }
    status
}
