//! What is counted, in one place. Each event is one method that counts and, where a person would
//! want to read of it, logs; so counters and logs cannot drift apart.

use crate::metrics::Latencies;
use crate::sandbox::Proof;
use edge::audit::Alarm;
use edge::peers::Misdeed;
use edge::probation::{Fault, Standing};
use edge::sequences::Forgotten;
use edge::spool::shelf::Cause;
use link::counter::Counter;
use protocol::id::{ContentHash, DeviceId, ModelName, NodeId};
use protocol::infer::{Placement, Verdict};
use protocol::measurement::Report;
use protocol::problem::{Problem, ProblemCode};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;
use telemetry::Class;

/// The agent's counters, in the groups in which they are shown.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Counters {
    answers: Answers,
    refusals: Refusals,
    link: Link,
    downloads: Downloads,
    peers: Peers,
    installs: Installs,
    memory: Memory,
    sequences: SequenceEvents,
    trials: Trials,
    updates: Updates,
    programs: Programs,
    checks: Checks,
    measurements: Measurements,
    questions: Questions,
    telemetry: Telemetry,
    clock: Clock,
    #[serde(skip)]
    latencies: Latencies,
}

#[derive(Debug, Default, Serialize)]
struct Answers {
    edge: Counter,
    cloud: Counter,
    edge_degraded: Counter,
}

#[derive(Debug, Default, Serialize)]
struct Refusals {
    invalid: Counter,
    overloaded: Counter,
    deadline_exceeded: Counter,
    failed: Counter,
    forbidden: Counter,
    slow_connections: Counter,
}

#[derive(Debug, Default, Serialize)]
struct Link {
    uplink_bytes: Counter,
    /// That need not go up, because inputs were packed.
    saved_bytes: Counter,
    downlink_bytes: Counter,
    connects: Counter,
    /// Of them, and of those to nodes, over TCP.
    connects_over_tcp: Counter,
    /// Times that another UDP port was tried, because nothing was heard any more.
    paths_changed: Counter,
    connect_failures: Counter,
    node_connects: Counter,
    node_losses: Counter,
    asked_again: Counter,
    renewals: Counter,
    renewal_failures: Counter,
    ca_changes: Counter,
}

/// Records on their way to the operator.
#[derive(Debug, Default, Serialize)]
struct Telemetry {
    /// Durable on this device.
    recorded: Counter,
    /// Durable on the cloud.
    taken: Counter,
    sent_bytes: Counter,
    send_failures: Counter,
    write_failures: Counter,
    damaged_segments: Counter,
    keys_believed: Counter,
    keys_refused: Counter,
    dropped_queue: Counter,
    dropped_room: Counter,
    dropped_age: Counter,
    dropped_disk: Counter,
    dropped_damage: Counter,
    dropped_refused: Counter,
}

/// Files of bundles on their way, and what spared them.
#[derive(Debug, Default, Serialize)]
struct Downloads {
    /// Of files, deltas and hashes of chunks.
    fetched_bytes: Counter,
    /// That need not come, because a delta did.
    saved_bytes: Counter,
    /// Files made from a file that was here.
    from_base: Counter,
    /// Files that came packed.
    packed: Counter,
    /// Files that another version had brought already.
    shared: Counter,
    /// Deltas that came to nothing.
    deltas_failed: Counter,
    chunks_damaged: Counter,
    partials_swept: Counter,
}

/// Chunks that devices of the site carry to each other.
#[derive(Debug, Default, Serialize)]
struct Peers {
    fetched_bytes: Counter,
    served_bytes: Counter,
    /// What peers did that they should not have.
    wrong_bytes: Counter,
    wrong_answer: Counter,
    stalled: Counter,
    refused: Counter,
    unreachable: Counter,
    /// Peers that were told to come again later.
    not_served: Counter,
    /// Whoever came and is no peer.
    strangers: Counter,
}

#[derive(Debug, Default, Serialize)]
struct Installs {
    done: Counter,
    failed: Counter,
    refused: Counter,
    loads: Counter,
    unloads: Counter,
}

