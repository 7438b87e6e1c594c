//! What happens inside the server: each event is logged and counted in one place, so that logs and
//! numbers cannot drift apart.

use crate::deltas::Key;
use crate::garbage::Swept;
use link::counter::Counter;
use protocol::carrier::Carrier;
use protocol::id::{ContentHash, DeviceId, NodeId, RolloutId};
use protocol::problem::{Problem, chain};
use serde::Serialize;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// The events' counters since the start.
        #[derive(Debug, Default)]
        pub struct Events {
            $($name: Counter,)*
        }

        /// The counters at one moment.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        pub struct Counts {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Events {
            /// The counters now.
            pub fn counts(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }

            /// Each counter: its name, what it counts, and its number now.
            pub fn described(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![$((stringify!($name), concat!($($doc),*), self.$name.get()),)*]
            }
        }
    };
}

counters! {
    /// Connections of agents and nodes whose handshake ended well.
    connections_accepted,
    /// Of them, those over TCP, because no UDP gets through.
    connections_over_tcp,
    /// Certificates renewed.
    renewals,
    /// Connections of agents and nodes refused because there were too many.
    connections_refused,
    /// Addresses that were asked to prove that they receive, before anything else was sent to them.
    addresses_asked_for_proof,
    /// Their handshakes that failed or took too long.
    handshakes_failed,
    /// Agents without a valid identity.
    agents_unauthorised,
    /// Connections closed because the agent broke the protocol.
    protocol_errors,
    /// Certificates handed out.
    enrolments,
    /// Requests to enrol that were refused.
    enrolments_refused,
    /// Times signed for devices.
    times_signed,
    /// Questions for the time that were refused: wrong, or too many.
    times_refused,
    /// Inference requests.
    requests,
    /// Inference requests that were answered.
    requests_answered,
    /// Inference requests that were refused before they ran: wrong, unknown, or too many.
    requests_refused,
    /// Inference requests that failed or came too late.
    requests_failed,
    /// Inference requests that the agent gave up.
    requests_cancelled,
    /// Blobs and deltas sent to agents, or what was asked of them.
    blobs_sent,
    /// Segments of telemetry that are kept.
    telemetry_segments,
    /// The records in them, as devices say.
    telemetry_records,
    /// Batches of telemetry that had to wait: no room in memory, or on the disk.
    telemetry_put_off,
    /// Segments that were refused: damaged, or another device's.
    telemetry_refused,
    /// Segments that were kept for long enough.
    telemetry_expired,
    /// Bytes of blobs sent to agents.
    blob_bytes_sent,
    /// Deltas made.
    deltas_made,
    /// Deltas that would have saved too little.
    deltas_useless,
    /// Deltas that could not be made.
    deltas_failed,
    /// Files that nothing named any more, and that were removed.
    blobs_swept,
    /// Their bytes.
    blob_bytes_swept,
    /// Blobs that were refused to agents.
    blobs_refused,
    /// Steps of roll-outs.
    rollout_steps,
    /// Offers of devices to carry chunks for their site that were not taken.
    peers_refused,
    /// Calls over HTTPS that failed to say who calls more often than an address may.
    api_throttled,
    /// Requests whose usage was not metered, because there were too many different callers.
    usages_lost,
    /// Calls over HTTPS without a valid key.
    api_unauthorised,
    /// Calls over HTTPS beyond the key's role or models.
    api_forbidden,
    /// Operators who signed in through the provider.
    sign_ins,
    /// Sign-ins that were refused: wrong, or of somebody without a role.
    sign_ins_refused,
    /// Sign-ins that failed because of the provider.
    sign_ins_failed,
    /// Connections of inference nodes without a valid identity.
    nodes_refused,
    /// Times that an inference node lost its control node, or did not reach it.
    control_losses,
    /// Changes at the control node that an inference node took over.
    copies,
    /// Faults of the server itself.
    internal_errors,
}

impl Events {
    pub(crate) fn connection_accepted(&self, remote: SocketAddr, carrier: Carrier) {
        self.connections_accepted.add(1);
        self.connections_over_tcp.add(u64::from(carrier == Carrier::Tcp));
        tracing::debug!(%remote, carrier = carrier.as_str(), "connection accepted");
    }

