//! Every limit on what a peer may send, in one table. Each is checked before anything is
//! allocated for the data it bounds.

/// Control frames (hello, desired state, reported state): 1 MiB.
pub const CONTROL_FRAME_MAX_BYTES: u32 = 1 << 20;
/// Headers of inference, blob and enrolment streams, and problems: 64 KiB.
pub const HEADER_FRAME_MAX_BYTES: u32 = 64 << 10;
/// A signed manifest, as JSON: 256 KiB.
pub const MANIFEST_MAX_BYTES: usize = 256 << 10;
/// Files in one bundle.
pub const BUNDLE_MAX_FILES: usize = 64;
/// One file of a bundle: 4 GiB.
pub const BUNDLE_FILE_MAX_BYTES: u64 = 4 << 30;
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
/// The longest deadline that a request may ask for: 10 minutes.
pub const DEADLINE_MAX_MS: u32 = 600_000;
/// An enrolment token, as text.
pub const TOKEN_MAX_BYTES: usize = 512;
/// Patterns of model names in one list.
pub const PATTERNS_MAX_COUNT: usize = 64;
/// Versions that a version policy lists.
pub const LISTED_VERSIONS_MAX_COUNT: usize = 64;