/// Models that make room for each other in memory.
#[derive(Debug, Default, Serialize)]
struct Memory {
    reloads: Counter,
    evictions: Counter,
    failures: Counter,
    refusals: Counter,
}

#[derive(Debug, Default, Serialize)]
struct SequenceEvents {
    begun: Counter,
    ended: Counter,
    expired: Counter,
    displaced: Counter,
}

#[derive(Debug, Default, Serialize)]
struct Trials {
    proven: Counter,
    refused: Counter,
    quarantined: Counter,
    not_run: Counter,
    released: Counter,
}

/// New versions beside the active one, and in its place.
#[derive(Debug, Default, Serialize)]
struct Updates {
    shadow_compared: Counter,
    shadow_probes: Counter,
    shadow_agreed: Counter,
    shadow_refused: Counter,
    trials_passed: Counter,
    settled: Counter,
    rolled_back: Counter,
}

/// The agent's own next programs.
#[derive(Debug, Default, Serialize)]
struct Programs {
    staged: Counter,
    failed: Counter,
    refused: Counter,
}

/// Accepted answers that were compared with the cloud's.
#[derive(Debug, Default, Serialize)]
struct Checks {
    agreed: Counter,
    disagreed: Counter,
    left_out: Counter,
    alarms: Counter,
}

/// Models that were timed here for a lab, by order.
#[derive(Debug, Default, Serialize)]
struct Measurements {
    done: Counter,
    refused: Counter,
}

#[derive(Debug, Default, Serialize)]
struct Questions {
    answered: Counter,
    refused: Counter,
}

#[derive(Debug, Default, Serialize)]
struct Clock {
    times_verified: Counter,
    times_refused: Counter,
    times_not_kept: Counter,
    cloud_jumps: Counter,
    system_doubted: Counter,
}

impl Counters {
    /// A request to this model was answered, `took` after it was read.
    pub(crate) fn answered(&self, model: &ModelName, verdict: &Verdict, took: Duration) {
        self.latencies.record(model, verdict, took);
        let counter = match verdict.placement {
            Placement::Edge => &self.answers.edge,
            Placement::Cloud => &self.answers.cloud,
            Placement::EdgeDegraded => &self.answers.edge_degraded,
        };
        counter.add(1);
    }

    /// A request was refused or failed.
    pub(crate) fn refused(&self, problem: &Problem) {
        let counter = match problem.code {
            ProblemCode::InvalidRequest | ProblemCode::NotFound | ProblemCode::TooLarge => {
                &self.refusals.invalid
            }
            ProblemCode::Overloaded => &self.refusals.overloaded,
            ProblemCode::DeadlineExceeded => &self.refusals.deadline_exceeded,
            ProblemCode::Unauthorised => &self.refusals.forbidden,
            _ => {
                tracing::warn!(code = problem.code.as_str(), %problem, "a request failed");
                &self.refusals.failed
            }
        };
        counter.add(1);
    }

    /// An accepted answer was compared with the cloud's.
    pub(crate) fn checked(&self, disagreement: f64) {
        let counter = if disagreement > 0.0 { &self.checks.disagreed } else { &self.checks.agreed };
        counter.add(1);
    }

    /// An accepted answer that was drawn could not be compared.
    pub(crate) fn check_left_out(&self, why: &str) {
        self.checks.left_out.add(1);
        tracing::debug!(why, "an answer was not checked");
    }

    /// Accepted answers differ from the cloud's more often than they may.
    pub(crate) fn alarmed(&self, model: &ModelName, alarm: &Alarm) {
        self.checks.alarms.add(1);
        let Alarm { level, evidence, threshold } = alarm;
        tracing::error!(%model, level, evidence, threshold, "too many accepted answers are wrong; fewer are accepted from now on");
    }

    /// A connection was closed because its first request did not come in time.
    pub(crate) fn connection_late(&self) {
        self.refusals.slow_connections.add(1);
        tracing::debug!("a connection asked for nothing in time");
    }

    /// A stream with state begins.
    pub(crate) fn sequence_begun(&self) {
        self.sequences.begun.add(1);
    }

