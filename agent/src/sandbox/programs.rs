//! What a verdict depends on beside the model and the runtime: the machine, by its memory.

/// A model gets no less than this, for the runtime alone needs some of it.
const MEMORY_MIN_MB: u64 = 128;
/// Where the system does not tell.
const MEMORY_UNKNOWN_MB: u64 = 2048;

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
    fn half_of_the_memory() {
        assert_eq!(total_kb("MemTotal:   2048 kB\nMemFree: 1 kB\n"), Some(2048));
        assert_eq!(total_kb(""), None);
        assert!(default_memory_mb() >= MEMORY_MIN_MB);
    }
}
