mod fake;
mod grpc;
mod http;
mod sockets;
