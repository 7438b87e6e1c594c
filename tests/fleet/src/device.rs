//! One device: it is connected, or waits to be, for ever.

use crate::counts::Counters;
use crate::enrolment::{Member, clock, settle};
use crate::evidence::Counting;
use crate::fleet::{FleetError, Place};
use edge::backoff::Backoff;
use edge::pulse::{Action, PATIENCE_PULSES, PULSE_MAX, Pulse, Seen};
use edge::time::DeviceTime;
use link::connection::{Connection, Ended};
use link::device::{ControlStream, Told};
use link::dial::Dialler;
use link::frames::{self, LinkError};
use link::tls::{self, Trust};
use protocol::ALPN_AGENT;
use protocol::problem::ProblemCode;
use protocol::wire::{self, DesiredState, Hello, NodeState, ReportedState};
use rustls::client::Resumption;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The agent's waits between two attempts: from here...
const RECONNECT_MIN: Duration = Duration::from_millis(200);
/// ...to what `[link] reconnect_max_s` is unless said otherwise.
const RECONNECT_MAX: Duration = Duration::from_secs(30);

/// How long an agent lets its connections be silent.
pub(crate) const PATIENCE: Duration = PULSE_MAX.saturating_mul(PATIENCE_PULSES);

/// A member of the fleet at work.
pub(crate) struct Device {
    pub(crate) member: Member,
    pub(crate) place: Arc<Place>,
    pub(crate) dialler: Dialler,
    pub(crate) counters: Arc<Counters>,
    pub(crate) desired: watch::Sender<Option<DesiredState>>,
    pub(crate) reported: watch::Receiver<ReportedState>,
    pub(crate) connection: watch::Sender<Option<Connection>>,
    pub(crate) counting: Arc<Counting>,
}

impl Device {
    /// Keeps the connection up until the task is dropped.
    pub(crate) async fn run(mut self) -> Result<(), FleetError> {
        let tls = self.tls()?;
        let mut clock = clock();
        let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
        loop {
            let why = match self.hold(&tls, &mut clock, &mut backoff).await {
                Ok(()) => "the cloud ended the control stream".to_owned(),
                Err(error) => protocol::problem::chain(&error),
            };
            self.connection.send_replace(None);
            self.counters.lost(why);
            tokio::time::sleep(backoff.next_delay(u64::from_le_bytes(link::entropy()))).await;
        }
    }

    /// As an agent has it, which makes its configuration anew for each connection and so resumes no session.
    fn tls(&self) -> Result<rustls::ClientConfig, FleetError> {
        let Member { identity, ca, .. } = &self.member;
        let trust = Trust::Ca(vec![ca.clone()]);
        let mut tls = tls::agent(trust, Some(identity.clone()), ALPN_AGENT)?;
        tls.resumption = Resumption::disabled();
        Ok(tls)
    }

    async fn hold(
        &mut self,
        tls: &rustls::ClientConfig,
        clock: &mut DeviceTime,
        backoff: &mut Backoff,
    ) -> Result<(), FleetError> {
        let connection = self.dialler.dial(&self.place.target(), tls).await?;
        let served = self.serve(&connection, clock, backoff).await;
        connection.close(ProblemCode::None, "");
        served
    }

    async fn serve(
        &mut self,
        connection: &Connection,
        clock: &mut DeviceTime,
        backoff: &mut Backoff,
    ) -> Result<(), FleetError> {
        settle(connection, &self.member.ca, clock).await?;
        let hello = Hello {
            agent_version: env!("CARGO_PKG_VERSION").into(),
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            reported: Some(said(&self.reported.borrow_and_update())),
        };
        let mut stream = ControlStream::open(connection, &hello).await?;
        self.desired.send_replace(Some(std::mem::take(&mut stream.first)));
        self.connection.send_replace(Some(connection.clone()));
        self.counters.heard_desired();
        backoff.reset();
        let counters = self.counters.clone();
        let _connected = counters.connected();
        let mut told = Told::new(self.counting.clone(), self.desired.subscribe());
        let Self { desired, reported, .. } = self;
        tokio::select! {
            end = stream.serve(desired, reported, said, &mut told) => Ok(end?),
            end = pulse(connection) => Ok(end?),
        }
    }
}

/// What is reported, with why it comes over QUIC.
fn said(state: &ReportedState) -> ReportedState {
    ReportedState { carrier_reason: "configured".into(), ..state.clone() }
}

/// The stream on which an agent hears how the node is, and its signs of life. Nothing is asked of the node here.
async fn pulse(connection: &Connection) -> Result<(), LinkError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    frames::send(&mut send, &wire::Pulse {}).await?;
    let patience_ms = AtomicU32::new(0);
    let listen = async {
        loop {
            let state: NodeState = frames::receive(&mut receive).await?;
            patience_ms.store(state.patience_ms, Relaxed);
        }
    };
    let beat = async {
        let seen = || Seen {
            heard: connection.heard(),
            challenges: connection.challenges(),
            round_trip: connection.rtt(),
            carrier: connection.carrier(),
            waiting: false,
            patience: Duration::from_millis(patience_ms.load(Relaxed).into()),
        };
        let mut pulse = Pulse::new(PULSE_MAX, &seen(), Instant::now());
        loop {
            tokio::time::sleep_until(pulse.poll_timeout().into()).await;
            match pulse.look(&seen(), Instant::now()) {
                Some(Action::Nudge | Action::Ask) => connection.nudge(),
                Some(Action::Dead) => return Err(Ended::Silent.into()),
                Some(Action::ChangePath) | None => {} // all share a port
            }
        }
    };
    tokio::select! { end = listen => end, end = beat => end }
}
