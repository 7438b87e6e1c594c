//! The connection to the control node, kept up.

use super::nodes::Nodes;
use super::{CloudAddress, Link, Uplink, UplinkError, control, explained, time};
use crate::clock::Clock;
use crate::config;
use crate::counters::Counters;
use crate::identity::IdentityFiles;
use ::link::{quic, tls};
use edge::backoff::Backoff;
use protocol::problem::ProblemCode;
use protocol::wire::{DesiredState, ReportedState};
use quinn::Connection;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// How often the time is asked for on a connection that stays.
const TIME_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// Keeps the connection up.
pub(crate) struct Keeper {
    pub(crate) address: CloudAddress,
    pub(crate) identity: IdentityFiles,
    pub(crate) policy: config::Link,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<Clock>,
    /// Rung when the cloud takes this device's certificate for no good.
    pub(crate) renewal: Arc<Notify>,
    pub(crate) desired: watch::Sender<Option<DesiredState>>,
    pub(crate) reported: watch::Receiver<ReportedState>,
}

impl Keeper {
    /// The uplink, and the task that keeps it up until it is dropped.
    pub(crate) fn start(self) -> (Uplink, impl Future<Output = ()>) {
        let (sender, control) = watch::channel(None);
        let nodes = Nodes::open(&self.identity, self.policy.nodes, &self.clock, &self.counters);
        let uplink = Uplink { control: control.clone(), nodes: nodes.clone() };
        let keep_nodes = nodes.keep(self.desired.subscribe(), control);
        (uplink, async move {
            tokio::join!(self.run(sender), keep_nodes);
        })
    }

    async fn run(self, sender: watch::Sender<Option<Connection>>) {
        let cap = Duration::from_secs(self.policy.reconnect_max_s.max(1).into());
        let mut backoff = Backoff::new(Duration::from_millis(200), cap);
        loop {
            let why = match self.hold(&sender, &mut backoff).await {
                Ok(()) => "the cloud ended the control stream".to_owned(),
                Err(error) => {
                    if error.is_unauthorised() {
                        self.renewal.notify_one();
                    }
                    explained(&error)
                }
            };
            sender.send_replace(None);
            let delay = backoff.next_delay(u64::from_le_bytes(::link::entropy()));
            self.counters.disconnected(&self.address.to_string(), &why, delay.as_millis());
            tokio::time::sleep(delay).await;
        }
    }

    /// Connects and serves the control stream until the connection ends.
    async fn hold(
        &self,
        sender: &watch::Sender<Option<Connection>>,
        backoff: &mut Backoff,
    ) -> Result<(), UplinkError> {
        let (trust, own) = (tls::Trust::Ca(self.identity.ca()?), Some(self.identity.tls()?));
        let link = self.address.connect(trust, own, protocol::ALPN_AGENT, &self.clock).await?;
        let connection = &link.connection;
        let mut reported = self.reported.clone();
        let mut stream = control::open(connection, &mut reported).await?;
        // Only now is it known that the cloud accepts this device.
        self.desired.send_replace(Some(stream.first.clone()));
        sender.send_replace(Some(connection.clone()));
        backoff.reset();
        self.counters.connected(&self.address.to_string());
        let result = tokio::select! {
            result = control::serve(&mut stream, &self.desired, &mut reported) => result,
            () = self.keep_time(&link) => Ok(()),
        };
        quic::close(connection, ProblemCode::None, "");
        Ok(result?)
    }

    /// Counters drift and clouds' clocks are set, so a long connection asks again and again. What
    /// is refused is counted; the connection was good when it began.
    async fn keep_time(&self, link: &Link) {
        loop {
            tokio::time::sleep(TIME_PERIOD).await;
            let _ = time::settle(&link.connection, &link.ca, &self.clock).await;
        }
    }
}
