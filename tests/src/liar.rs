//! A device of the fleet that offers chunks to its site, and does not give what it should.

use crate::raw_link::identity;
use bytes::Bytes;
use link::connection::{Connection, RecvStream, SendStream};
use link::dial::{Dialler, Target};
use link::peer::Ends;
use link::{frames, tls};
use protocol::carrier::Wanted;
use protocol::problem::{Problem, ProblemCode};
use protocol::wire::{BlobHeader, BlobRequest, DesiredState, Hello, PeerOffer, ReportedState};
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// What it does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// As many bytes as were asked for, none of them right.
    WrongBytes,
    /// Another length than the file has.
    WrongSize,
    /// It announces the file, and sends nothing of it.
    Silence,
    /// It lets nobody in.
    Refusal,
}

/// A lying device, connected to the cloud until it is dropped.
pub struct Liar {
    _runtime: Runtime,
    _control: (Connection, SendStream, RecvStream),
}

impl Liar {
    /// Offers itself to the site, as the device whose state folder this is. `size_bytes` is what it says of every file.
    ///
    /// # Errors
    /// No identity there, or no connection.
    pub fn start(
        state_dir: &Path,
        cloud: &str,
        site: &str,
        (lie, size_bytes): (Lie, u64),
    ) -> anyhow::Result<Self> {
        let (ca, own) = identity(state_dir)?;
        let ends = Ends::new(std::slice::from_ref(&ca), own.clone())?;
        let tls = tls::client(&ca, Some(own), protocol::ALPN_AGENT)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let address: SocketAddr = cloud.parse()?;
        let host = address.ip().to_string();
        let target = Target { server_name: host.clone(), host, port: address.port() };
        let control = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let own = listener.local_addr()?;
            tokio::spawn(serve(listener, ends, (lie, size_bytes)));
            let connection = Dialler::new(Wanted::Tcp, None).dial(&target, &tls).await?;
            let (mut send, mut receive) = connection.open_bi().await?;
            let peer = Some(PeerOffer { site: site.to_owned(), address: own.to_string() });
            let reported = Some(ReportedState { peer, ..Default::default() });
            frames::send(&mut send, &Hello { reported, ..Default::default() }).await?;
            let _: DesiredState = frames::receive(&mut receive).await?; // it is taken
            anyhow::Ok((connection, send, receive))
        })?;
        Ok(Self { _runtime: runtime, _control: control })
    }
}

async fn serve(listener: TcpListener, ends: Ends, (lie, size_bytes): (Lie, u64)) {
    while let Ok((stream, _)) = listener.accept().await {
        let Ok((guest, _)) = ends.accept(stream).await else { continue };
        tokio::spawn(async move {
            while let Ok(streams) = guest.accept_bi().await {
                tokio::spawn(answer(streams, lie, size_bytes));
            }
        });
    }
}

async fn answer(
    (mut send, mut receive): (SendStream, RecvStream),
    lie: Lie,
    size_bytes: u64,
) -> anyhow::Result<()> {
    let asked: BlobRequest = frames::receive(&mut receive).await?;
    let header = BlobHeader { size_bytes, offset: asked.offset, ..Default::default() };
    match lie {
        Lie::WrongBytes => {
            frames::send(&mut send, &header).await?;
            for _ in 0..asked.length.div_ceil(1 << 14) {
                send.write_chunk(Bytes::from_static(&[7; 1 << 14])).await?;
            }
        }
        Lie::WrongSize => {
            let header = BlobHeader { size_bytes: size_bytes - 1, ..header };
            frames::send_last(&mut send, &header, []).await?;
        }
        Lie::Silence => {
            frames::send(&mut send, &header).await?;
            std::future::pending::<()>().await;
        }
        Lie::Refusal => {
            let problem = Problem::new(ProblemCode::Unauthorised, "not you");
            frames::send_last(&mut send, &protocol::wire::Problem::from(problem), []).await?;
        }
    }
    Ok(())
}
