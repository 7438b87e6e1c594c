//! The connection to the control node, kept up. It brings what changed, takes back how this node is
//! and what was metered, and renews the certificate; without it the node goes on.

use link::connection::{Connection, SendStream};
use link::frames::{self, LinkError};
use link::{pki, tls};
use protocol::ALPN_NODE;
use protocol::id::ContentHash;
use protocol::problem::{ProblemCode, chain};
use protocol::wire::{EnrolReply, NodeHello, NodeReport, RenewRequest};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

use super::enrol::{JoinError, Way};
use super::files::{Files, FilesError};
use super::models::Models;
use super::{Renewed, chain_of, copy, usage};
use crate::state::{Cloud, now_s};
use crate::usage::FLUSH_EVERY;

/// Between two attempts, and as much again at random: nodes are few.
const PAUSE: Duration = Duration::from_secs(1);
/// How often the control node hears how this one is.
const REPORT_EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether the certificate is due.
const RENEW_LOOK_EVERY: Duration = Duration::from_secs(3600);
/// For the last words to the control node.
const FAREWELL: Duration = Duration::from_secs(2);

/// Keeps this node connected to its control node.
pub(crate) struct Keeper {
    cloud: Arc<Cloud>,
    files: Files,
    control: String,
    models: Models,
    /// Whether what is needed to answer is here.
    is_whole: AtomicBool,
    connection: Mutex<Option<Connection>>,
    /// Where agents reach this node, and what is done with a fresh certificate.
    serves: OnceLock<(String, Renewed)>,
}

impl Keeper {
    pub(super) fn new(
        cloud: Arc<Cloud>,
        files: Files,
        control: String,
        here: BTreeSet<ContentHash>,
    ) -> Self {
        Self {
            cloud,
            files,
            control,
            models: Models::new(here),
            is_whole: AtomicBool::new(false),
            connection: Mutex::default(),
            serves: OnceLock::new(),
        }
    }

    /// Runs until the control node shuts this node out.
    pub(crate) async fn run(self: Arc<Self>, advertise: String, renewed: Renewed) {
        let _ = self.serves.set((advertise, renewed)); // it is run once
        let way = match Way::to(&self.control) {
            Ok(way) => way,
            Err(error) => return self.cloud.events.control_lost(&self.control, &chain(&error)),
        };
        loop {
            let error = match self.hold(&way).await {
                Ok(()) => JoinError::Link(LinkError::Ended),
                Err(error) => error,
            };
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.note_contact(false).await;
            self.cloud.events.control_lost(&self.control, &chain(&error));
            if error.is_removal() {
                return;
            }
            let random = u64::from_le_bytes(link::entropy()) >> 11;
            let share = random as f64 / (1u64 << 53) as f64;
            tokio::time::sleep(PAUSE.mul_f64(1.0 + share)).await;
        }
    }

    /// Writes down that the control node was heard until now, if it was.
    async fn note_contact(&self, there: bool) {
        if self.cloud.control.judged_at_s() < now_s() {
            return; // it was away already
        }
        let heard_s = now_s();
        if !there {
            self.cloud.control.away_since(heard_s);
        }
        if let Err(error) = self.cloud.db.call(move |store| store.note_contact(heard_s)).await {
            self.cloud.events.internal_error(&error);
        }
    }

    fn tls(&self) -> Result<rustls::ClientConfig, JoinError> {
        Ok(tls::client(&self.files.ca()?, Some(self.files.identity()?), ALPN_NODE)?)
    }

    /// Connects, and stays until the connection, or the better one after it, has ended. Nobody waits
    /// for anything on it, so what is under way begins anew on the better one.
    async fn hold(&self, way: &Way) -> Result<(), JoinError> {
        let mut connection = way.connect(&self.tls()?).await?;
        loop {
            let (result, better) = tokio::select! {
                result = self.serve(&connection) => (result, None),
                better = way.better(&connection, || self.tls().ok()) => (Ok(()), Some(better)),
            };
            connection.close(ProblemCode::None, "");
            let Some(better) = better else { return result };
            connection = better;
        }
    }

