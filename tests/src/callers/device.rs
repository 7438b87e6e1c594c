//! An enrolled device that asks the cloud itself, without an agent: one connection, over QUIC or TCP, a
//! stream for each request.

use super::Said;
use crate::world::{Agent, World};
use link::connection::Connection;
use link::dial::{Dialler, Target};
use link::frames::{self, LinkError};
use link::{pki, tls};
use protocol::carrier::Wanted;
use protocol::id::Version;
use protocol::infer::InferRequest;
use protocol::transport::Parcel;
use protocol::wire;
use std::net::SocketAddr;
use std::path::Path;

/// A connected device.
#[derive(Clone)]
pub struct Device {
    connection: Connection,
}

impl Device {
    /// Enrols a device of that name, and connects as it.
    ///
    /// # Errors
    /// It is refused.
    pub async fn enrol(world: &World, name: &str) -> anyhow::Result<Self> {
        Self::enrol_over(Wanted::Quic, world, name).await
    }

    /// The same over a carrier of choice.
    ///
    /// # Errors
    /// It is refused.
    pub async fn enrol_over(wanted: Wanted, world: &World, name: &str) -> anyhow::Result<Self> {
        let (folder, cloud) = (world.folder().join(name), world.cloud.address());
        Agent::enrol(&folder, &cloud, &world.token()?)?;
        Self::connect(wanted, &folder, &cloud).await
    }

    /// Connects as the device whose state folder this is.
    ///
    /// # Errors
    /// No identity there, or it is refused.
    pub async fn connect(wanted: Wanted, folder: &Path, cloud: &str) -> anyhow::Result<Self> {
        Self::connect_to(wanted, folder, cloud, "localhost").await
    }

    /// The same to a node whose certificate bears this name.
    ///
    /// # Errors
    /// No identity there, or it is refused.
    pub async fn connect_to(
        wanted: Wanted,
        folder: &Path,
        cloud: &str,
        name: &str,
    ) -> anyhow::Result<Self> {
        let read = |name: &str| std::fs::read(folder.join(name));
        let ca = pki::chain_from_pem(&read("ca.pem")?)?.remove(0);
        let chain = pki::chain_from_pem(&read("device.pem")?)?;
        let key = pki::key_from_pem(&read("device.key")?)?;
        let tls =
            tls::client(&ca, Some(tls::Identity { chain, key: key.into() }), protocol::ALPN_AGENT)?;
        let address: SocketAddr = cloud.parse()?;
        let (host, server_name) = (address.ip().to_string(), name.to_owned());
        let target = Target { host, port: address.port(), server_name };
        Ok(Self { connection: Dialler::new(wanted, None).dial(&target, &tls).await? })
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
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
        let parcel = Parcel::raw(&request.inputs);
        let open = wire::infer_open(request, &parcel, version, deadline_ms);
        let _ = frames::send_last(&mut send, &open, parcel.pieces()).await; // refused before all was taken
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
