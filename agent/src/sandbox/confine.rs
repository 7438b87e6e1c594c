//! How the child gives up what it does not need. It does so itself, as its first act: before any
//! other thread exists, because Landlock and seccomp bind the thread that calls them and those that
//! it starts, and before ONNX Runtime is loaded, so that nothing of the model is ever read outside.
//!
//! Resource limits hold on every Unix. Files, network and system calls are confined on Linux only;
//! elsewhere the child still isolates crashes, and says what it lacks.

#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod system_calls;

use super::verdict::{Confinement, Layer, Limits};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::PathBuf;

/// Open files at a time; a bundle has at most 64, and one is open at a time.
const FILES: u64 = 128;
/// What is mapped but not writable beside the model's memory: libraries, and models mapped from
/// their files.
const MAPPED_BYTES: u64 = 8 << 30;

/// Between the signal that says that the processor time is over, and the end.
const CPU_GRACE_S: u64 = 5;

/// What the child may still read.
pub(super) struct Readable {
    pub(super) paths: Vec<PathBuf>,
}

/// Drops what was inherited: open files, privileges, the place in the queue. To be called first,
/// before this process opens anything of its own.
pub(super) fn detach() {
    #[cfg(target_os = "linux")]
    linux::detach();
}

/// Confines this process, as far as the system can. What could not be done is in the answer.
pub(super) fn confine(readable: &Readable, limits: Limits) -> Confinement {
    let resources = limit(limits);
    #[cfg(target_os = "linux")]
    let (files, system_calls) = (files::confine(&readable.paths), system_calls::confine());
    #[cfg(not(target_os = "linux"))]
    let (files, system_calls) = {
        let Readable { paths: _ } = readable; // nobody asks
        let none = || Layer::None(format!("not on {}", std::env::consts::OS));
        (none(), none())
    };
    Confinement { files, system_calls, resources }
}

/// Memory is limited by what a process may write to (`RLIMIT_DATA`, since Linux 4.7 all private
/// writable memory): what an allocator merely reserves, and read-only mappings of weights, do not
/// count. The address space is limited well above it, for memory that is shared with nobody but
/// called so. There is no limit of processes: it would count all of the user's threads, not the
/// child's; seccomp lets it start threads only, and those are bounded by their stacks.
fn limit(limits: Limits) -> Layer {
    let mut wanted = vec![
        ("core files", Resource::Core, 0),
        ("written files", Resource::Fsize, 0),
        ("open files", Resource::Nofile, FILES),
        ("processor time", Resource::Cpu, limits.cpu_s.max(1)),
        ("memory", Resource::Data, limits.memory_bytes),
    ];
    if cfg!(target_os = "linux") {
        let space = limits.memory_bytes.saturating_add(MAPPED_BYTES);
        wanted.push(("address space", Resource::As, space));
    }
    let set = |(name, resource, most): (&'static str, Resource, u64)| {
        let hard = rustix::process::getrlimit(resource).maximum;
        let most = hard.map_or(most, |hard| most.min(hard));
        // At its own maximum a process is killed without a word; at the limit below it is told.
        let grace = if resource == Resource::Cpu { CPU_GRACE_S } else { 0 };
        let maximum = hard.map_or(most + grace, |hard| hard.min(most + grace));
        let new = Rlimit { current: Some(most), maximum: Some(maximum) };
        setrlimit(resource, new).is_err().then_some(name)
    };
    let failed: Vec<&str> = wanted.into_iter().filter_map(set).collect();
    match failed.as_slice() {
        [] => Layer::Full,
        some => Layer::Partial(format!("no limit of {}", some.join(", "))),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