    /// Not logged: there may be thousands of them.
    pub(crate) fn address_asked_for_proof(&self) {
        self.addresses_asked_for_proof.add(1);
    }

    pub(crate) fn connection_refused(&self, remote: SocketAddr) {
        self.connections_refused.add(1);
        tracing::warn!(%remote, "connection refused: too many are open");
    }

    pub(crate) fn handshake_failed(&self, remote: SocketAddr, error: &dyn Display) {
        self.handshakes_failed.add(1);
        tracing::debug!(%remote, %error, "handshake failed");
    }

    pub(crate) fn agent_unauthorised(&self, remote: SocketAddr, reason: &str) {
        self.agents_unauthorised.add(1);
        tracing::warn!(%remote, reason, "agent refused");
    }

    pub(crate) fn agent_connected(&self, device: &DeviceId, remote: SocketAddr) {
        tracing::info!(%device, %remote, "agent connected");
    }

    pub(crate) fn agent_disconnected(&self, device: &DeviceId, reason: &dyn Display) {
        tracing::info!(%device, %reason, "agent disconnected");
    }

    pub(crate) fn protocol_error(&self, remote: SocketAddr, error: &dyn Display) {
        self.protocol_errors.add(1);
        tracing::warn!(%remote, %error, "the peer broke the protocol");
    }

    pub(crate) fn enrolled(&self, device: &DeviceId, hostname: &str) {
        self.enrolments.add(1);
        tracing::info!(%device, hostname, "device enrolled");
    }

    pub(crate) fn renewed(&self, holder: &dyn Display) {
        self.renewals.add(1);
        tracing::info!(%holder, "certificate renewed");
    }

    pub(crate) fn enrolment_refused(&self, remote: SocketAddr, problem: &Problem) {
        self.enrolments_refused.add(1);
        tracing::warn!(%remote, %problem, "enrolment refused");
    }

    pub(crate) fn signed_in(&self, person: &dyn Display, key: &str, role: &dyn Display) {
        self.sign_ins.add(1);
        tracing::info!(%person, key, %role, "signed in");
    }

    /// Says who it is only where the provider has.
    pub(crate) fn sign_in_refused(&self, remote: IpAddr, why: &dyn Display, subject: &str) {
        self.sign_ins_refused.add(1);
        tracing::warn!(%remote, %why, subject, "sign-in refused");
    }

    pub(crate) fn sign_in_failed(&self, why: &dyn Display) {
        self.sign_ins_failed.add(1);
        tracing::warn!(%why, "sign-in failed");
    }

    pub(crate) fn node_joined(&self, node: &NodeId, hostname: &str) {
        self.enrolments.add(1);
        tracing::info!(%node, hostname, "node joined");
    }

    pub(crate) fn node_refused(&self, remote: SocketAddr, reason: &str) {
        self.nodes_refused.add(1);
        tracing::warn!(%remote, reason, "node refused");
    }

    pub(crate) fn node_connected(&self, node: &NodeId, remote: SocketAddr) {
        tracing::info!(%node, %remote, "node connected");
    }

    pub(crate) fn node_disconnected(&self, node: &NodeId, reason: &dyn Display) {
        tracing::warn!(%node, %reason, "node disconnected");
    }

    pub(crate) fn control_connected(&self, control: &str) {
        tracing::info!(control, "connected to the control node");
    }

    pub(crate) fn control_lost(&self, control: &str, why: &str) {
        self.control_losses.add(1);
        tracing::warn!(control, why, "the control node is away; serving from what is known");
    }

    pub(crate) fn copied(&self, cursor: u64) {
        self.copies.add(1);
        tracing::debug!(cursor, "took over what changed at the control node");
    }

    pub(crate) fn model_missing(&self, model: &dyn Display, why: &str) {
        tracing::warn!(%model, why, "a cloud variant is not here yet");
    }

    pub(crate) fn time_signed(&self) {
        self.times_signed.add(1);
    }

    pub(crate) fn time_refused(&self, remote: SocketAddr, problem: &Problem) {
        self.times_refused.add(1);
        tracing::warn!(%remote, %problem, "the time was not told");
    }

