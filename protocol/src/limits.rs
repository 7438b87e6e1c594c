//! Every limit on what a peer may send, in one table. Each is checked before anything is
//! allocated for the data it bounds.

/// Control frames (hello, desired state, reported state): 1 MiB.
pub const CONTROL_FRAME_MAX_BYTES: u32 = 1 << 20;
/// Headers of inference, blob and enrolment streams, and problems: 64 KiB.
pub const HEADER_FRAME_MAX_BYTES: u32 = 64 << 10;
/// A question for the time, and its signed answer.
pub const TIME_FRAME_MAX_BYTES: u32 = 512;
/// A sign of life between an agent and a node.
pub const PULSE_FRAME_MAX_BYTES: u32 = 64;
/// Connections of devices and nodes to one cloud, over QUIC and TCP together.
pub const AGENT_CONNECTIONS_MAX: usize = 32_768;
/// Streams that one peer may have open at a time: its requests, blobs and control.
pub const STREAMS_PER_CONNECTION: u32 = 256;
/// Of them, those over QUIC until it asks for an answer. Both ends keep a place for each that may be open, 68 bytes on the
/// node's side, and a device that asks nothing needs a handful. 14 fill a table of 16 places.
pub const STREAMS_AT_FIRST: u32 = 14;
/// Unread bytes that one stream may hold.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Unread bytes that one connection may hold.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Inference nodes of one fleet.
pub const NODES_MAX: usize = 64;
/// A signed manifest, as JSON: 256 KiB.
pub const MANIFEST_MAX_BYTES: usize = 256 << 10;
/// Files in one bundle.
pub const BUNDLE_MAX_FILES: usize = 64;
/// One file of a bundle: 4 GiB.
pub const BUNDLE_FILE_MAX_BYTES: u64 = 4 << 30;
/// Devices of one site that carry chunks to each other.
pub const PEERS_MAX: usize = 64;
/// The most of a blob that a peer is asked for at a time: 4 MiB.
pub const PEER_ANSWER_MAX_BYTES: u64 = 4 << 20;
/// Connections of peers that a device serves at a time.
pub const PEER_CONNECTIONS_MAX: usize = 16;
/// Bytes of a blob that have a hash of their own, so that damage costs no more than they: 256 KiB.
pub const CHUNK_BYTES: u64 = 256 << 10;
/// Files of which one delta may be made that a device says it has.
pub const DELTA_BASES_MAX: usize = 4;
/// Deltas that wait to be made on a cloud.
pub const DELTAS_WAITING_MAX: usize = 32;
/// All tensors of one request or response together: 64 MiB.
pub const TENSORS_MAX_BYTES: u64 = 64 << 20;
/// Tensors in one request or response.
pub const TENSORS_MAX_COUNT: usize = 64;
/// Dimensions of one tensor.
pub const TENSOR_MAX_RANK: usize = 8;
/// Parameters of a request, and of each of its tensors.
pub const PARAMETERS_MAX_COUNT: usize = 64;
/// Names of models, tensors, parameters and request ids.
pub const NAME_MAX_BYTES: usize = 128;
/// Body of one HTTP inference request: the tensors, as JSON numbers at worst.
pub const HTTP_BODY_MAX_BYTES: usize = 96 << 20;
/// Sequences (streams with state) of all models that a device keeps at a time, unless its
/// configuration says otherwise; beyond, the least recently used one is forgotten.
pub const SEQUENCES_MAX: usize = 256;
/// Bytes of state of all sequences together, unless the configuration says otherwise: 64 MiB.
pub const SEQUENCES_MAX_BYTES: usize = 64 << 20;
/// Requests of one sequence that wait for each other.
pub const SEQUENCE_WAITING_MAX: usize = 64;
/// How long a sequence is kept without a request, unless the configuration says otherwise, in
/// seconds.
pub const SEQUENCE_IDLE_S: u32 = 60;
/// The longest deadline that a request may ask for: 10 minutes.
pub const DEADLINE_MAX_MS: u32 = 600_000;
/// An enrolment token, as text.
pub const TOKEN_MAX_BYTES: usize = 512;
/// Devices that one enrolment token lets in.
pub const TOKEN_DEVICES_MAX: u32 = 10_000;
/// Patterns of model names in one list.
pub const PATTERNS_MAX_COUNT: usize = 64;
/// Versions that a version policy lists.
pub const LISTED_VERSIONS_MAX_COUNT: usize = 64;
/// The highest priority of a request; higher numbers count as this one. 0 is the default.
pub const PRIORITY_MAX: u8 = 3;
/// Requests of one model that wait for a session.
pub const QUEUE_MAX_REQUESTS: usize = 4096;
/// Sizes of requests of one model that have a curve of their own.
pub const SHAPES_MAX: usize = 64;
/// Requests that one device or key may have in flight on the cloud, unless its tenant's terms say
/// otherwise.
pub const CALLER_REQUESTS_MAX: u32 = 1024;
/// Tenants, and callers (devices and keys), whose rates are remembered at a time, each.
pub const IDENTITIES_MAX: usize = 65_536;
/// The text of a device's answer to an operator's question: 60 KiB, so that a frame holds it.
pub const ANSWER_MAX_BYTES: usize = 60 << 10;
/// Lines of the log that a question may ask for.
pub const ANSWER_LINES_MAX: u32 = 1000;
/// Lines of its own log that an agent keeps in memory, for such questions: 256 KiB.
pub const LOG_KEPT_MAX_BYTES: usize = 256 << 10;
/// Questions that wait for one device.
pub const QUESTIONS_WAITING_MAX: usize = 4;
/// The longest that a question waits for its device: a day, in seconds.
pub const QUESTION_MAX_S: u64 = 24 * 60 * 60;
/// A signed order to measure models on a device, as JSON: 16 KiB.
pub const ORDER_MAX_BYTES: usize = 16 << 10;
/// What a device says of one such order, as JSON: 16 KiB.
pub const MEASURED_MAX_BYTES: usize = 16 << 10;
/// Models that one order compares.
pub const MEASURED_MODELS_MAX: usize = 8;
/// The longest that one order's models may run, in seconds.
pub const MEASUREMENT_MAX_S: u32 = 120;
/// Orders that wait for one device.
pub const ORDERS_WAITING_MAX: usize = 16;
/// The longest that an order may wait for its device: a day, in seconds.
pub const ORDER_LIFETIME_MAX_S: i64 = 24 * 60 * 60;
/// A root of a TUF repository: 512 KiB.
pub const TUF_ROOT_MAX_BYTES: u64 = 512 << 10;
/// A timestamp of a TUF repository: 16 KiB.
pub const TUF_TIMESTAMP_MAX_BYTES: u64 = 16 << 10;
/// A snapshot of a TUF repository: 1 MiB.
pub const TUF_SNAPSHOT_MAX_BYTES: u64 = 1 << 20;
/// Targets of a TUF repository, those of one role: 4 MiB.
pub const TUF_TARGETS_MAX_BYTES: u64 = 4 << 20;
/// Signatures of one file of a TUF repository.
pub const TUF_SIGNATURES_MAX: usize = 256;
/// Keys of one role of a TUF repository.
pub const TUF_ROLE_KEYS_MAX: usize = 64;
/// A signature over the files of a model, in the OpenSSF's form: 16 MiB.
pub const MODEL_SIGNATURE_MAX_BYTES: usize = 16 << 20;
/// Roles that one role of a TUF repository may delegate to.
pub const TUF_DELEGATED_ROLES_MAX: usize = 1024;
/// Versions of root that are followed at a time.
pub const TUF_ROOTS_MAX: u32 = 256;
/// Delegated roles that are asked for one target.
pub const TUF_VISITS_MAX: usize = 32;
/// Segments of telemetry that one stream offers.
pub const TELEMETRY_BATCH_SEGMENTS: usize = 64;
/// Their bytes together: 8 MiB.
pub const TELEMETRY_BATCH_MAX_BYTES: u64 = 8 << 20;
/// A signed release of the agent, as JSON: 4 KiB.
pub const RELEASE_MAX_BYTES: usize = 4 << 10;
/// A program of the agent: 512 MiB, as builds with everything for a debugger are.
pub const RELEASE_FILE_MAX_BYTES: u64 = 512 << 20;
/// Builds of one version, each for another kind of machine.
pub const RELEASE_TARGETS_MAX: usize = 16;