    /// A stream with state came to its end.
    pub(crate) fn sequence_ended(&self) {
        self.sequences.ended.add(1);
    }

    /// Streams with state were given up before their end.
    pub(crate) fn sequences_forgotten(&self, forgotten: Forgotten) {
        self.sequences.expired.add(forgotten.idle);
        self.sequences.displaced.add(forgotten.displaced);
    }

    /// Tensor bytes go to the cloud, and packing saved others.
    pub(crate) fn sent(&self, bytes: u64, saved_bytes: u64) {
        self.link.uplink_bytes.add(bytes);
        self.link.saved_bytes.add(saved_bytes);
    }

    /// Blob or tensor bytes came from the cloud.
    pub(crate) fn received(&self, bytes: u64) {
        self.link.downlink_bytes.add(bytes);
    }

    /// Bytes of a file of a bundle came, or of what makes one.
    pub(crate) fn downloaded(&self, bytes: u64) {
        self.received(bytes);
        self.downloads.fetched_bytes.add(bytes);
    }

    /// Bytes that came so far, from wherever.
    pub(crate) fn arrived_bytes(&self) -> u64 {
        self.downloads.fetched_bytes.get() + self.peers.fetched_bytes.get()
    }

    /// So many devices are peers now.
    pub(crate) fn peers_named(&self, count: usize) {
        tracing::info!(count, "the cloud has named the devices of this site");
    }

    /// A peer gave bytes of a file.
    pub(crate) fn peer_gave(&self, bytes: u64) {
        self.peers.fetched_bytes.add(bytes);
    }

    /// A peer was given bytes of a file.
    pub(crate) fn peer_given(&self, bytes: u64) {
        self.peers.served_bytes.add(bytes);
    }

    /// A peer did what it should not, and is left alone for a while.
    pub(crate) fn peer_failed(&self, peer: &DeviceId, misdeed: Misdeed) {
        let counter = match misdeed {
            Misdeed::WrongBytes => &self.peers.wrong_bytes,
            Misdeed::WrongAnswer => &self.peers.wrong_answer,
            Misdeed::Stalled => &self.peers.stalled,
            Misdeed::Refused => &self.peers.refused,
            Misdeed::Unreachable => &self.peers.unreachable,
        };
        counter.add(1);
        tracing::warn!(%peer, misdeed = misdeed.as_str(), "a peer is left alone for a while");
    }

    /// A peer was not served, because of a limit.
    pub(crate) fn peer_not_served(&self, why: &str) {
        self.peers.not_served.add(1);
        tracing::debug!(why, "a peer was not served");
    }

    /// Somebody came who is no peer.
    pub(crate) fn stranger(&self, address: SocketAddr, why: &str) {
        self.peers.strangers.add(1);
        tracing::warn!(%address, why, "no peer");
    }

    /// The names of peers could not be read or written; after a restart they are heard of later.
    pub(crate) fn peers_not_kept(&self, why: &str) {
        tracing::warn!(why, "the list of peers is not kept");
    }

    /// There are no peers, because none can be served.
    pub(crate) fn peers_not_served(&self, address: SocketAddr, error: &std::io::Error) {
        let hint = "the address is [peers] listen in agent.toml";
        tracing::error!(%address, %error, hint, "no peers are served, nor asked");
    }

    /// A chunk is not what the cloud says that it is; it is fetched again.
    pub(crate) fn chunk_damaged(&self) {
        self.downloads.chunks_damaged.add(1);
        tracing::warn!("a chunk of a download is damaged");
    }

    /// So many records are durable here.
    pub(crate) fn telemetry_recorded(&self, class: Class, (first, last): (u64, u64), records: u64) {
        self.telemetry.recorded.add(records);
        tracing::debug!(class = class.as_str(), records, first, last, "telemetry is written");
    }

    /// So many records are durable on the cloud.
    pub(crate) fn telemetry_taken(&self, records: u64) {
        self.telemetry.taken.add(records);
    }

