//! What a verdict depends on beside the model: the runtime, by its version, and the machine, by its
//! memory.

use std::path::Path;

/// A model gets no less than this, for the runtime alone needs some of it.
const MEMORY_MIN_MB: u64 = 128;
/// Where the system does not tell.
const MEMORY_UNKNOWN_MB: u64 = 2048;

/// A runtime's version in words, from its file's name, which carries the number, and from how it
/// says it was built.
pub(crate) fn runtime_version(library: &Path, build: &str) -> String {
    let path = library.canonicalize().unwrap_or_else(|_| library.to_owned());
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let field = |key: &str| {
        let value = build.split(", ").find_map(|part| part.trim().strip_prefix(key));
        value.unwrap_or("unknown").to_owned()
    };
    format!("{name} (commit {}, {})", field("git-commit-id="), field("build type="))
}

/// Half of the memory that this process may have at most: the other half is for the version that
/// answers meanwhile, and for everybody else.
pub(super) fn default_memory_mb() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let total_kb = read("/proc/meminfo").and_then(|text| total_kb(&text));
    let cgroup = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
    let bounds = [total_kb.map(|kb| kb / 1024), cgroup.map(|bytes| bytes >> 20)];
    let most = bounds.into_iter().flatten().min();
    most.map_or(MEMORY_UNKNOWN_MB, |mb| (mb / 2).max(MEMORY_MIN_MB))
}

fn total_kb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_there_is() {
        let build = "ORT Build Info: git-branch=main, git-commit-id=abc123, build type=Release, cmake cxx flags: -O2";
        let text = runtime_version(Path::new("/absent/libonnxruntime.so.1.31.1"), build);
        assert_eq!(text, "libonnxruntime.so.1.31.1 (commit abc123, Release)");
        assert!(runtime_version(Path::new("x.so"), "").contains("unknown"));
    }

    #[test]
    fn half_of_the_memory() {
        assert_eq!(total_kb("MemTotal:   2048 kB\nMemFree: 1 kB\n"), Some(2048));
        assert_eq!(total_kb(""), None);
        assert!(default_memory_mb() >= MEMORY_MIN_MB);
    }
}
