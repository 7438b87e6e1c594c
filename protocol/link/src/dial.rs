//! Connections to a cloud, over whichever carrier answers: carries out what [`protocol::carrier`]
//! decides.

use crate::connection::{Connection, Ended};
use crate::proxy::{Proxy, ProxyError};
use crate::quic::{self, Life};
use crate::tcp::{self, Peer};
use protocol::carrier::{Carrier, Carriers, Plan, Wanted, alpn_over_tcp};
use protocol::mux::Side;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For one way to the cloud: name, socket, proxy and handshake.
const ATTEMPT_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name.
    #[error("{host} cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name has no address.
    #[error("{0} has no address")]
    NoAddress(String),
    /// No certificate can bear this name.
    #[error("no certificate can bear this name")]
    Name(#[from] InvalidDnsNameError),
    /// The socket.
    #[error("no UDP socket")]
    Socket(#[source] io::Error),
    /// The configuration.
    #[error("QUIC cannot be configured")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
    /// Nothing was sent.
    #[error("cannot connect")]
    Start(#[from] quinn::ConnectError),
    /// No connection over TCP.
    #[error("no connection over TCP")]
    Tcp(#[source] io::Error),
    /// The proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The handshake.
    #[error("{}", .0)]
    Ended(Ended),
}

impl DialError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Proxy(error) => error.hint(),
            _ => "",
        }
    }
}

/// Whom to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// A name or an address.
    pub host: String,
    /// The port, for UDP and TCP.
    pub port: u16,
    /// What the other end's certificate must bear.
    pub server_name: String,
}

impl Target {
    /// Its first address.
    ///
    /// # Errors
    /// [`DialError::Resolve`] or [`DialError::NoAddress`].
    pub async fn resolve(&self) -> Result<SocketAddr, DialError> {
        Ok(self.addresses().await?[0])
    }

    /// All of its addresses, at least one.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, DialError> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found =
            found.map_err(|source| DialError::Resolve { host: self.host.clone(), source })?;
        let found: Vec<SocketAddr> = found.collect();
        if found.is_empty() {
            return Err(DialError::NoAddress(self.host.clone()));
        }
        Ok(found)
    }
}

/// The ways to one cloud, and what is known of them.
#[derive(Debug)]
pub struct Dialler {
    carriers: Mutex<Carriers>,
    proxy: Option<Proxy>,
    /// How long a device's connection may be silent; nothing where signs of life are sent steadily.
    patience: Option<Duration>,
    /// Carries all connections over QUIC; else each has an endpoint of its own.
    shared: Option<quinn::Endpoint>,
}

impl Dialler {
    /// Nothing is known yet. A proxy is for TCP.
    pub fn new(wanted: Wanted, proxy: Option<Proxy>) -> Self {
        let carriers = Mutex::new(Carriers::new(wanted));
        Self { carriers, proxy, patience: None, shared: None }
    }

    /// Whoever dials gives the signs of life on a device's own connections, and lets them be silent for so long.
    #[must_use]
    pub fn paced(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    fn life(&self, tls: &rustls::ClientConfig) -> Life {
        let agents = tls.alpn_protocols.iter().any(|alpn| alpn == protocol::ALPN_AGENT);
        match self.patience {
            Some(patience) if agents => Life::Paced { patience },
            _ => Life::Steady,
        }
    }

    /// One of many in this process whose connections, over QUIC alone, share a UDP socket.
    pub fn sharing(endpoint: quinn::Endpoint) -> Self {
        Self { shared: Some(endpoint), ..Self::new(Wanted::Quic, None) }
    }

    fn carriers(&self) -> MutexGuard<'_, Carriers> {
        self.carriers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects, over whichever carrier answers first by the rules. `tls` has the protocol's name over
    /// QUIC.
    ///
    /// # Errors
    /// [`DialError`], of the carrier that is preferred unless that was only silent.
    pub async fn dial(
        &self,
        target: &Target,
        tls: &rustls::ClientConfig,
    ) -> Result<Connection, DialError> {
        let (Plan { first, then }, life) = (self.carriers().plan(), self.life(tls));
        let connected = match then {
            None => self.attempt(first, target, tls, life).await,
            Some((second, after)) => {
                let second = self.attempt(second, target, tls, life);
                let runner = self.attempt(first, target, tls, life);
                race(runner, second, after, first == Carrier::Quic).await
            }
        };
        connected.inspect(|connection| self.note(connection))
    }

    /// Connects over the same carrier as another connection, for as long as somebody uses it: with steady signs of life.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial_over(
        &self,
        carrier: Carrier,
        target: &Target,
        tls: &rustls::ClientConfig,
    ) -> Result<Connection, DialError> {
        self.attempt(carrier, target, tls, Life::Steady).await
    }

    fn note(&self, connection: &Connection) {
        let entropy = u64::from_le_bytes(crate::entropy());
        let (carrier, round_trip) = (connection.carrier(), connection.rtt());
        self.carriers().handle_connected(carrier, round_trip, entropy, Instant::now());
    }