    async fn serve(&self, connection: &Connection) -> Result<(), JoinError> {
        let followed = self.files.follow(&connection.peer_certificates())?;
        if !self.renew_if_due(connection).await? && followed {
            self.serve_renewed()?;
        }
        let (mut send, mut receive) = connection.open_bi().await?;
        let known = self.cloud.db.call(crate::store::Store::replica).await?;
        let hello = NodeHello {
            version: env!("CARGO_PKG_VERSION").into(),
            address: self.serves.get().map(|(address, _)| address.clone()).unwrap_or_default(),
            epoch: known.epoch,
            cursor: known.cursor,
        };
        frames::send(&mut send, &hello).await?;
        let follow = async {
            copy::next(&self.cloud, &mut receive).await?;
            // Only now is it known that the control node takes this node.
            self.cloud.control.back();
            self.cloud.events.control_connected(&self.control);
            *self.connection.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(connection.clone());
            self.models.wanted.notify_one();
            copy::follow(&self.cloud, &mut receive, &self.models.wanted).await
        };
        let fetched = Notify::new();
        tokio::select! {
            end = follow => end,
            end = self.models.keep(&self.cloud, connection, &fetched) => end,
            end = self.report(&mut send, &fetched) => end,
            end = self.deliver_usage(connection) => end,
            end = self.renew(connection) => end,
        }
    }

    async fn report(&self, send: &mut SendStream, fetched: &Notify) -> Result<(), JoinError> {
        let mut told = self.cloud.draining.subscribe();
        loop {
            let draining = *told.borrow_and_update();
            frames::send(send, &self.describe(draining)).await?;
            tokio::select! {
                () = tokio::time::sleep(REPORT_EVERY) => {}
                () = fetched.notified() => self.is_whole.store(true, Relaxed),
                _ = told.changed(), if !draining => {}
            }
        }
    }

    fn describe(&self, draining: bool) -> NodeReport {
        let cloud = &self.cloud;
        let (known, _) = cloud.serving.counts();
        NodeReport {
            requests_under_way: cloud.in_flight.count() as u64,
            wait_us: cloud.wait_us(),
            devices: cloud.online.len() as u64,
            models: known as u64,
            models_missing: self.models.missing(),
            draining,
            ready: self.is_whole.load(Relaxed) && cloud.is_ready(),
        }
    }

    async fn deliver_usage(&self, connection: &Connection) -> Result<(), JoinError> {
        loop {
            usage::deliver(&self.cloud, connection).await?;
            self.note_contact(true).await;
            tokio::time::sleep(FLUSH_EVERY).await;
        }
    }

    /// The last usage, when this node ends in order; without a control node it is kept.
    pub(crate) async fn say_goodbye(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = connection {
            let _ = tokio::time::timeout(FAREWELL, usage::deliver(&self.cloud, &connection)).await;
            connection.close(ProblemCode::None, "the node is stopping");
        }
    }

    async fn renew(&self, connection: &Connection) -> Result<(), JoinError> {
        loop {
            tokio::time::sleep(RENEW_LOOK_EVERY).await;
            let _ = self.renew_if_due(connection).await?;
        }
    }

    /// Renews where two thirds of the certificate's life are over, or another CA took the place of the one
    /// that has signed it. Whether it did.
    async fn renew_if_due(&self, connection: &Connection) -> Result<bool, JoinError> {
        let (identity, ca) = (self.files.identity()?, self.files.ca()?);
        let leaf = identity.chain.first().map(|leaf| pki::validity_s(leaf));
        let life = leaf.transpose().map_err(FilesError::from)?;
        let is_due = |(from_s, to_s): (i64, i64)| now_s() >= from_s + (to_s - from_s) / 3 * 2;
        let is_current = identity.chain.first().is_some_and(|leaf| pki::is_issued_by(leaf, &ca));
        if is_current && !life.is_none_or(is_due) {
            return Ok(false);
        }
        let (mut send, mut receive) = connection.open_bi().await?;
        let request = RenewRequest { agent_version: env!("CARGO_PKG_VERSION").into() };
        frames::send_last(&mut send, &request, []).await?;
        let reply: EnrolReply = frames::receive(&mut receive).await?;
        self.files.keep_chain(&chain_of(&reply.certificates))?;
        self.serve_renewed()?;
        Ok(true)
    }

    /// Serves with what the files hold now.
    fn serve_renewed(&self) -> Result<(), JoinError> {
        if let Some((_, renewed)) = self.serves.get()
            && let Err(error) = renewed(self.files.identity()?, self.files.cas()?)
        {
            self.cloud.events.internal_error(&error);
        }
        Ok(())
    }
}
