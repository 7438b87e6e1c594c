//! Those who call a cloud: programs with keys over HTTPS and gRPC, and devices over QUIC. Many of them
//! share one thread, so that they take little from a server on the same machine.

mod device;
mod grpc;
mod https;

pub use device::Device;
pub use grpc::Grpc;
pub use https::{Call, Https, Reply};

use crate::world::World;
use anyhow::Context;
use protocol::problem::Problem;
use protocol::tensor::Tensor;
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a cloud said: the outputs, or why there are none.
pub type Said = Result<Vec<Tensor>, Problem>;

/// Where a cloud is, whom to trust there, and a key for it.
#[derive(Clone)]
pub struct KeyHolder {
    /// The cloud.
    pub address: SocketAddr,
    tls: Arc<ClientConfig>,
    authorization: String,
}

impl KeyHolder {
    /// A holder of a new key of that tenant, which may ask everything.
    ///
    /// # Errors
    /// What the operator's command printed.
    pub fn new(world: &World, tenant: &str) -> anyhow::Result<Self> {
        world.operator.run(&["tenant", "set", tenant, "--model", "*"])?;
        let created = world
            .operator
            .json(&["key", "create", "--name", tenant, "--role", "client", "--tenant", tenant])?;
        let key = created["key"].as_str().context("no key")?;
        let pem = std::fs::read(world.cloud.data_dir().join("ca/ca.pem"))?;
        let ca = link::pki::chain_from_pem(&pem)?.remove(0);
        Ok(Self {
            address: world.cloud.address().parse()?,
            tls: Arc::new(link::tls::client(&ca, None, b"http/1.1")?),
            authorization: format!("Bearer {key}"),
        })
    }
}