    /// Bytes of segments went up.
    pub(crate) fn telemetry_sent(&self, bytes: u64) {
        self.telemetry.sent_bytes.add(bytes);
    }

    /// A batch was not taken; it is offered again.
    pub(crate) fn telemetry_not_sent(&self, why: &str) {
        self.telemetry.send_failures.add(1);
        tracing::debug!(why, "telemetry waits");
    }

    /// The disk took something not.
    pub(crate) fn telemetry_not_written(&self, error: &dyn std::error::Error) {
        self.telemetry.write_failures.add(1);
        let why = protocol::problem::chain(error);
        tracing::warn!(why, "telemetry cannot be written");
    }

    /// A segment is not what was written.
    pub(crate) fn telemetry_damaged(&self, segment: u64, why: &str) {
        self.telemetry.damaged_segments.add(1);
        tracing::warn!(segment, why, "a segment of telemetry is damaged");
    }

    /// Records were given up.
    pub(crate) fn telemetry_dropped(&self, class: Class, cause: Cause, records: u64) {
        let own = &self.telemetry;
        let counter = match cause {
            Cause::Queue => &own.dropped_queue,
            Cause::Room => &own.dropped_room,
            Cause::Age => &own.dropped_age,
            Cause::Disk => &own.dropped_disk,
            Cause::Damage => &own.dropped_damage,
            Cause::Refused => &own.dropped_refused,
        };
        counter.add(records);
        let (class, cause) = (class.as_str(), cause.as_str());
        tracing::info!(class, cause, records, "telemetry was given up");
    }

    /// Records are sealed for this key from now on.
    pub(crate) fn telemetry_key_believed(&self, serial: u64) {
        self.telemetry.keys_believed.add(1);
        tracing::info!(serial, "telemetry is sealed for the operator's analytics key");
    }

    /// A statement of the analytics key is not believed.
    pub(crate) fn telemetry_key_refused(&self, why: &str) {
        self.telemetry.keys_refused.add(1);
        tracing::warn!(why, "the analytics key is not believed");
    }

    /// A file was made from a delta, or unpacked.
    pub(crate) fn delta_applied(&self, from_base: bool) {
        let counter = if from_base { &self.downloads.from_base } else { &self.downloads.packed };
        counter.add(1);
    }

    /// So many bytes need not come.
    pub(crate) fn delta_saved(&self, bytes: u64) {
        self.downloads.saved_bytes.add(bytes);
    }

    /// A delta came to nothing; the file itself is fetched.
    pub(crate) fn delta_failed(&self, why: &str) {
        self.downloads.deltas_failed.add(1);
        tracing::warn!(why, "a delta is of no use");
    }

    /// A file is here already, in another version.
    pub(crate) fn file_shared(&self, bytes: u64) {
        self.downloads.shared.add(1);
        self.downloads.saved_bytes.add(bytes);
    }

    /// What was left of a download that nobody wants any more was removed.
    pub(crate) fn partial_swept(&self) {
        self.downloads.partials_swept.add(1);
    }

    /// The cloud is connected.
    pub(crate) fn connected(&self, endpoint: &str, carrier: &str, why: &str) {
        self.link.connects.add(1);
        self.link.connects_over_tcp.add(u64::from(carrier == "tcp"));
        tracing::info!(endpoint, carrier, why, "connected to the cloud");
    }

    /// Nothing was heard any more, so the connection goes on from another UDP port.
    pub(crate) fn path_changed(&self) {
        self.link.paths_changed.add(1);
        tracing::info!("nothing is heard from the cloud: trying another UDP port");
    }

    /// The cloud could not be reached, or the connection ended.
    pub(crate) fn disconnected(&self, endpoint: &str, why: &str, retry_in_ms: u128) {
        self.link.connect_failures.add(1);
        tracing::warn!(endpoint, why, retry_in_ms, "not connected to the cloud");
    }

    /// An inference node is connected.
    pub(crate) fn node_connected(&self, node: &NodeId, address: &str, carrier: &str) {
        self.link.node_connects.add(1);
        self.link.connects_over_tcp.add(u64::from(carrier == "tcp"));
        tracing::info!(%node, address, carrier, "connected to a node");
    }

