//! Servers beside each other: one small and one large request, asked of our program, of other servers
//! where they install, and of ONNX Runtime in this process. What the benches of agent and cloud share.

pub(super) mod groups;
mod in_process;
pub(super) mod peers;
pub(super) mod servers;
pub(super) mod subjects;
