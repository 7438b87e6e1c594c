//! How much of an ONNX file is believed. A hostile file costs little more memory than its own length.

/// The longest file, and the longest message that protobuf readers take.
pub const FILE_MAX_BYTES: u64 = (1 << 31) - 1;
/// How deep messages may lie in each other; each subgraph takes three levels.
pub const DEPTH_MAX: usize = 90;
/// The most messages in one file: nodes, attributes, tensors, dimensions. Each takes some hundred bytes of memory
/// but as few as two in the file.
pub const MESSAGES_MAX: usize = 1 << 20;
/// The most texts and byte strings in one file.
pub const TEXTS_MAX: usize = 1 << 22;
/// The most bytes of weights beside the file, over all of its tensors.
pub const EXTERNAL_MAX_BYTES: u64 = 16 << 30;
/// The most files of weights beside one model.
pub const EXTERNAL_MAX_FILES: usize = 4096;