    /// An inference node could not be reached, or its connection ended unasked.
    pub(crate) fn node_lost(&self, node: &NodeId, why: &str) {
        self.link.node_losses.add(1);
        tracing::warn!(%node, why, "not connected to a node");
    }

    /// A request was asked of a second node, because the first gave no answer for this reason.
    pub(crate) fn asked_again(&self, why: &Problem) {
        self.link.asked_again.add(1);
        tracing::debug!(%why, "a request is asked of another node");
    }

    /// Where the nodes are could not be read or written; after a restart they are heard of later.
    pub(crate) fn nodes_not_kept(&self, why: &str) {
        tracing::warn!(why, "the list of nodes is not kept");
    }

    /// The certificate was renewed.
    pub(crate) fn renewed(&self) {
        self.link.renewals.add(1);
        tracing::info!("the certificate was renewed");
    }

    /// Another fleet CA took the place of the one that was trusted.
    pub(crate) fn fleet_ca_changed(&self) {
        self.link.ca_changes.add(1);
        tracing::info!("the fleet CA was exchanged, as the old one has signed");
    }

    /// The certificate could not be renewed.
    pub(crate) fn renewal_failed(&self, why: &str) {
        self.link.renewal_failures.add(1);
        tracing::warn!(why, "the certificate was not renewed");
    }

    /// The fleet CA told the time.
    pub(crate) fn time_verified(&self) {
        self.clock.times_verified.add(1);
    }

    /// The cloud told a time, or showed a certificate, that is not taken.
    pub(crate) fn time_refused(&self, why: &str) {
        self.clock.times_refused.add(1);
        tracing::warn!(why, "the cloud's time was not taken");
    }

    /// What is known of the time could not be read or written; after a restart less is known.
    pub(crate) fn time_not_kept(&self, why: &str) {
        self.clock.times_not_kept.add(1);
        tracing::warn!(why, "the time is not kept");
    }

    /// The cloud's clock was set by so much since it last told the time.
    pub(crate) fn cloud_clock_set(&self, by: &str) {
        self.clock.cloud_jumps.add(1);
        tracing::warn!(by, "the cloud's clock was set");
    }

    /// The system's clock is believed, or is not any more.
    pub(crate) fn clock_changed(&self, believed: bool, how: &str) {
        if believed {
            tracing::info!(how, "the system's clock is believed again");
        } else {
            self.clock.system_doubted.add(1);
            tracing::warn!(how, "the system's clock is wrong");
        }
    }

    /// A version became active.
    pub(crate) fn installed(&self, model: &ModelName, version: u64) {
        self.installs.done.add(1);
        tracing::info!(%model, version, "active");
    }

    /// A candidate has answered beside the active version: so many live requests, and probes.
    pub(crate) fn shadowed(
        &self,
        model: &ModelName,
        version: u64,
        (live, probes): (usize, usize),
        fault: Option<&Fault>,
    ) {
        self.updates.shadow_compared.add(live as u64);
        self.updates.shadow_probes.add(probes as u64);
        if let Some(fault) = fault {
            self.updates.shadow_refused.add(1);
            tracing::error!(%model, version, live, probes, %fault, "refused in its shadow");
        } else {
            self.updates.shadow_agreed.add(1);
            tracing::info!(%model, version, live, probes, "has done as well in its shadow");
        }
    }

    /// A version on probation has come further.
    pub(crate) fn held(&self, model: &ModelName, version: u64, standing: Standing) {
        let counter = match standing {
            Standing::Trusted => &self.updates.settled,
            _ => &self.updates.trials_passed,
        };
        counter.add(1);
        tracing::info!(%model, version, standing = standing.as_str(), "holds");
    }

    /// A new program of the agent lies ready.
    pub(crate) fn program_staged(&self, version: &str) {
        self.programs.staged.add(1);
        tracing::info!(version, "a new program of the agent lies ready");
    }

