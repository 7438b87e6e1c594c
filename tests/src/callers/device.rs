//! An enrolled device that asks the cloud itself, without an agent: one QUIC connection, a stream for
//! each request.

use super::Said;
use crate::world::{Agent, World};
use link::frames::{self, LinkError};
use link::{pki, quic, tls};
use protocol::id::Version;
use protocol::infer::InferRequest;
use protocol::wire;
use quinn::{Connection, Endpoint};

/// A connected device.
#[derive(Clone)]
pub struct Device {
    connection: Connection,
    _endpoint: Endpoint,
}

impl Device {
    /// Enrols a device of that name, and connects as it.
    ///
    /// # Errors
    /// It is refused.
    pub async fn enrol(world: &World, name: &str) -> anyhow::Result<Self> {
        let (folder, cloud) = (world.folder().join(name), world.cloud.address());
        Agent::enrol(&folder, &cloud, &world.token()?)?;
        let read = |name: &str| std::fs::read(folder.join(name));
        let ca = pki::chain_from_pem(&read("ca.pem")?)?.remove(0);
        let chain = pki::chain_from_pem(&read("device.pem")?)?;
        let key = pki::key_from_pem(&read("device.key")?)?;
        let tls = tls::client(&ca, Some(tls::Identity { chain, key }), protocol::ALPN_AGENT)?;
        let address = cloud.parse()?;
        let endpoint = quic::endpoint(quic::local_address_for(address))?;
        let config = quic::client(tls)?;
        let connection = endpoint.connect_with(config, address, "localhost")?.await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// Asks once.
    ///
    /// # Errors
    /// The connection breaks, or the cloud breaks the protocol.
    pub async fn ask(
        &self,
        request: &InferRequest,
        version: Version,
        deadline_ms: u32,
    ) -> anyhow::Result<Said> {
        let (mut send, mut recv) = self.connection.open_bi().await?;
        let open = wire::infer_open(request, version, deadline_ms);
        let raw = request.inputs.iter().map(|input| input.data().clone());
        let _ = frames::send_last(&mut send, &open, raw).await; // refused before all was taken
        let reply = match frames::receive::<wire::InferReply>(&mut recv).await {
            Ok(reply) => reply,
            Err(LinkError::Refused(problem)) => return Ok(Err(problem)),
            Err(other) => return Err(other.into()),
        };
        let pending = wire::PendingReply::from_reply(reply)?;
        let data = frames::receive_raw(&mut recv, &pending.tensor_sizes).await?;
        Ok(Ok(pending.with_data(data)?))
    }
}
