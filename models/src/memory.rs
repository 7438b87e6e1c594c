//! What this process holds for itself and may hold, and giving back what it does not use any more.

/// Bytes of memory that this process shares with nobody; `None` where the system does not tell.
pub fn private_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let field = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().trim_end_matches("kB").trim().parse().ok()
    };
    Some((field("Private_Clean:")? + field("Private_Dirty:")?) * 1024)
}

/// What this machine has, or this process' control group allows if that is less, in bytes; `None`
/// where the system does not tell.
pub fn allowed_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let total = total_bytes(&read("/proc/meminfo")?)?;
    let group = read("/proc/self/cgroup").unwrap_or_default();
    let own = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let limit = read(&format!("/sys/fs/cgroup{own}/memory.max"));
    let limit = limit.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(u64::MAX);
    Some(limit.min(total))
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Hands freed memory back to the system. The allocator keeps what was freed for the next time; after
/// a model was unloaded that is a model's worth.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    // SAFETY: malloc_trim takes the allocator's own locks and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_what_the_machine_has_at_most() {
        assert_eq!(total_bytes("MemTotal:   2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(total_bytes(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_is_taken_is_seen() {
        let before = private_bytes().unwrap();
        let block = vec![1_u8; 32 << 20];
        let with = private_bytes().unwrap();
        assert!(with >= before + (30 << 20), "{before} {with}");
        drop(std::hint::black_box(block));
        give_back();
        assert!(private_bytes().unwrap() < with);
    }
}