    /// A new program of the agent does not lie ready; `passing` tells whether it will be tried again.
    pub(crate) fn program_failed(&self, version: &str, passing: bool, why: &str) {
        let counter = if passing { &self.programs.failed } else { &self.programs.refused };
        counter.add(1);
        tracing::warn!(version, passing, why, "the agent's program stays as it is");
    }

    /// A version gave way to the one before it; 0 for none.
    pub(crate) fn rolled_back(&self, model: &ModelName, from: u64, to: u64, why: &str) {
        self.updates.rolled_back.add(1);
        tracing::error!(%model, from, to, why, "rolled back");
    }

    /// An application let a model answer again.
    pub(crate) fn loaded(&self, model: &ModelName) {
        self.installs.loads.add(1);
        tracing::info!(%model, "loaded");
    }

    /// An application stopped a model from answering.
    pub(crate) fn unloaded(&self, model: &ModelName) {
        self.installs.unloads.add(1);
        tracing::info!(%model, "unloaded");
    }

    /// A model is in memory again.
    pub(crate) fn came_back(&self, model: &ModelName) {
        self.memory.reloads.add(1);
        tracing::info!(%model, "loaded into memory on demand");
    }

    /// Models made room for others.
    pub(crate) fn evicted(&self, models: usize) {
        if models > 0 {
            self.memory.evictions.add(models as u64);
            tracing::info!(models, "unloaded from memory to make room");
        }
    }

    /// A model could not be loaded into memory again.
    pub(crate) fn load_failed(&self, model: &ModelName, problem: &Problem) {
        self.memory.failures.add(1);
        tracing::warn!(%model, %problem, "not loaded into memory");
    }

    /// A request could not wait for its model to be loaded.
    pub(crate) fn not_resident(&self) {
        self.memory.refusals.add(1);
    }

    /// An installation failed; `passing` tells whether it will be tried again.
    pub(crate) fn install_failed(&self, model: &ModelName, passing: bool, why: &str) {
        let counter = if passing { &self.installs.failed } else { &self.installs.refused };
        counter.add(1);
        tracing::warn!(%model, passing, why, "not installed");
    }

    /// A question of an operator was answered, or not.
    pub(crate) fn question_ended(&self, what: &str, answered: bool) {
        tracing::info!(what, answered, "an operator asked this device");
        let Questions { answered: yes, refused } = &self.questions;
        if answered { yes } else { refused }.add(1);
    }

    /// An order of a lab was carried out, or was not.
    pub(crate) fn measured(&self, order: &str, report: &Report) {
        match report {
            Report::Measured(measured) => {
                self.measurements.done.add(1);
                tracing::info!(order, models = measured.models.len(), "measured models for a lab");
            }
            Report::Refused { why, hint } => {
                self.measurements.refused.add(1);
                tracing::warn!(order, why, hint, "measured nothing for a lab");
            }
        }
    }

    /// A model has proven itself in the child process.
    pub(crate) fn proven(&self, model: &ModelName, version: u64, proof: &Proof) {
        self.trials.proven.add(1);
        let batch_invariant = proof.batching.as_ref().map(|batching| batching.invariant);
        let Proof { load_ms, warm_up_ms, run_ms, probes, worst_difference, .. } = proof;
        tracing::info!(
            %model, version, load_ms, warm_up_ms, run_ms, probes, worst_difference, batch_invariant,
            "proven"
        );
    }

    /// A model was tried and has not proven itself, or could not be tried.
    pub(crate) fn not_proven(&self, refused: bool) {
        let counter = if refused { &self.trials.refused } else { &self.trials.not_run };
        counter.add(1);
    }

    /// A model crashed, hung or took too much in the child process.
    pub(crate) fn quarantined(&self, model: &ModelName, version: u64, why: &str) {
        self.trials.quarantined.add(1);
        tracing::error!(%model, version, why, "quarantined");
    }

    /// Somebody let a bundle out of quarantine.
    pub(crate) fn released(&self, bundle: ContentHash) {
        self.trials.released.add(1);
        tracing::info!(%bundle, "released from quarantine");
    }

    /// How long answers took.
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }
}