    pub(crate) fn request_arrived(&self) {
        self.requests.add(1);
    }

    pub(crate) fn request_answered(&self) {
        self.requests_answered.add(1);
    }

    pub(crate) fn request_refused(&self, asker: &dyn Display, problem: &Problem) {
        self.requests_refused.add(1);
        tracing::debug!(%asker, %problem, "request refused");
    }

    pub(crate) fn request_failed(&self, asker: &dyn Display, problem: &Problem) {
        self.requests_failed.add(1);
        tracing::warn!(%asker, %problem, "request failed");
    }

    pub(crate) fn request_cancelled(&self) {
        self.requests_cancelled.add(1);
    }

    pub(crate) fn blob_sent(&self, asker: &dyn Display, blob: ContentHash, bytes: u64) {
        self.blobs_sent.add(1);
        self.blob_bytes_sent.add(bytes);
        tracing::debug!(%asker, %blob, bytes, "blob sent");
    }

    pub(crate) fn blob_refused(&self, asker: &dyn Display, problem: &Problem) {
        self.blobs_refused.add(1);
        tracing::warn!(%asker, %problem, "blob refused");
    }

    pub(crate) fn rollout_stepped(&self, id: &RolloutId, what: &str) {
        self.rollout_steps.add(1);
        tracing::info!(rollout = %id, what, "a roll-out goes on");
    }

    pub(crate) fn peer_refused(&self, device: &DeviceId, why: &str) {
        self.peers_refused.add(1);
        tracing::warn!(%device, why, "a device is no peer of its site");
    }

    pub(crate) fn delta_made(&self, key: &Key, bytes: u64, of: u64, took: Duration) {
        self.deltas_made.add(1);
        let (target, took_ms) = (key.target, took.as_millis());
        tracing::info!(target_file = %target, bytes, of, took_ms, packed = key.base.is_none(), "a delta was made");
    }

    pub(crate) fn delta_useless(&self, key: &Key, bytes: u64, of: u64) {
        self.deltas_useless.add(1);
        tracing::debug!(target_file = %key.target, bytes, of, "a delta saves too little");
    }

    pub(crate) fn delta_not_made(&self, key: &Key, why: &str) {
        self.deltas_failed.add(1);
        tracing::warn!(target_file = %key.target, why, "a delta cannot be made");
    }

    pub(crate) fn blobs_swept(&self, swept: Swept) {
        let Swept { count, bytes } = swept;
        self.blobs_swept.add(count);
        self.blob_bytes_swept.add(bytes);
        if count > 0 {
            tracing::info!(count, bytes, "files that nothing names any more were removed");
        }
    }

    pub(crate) fn telemetry_taken(&self, segments: u64, records: u64) {
        self.telemetry_segments.add(segments);
        self.telemetry_records.add(records);
    }

    pub(crate) fn telemetry_put_off(&self, device: &DeviceId) {
        self.telemetry_put_off.add(1);
        tracing::debug!(%device, "telemetry has to wait");
    }

    pub(crate) fn telemetry_refused(&self, device: &DeviceId, segment: u64, why: &str) {
        self.telemetry_refused.add(1);
        tracing::warn!(%device, segment, why, "a segment of telemetry was refused");
    }

    pub(crate) fn telemetry_expired(&self, segments: usize) {
        self.telemetry_expired.add(segments as u64);
    }

    pub(crate) fn api_unauthorised(&self, remote: IpAddr) {
        self.api_unauthorised.add(1);
        tracing::warn!(%remote, "call without a valid key");
    }

    pub(crate) fn api_forbidden(&self) {
        self.api_forbidden.add(1);
        tracing::warn!("call beyond the key's role or models");
    }

    /// Not logged: there may be thousands of them.
    pub(crate) fn api_throttled(&self) {
        self.api_throttled.add(1);
    }

    pub(crate) fn usage_lost(&self) {
        self.usages_lost.add(1);
    }

    pub(crate) fn internal_error(&self, error: &dyn std::error::Error) {
        self.internal_errors.add(1);
        tracing::error!(error = %chain(error), "internal error");
    }
}