    /// Waits until something better than `connection` is there, for ever if it is the best: tries QUIC
    /// beside TCP, again and again.
    pub async fn better(
        &self,
        connection: &Connection,
        target: &Target,
        tls: impl Fn() -> Option<rustls::ClientConfig>,
    ) -> Connection {
        loop {
            let probe_at = self.carriers().probe_at(Instant::now());
            let (Carrier::Tcp, Some(at)) = (connection.carrier(), probe_at) else {
                return std::future::pending().await;
            };
            tokio::time::sleep_until(at.into()).await;
            if let Some(tls) = tls()
                && let Ok(better) = self.attempt(Carrier::Quic, target, &tls, self.life(&tls)).await
            {
                self.note(&better);
                return better;
            }
            let entropy = u64::from_le_bytes(crate::entropy());
            self.carriers().handle_probe_failed(entropy, Instant::now());
        }
    }

    /// Why a connection is over this carrier.
    pub fn why(&self, carrier: Carrier) -> &'static str {
        self.carriers().why(carrier)
    }

    async fn attempt(
        &self,
        carrier: Carrier,
        target: &Target,
        tls: &rustls::ClientConfig,
        life: Life,
    ) -> Result<Connection, DialError> {
        let connecting = async {
            let tls = tls.clone();
            match carrier {
                Carrier::Quic => over_quic(target, tls, life, self.shared.as_ref()).await,
                Carrier::Tcp => over_tcp(target, tls, life, self.proxy.as_ref()).await,
            }
        };
        let connected = tokio::time::timeout(ATTEMPT_PATIENCE, connecting).await;
        connected.unwrap_or(Err(DialError::Ended(Ended::Silent)))
    }
}

/// The first success. The second begins after a while, or when the first has failed; not where the peer
/// itself has spoken, and is to be believed: over TCP it may have been somebody in between.
async fn race(
    first: impl Future<Output = Result<Connection, DialError>>,
    second: impl Future<Output = Result<Connection, DialError>>,
    after: Duration,
    believed: bool,
) -> Result<Connection, DialError> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let early = tokio::time::timeout(after, &mut first).await;
    let failed = match early {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    if let Some(first_error) = failed {
        return match first_error {
            DialError::Ended(Ended::Certificate(_) | Ended::ByPeer { .. }) if believed => {
                Err(first_error)
            }
            other => second.await.map_err(|second| telling(other, second)),
        };
    }
    tokio::select! {
        won = &mut first => match won {
            Ok(connection) => Ok(connection),
            Err(error) => second.await.map_err(|second| telling(error, second)),
        },
        won = &mut second => match won {
            Ok(connection) => Ok(connection),
            Err(error) => first.await.map_err(|first| telling(first, error)),
        },
    }
}

/// The error that says more: silence says least.
fn telling(first: DialError, second: DialError) -> DialError {
    match (&first, &second) {
        (DialError::Ended(Ended::Silent), DialError::Proxy(_) | DialError::Ended(_)) => second,
        (DialError::Tcp(_) | DialError::Proxy(_), DialError::Ended(_)) => second,
        _ => first,
    }
}

async fn over_quic(
    target: &Target,
    tls: rustls::ClientConfig,
    life: Life,
    shared: Option<&quinn::Endpoint>,
) -> Result<Connection, DialError> {
    let address = target.resolve().await?;
    let own = match shared {
        Some(_) => None,
        None => Some(quic::endpoint(address).map_err(DialError::Socket)?),
    };
    let endpoint = shared.or(own.as_ref()).expect("there is one of the two");
    let config = quic::client(tls, address, life)?;
    let connecting = endpoint.connect_with(config, address, &target.server_name)?;
    let connection = connecting.await.map_err(|ended| DialError::Ended(ended.into()))?;
    Ok(own.map_or_else(
        || connection.clone().into(),
        |own| Connection::of_client(connection.clone(), own),
    ))
}

async fn over_tcp(
    target: &Target,
    mut tls: rustls::ClientConfig,
    life: Life,
    proxy: Option<&Proxy>,
) -> Result<Connection, DialError> {
    let name = ServerName::try_from(target.server_name.clone())?;
    let known = |alpn: &Vec<u8>| alpn_over_tcp(alpn).map(<[u8]>::to_vec);
    tls.alpn_protocols = tls.alpn_protocols.iter().filter_map(known).collect();
    tls.enable_early_data = false;
    let stream = match proxy {
        Some(proxy) => proxy.connect(&target.host, target.port).await?,
        None => {
            let addresses = target.addresses().await?; // a wrong name is told from a closed port
            TcpStream::connect(addresses.as_slice()).await.map_err(DialError::Tcp)?
        }
    };
    tcp::tune(&stream);
    let address = stream.peer_addr().map_err(DialError::Tcp)?;
    let began = Instant::now();
    let connecting = TlsConnector::from(Arc::new(tls)).connect(name, stream);
    let stream = connecting.await.map_err(|error| DialError::Ended(tcp::lost(&error)))?;
    let round_trip = began.elapsed(); // TLS 1.3 takes one
    let peer = Peer::of(address, stream.get_ref().1);
    if peer.protocol.is_empty() {
        let why = "the server at this port does not speak Outrigger's protocol over TCP";
        return Err(DialError::Ended(Ended::Broken(why.into())));
    }
    Ok(tcp::Connection::start(stream, Side::Opens, peer, round_trip, life).into())
}
