//! How a process that runs models gives up what it does not need. It does so itself, as its first act:
//! before any other thread exists, because Landlock and seccomp bind the thread that calls them and
//! those that it starts, and before ONNX Runtime is loaded, so that nothing of the model is ever read
//! outside. The agent's trials and the cloud's workers both live in it.
//!
//! Resource limits hold on every Unix. Files, network and system calls are confined on Linux only;
//! elsewhere the process still isolates crashes, and says what it lacks.

mod accelerator;
#[cfg(target_os = "linux")]
mod files;
mod layers;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod system_calls;

pub use accelerator::{Accelerator, nvidia_gpus};
pub use layers::{Confinement, Layer};

use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Libraries beside the runtime's that it may load.
const LIBRARIES_MAX: usize = 64;
/// Open files at a time; a bundle has at most 64, and one is open at a time.
const FILES: u64 = 128;
/// A GPU's driver opens its devices for every purpose anew.
const FILES_WITH_ACCELERATOR: u64 = 4096;
/// What is mapped but not writable beside the model's memory: libraries, and models mapped from
/// their files.
const MAPPED_BYTES: u64 = 8 << 30;

/// Between the signal that says that the processor time is over, and the end.
const CPU_GRACE_S: u64 = 5;

/// What the process may use up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory that it may write to, in bytes.
    pub memory_bytes: u64,
    /// Seconds of processor time, for a child whose parent is gone; `None` for one that serves.
    pub cpu_s: Option<u64>,
}

/// How the process stands beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The kernel ends whoever has the highest score first when memory runs out, -1000 to 1000.
    pub oom_score: i32,
    /// How far it steps back for others that want the processor, 0 to 19.
    pub niceness: i32,
}

/// Drops what was inherited: open files, privileges, the place in the queue. It ends with the thread
/// that started it. To be called first, before this process opens anything of its own.
pub fn detach(standing: Standing) {
    #[cfg(target_os = "linux")]
    linux::detach(standing);
    #[cfg(not(target_os = "linux"))]
    let _ = standing; // as it is
}

/// A thread that is there already would stay unconfined.
///
/// # Errors
/// There is one.
pub fn only_thread() -> io::Result<()> {
    match std::fs::read_dir("/proc/self/task").map(Iterator::count) {
        Ok(2..) => Err(io::Error::other("another thread runs before the confinement")),
        _ => Ok(()), // one, or a system that does not tell
    }
}

/// A runtime with the libraries beside it: not their folder, which may be somebody's home.
pub fn with_its_libraries(library: &Path) -> Vec<PathBuf> {
    let beside = library.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let libraries = beside.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let libraries = libraries.filter(|path| is_library(path)).take(LIBRARIES_MAX);
    std::iter::once(library.to_owned()).chain(libraries).collect()
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let ending = std::env::consts::DLL_SUFFIX;
    name.is_some_and(|name| name.ends_with(ending) || name.contains(&format!("{ending}.")))
}

/// Confines this process, as far as the system can: it may read these files and folders, use the
/// accelerator if it has one, and nothing else. What could not be done is in the answer.
pub fn confine(
    readable: &[PathBuf],
    accelerator: Option<&Accelerator>,
    limits: Limits,
) -> Confinement {
    let resources = limit(limits, accelerator.is_some());
    #[cfg(target_os = "linux")]
    let (files, system_calls) =
        (files::confine(readable, accelerator), system_calls::confine(accelerator.is_some()));
    #[cfg(not(target_os = "linux"))]
    let (files, system_calls) = {
        let _ = readable; // nobody asks
        let none = || Layer::None(format!("not on {}", std::env::consts::OS));
        (none(), none())
    };
    Confinement { files, system_calls, resources }
}

/// Memory is limited by what a process may write to (`RLIMIT_DATA`, since Linux 4.7 all private
/// writable memory): what an allocator merely reserves, and read-only mappings of weights, do not
/// count. The address space is limited well above it, for memory that is shared with nobody but
/// called so. There is no limit of processes: it would count all of the user's threads, not the
/// child's; seccomp lets it start threads only, and those are bounded by their stacks. A GPU's driver
/// reserves addresses for the memory of all devices and of the machine, so with one there is no limit
/// of addresses.
fn limit(limits: Limits, has_accelerator: bool) -> Layer {
    let files = if has_accelerator { FILES_WITH_ACCELERATOR } else { FILES };
    let mut wanted = vec![
        ("core files", Resource::Core, 0),
        ("written files", Resource::Fsize, 0),
        ("open files", Resource::Nofile, files),
        ("memory", Resource::Data, limits.memory_bytes),
    ];
    wanted.extend(limits.cpu_s.map(|cpu_s| ("processor time", Resource::Cpu, cpu_s.max(1))));
    if cfg!(target_os = "linux") && !has_accelerator {
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
