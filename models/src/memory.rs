//! What this process holds for itself, and giving back what it does not use any more.

/// Bytes of memory that this process shares with nobody; `None` where the system does not tell.
pub fn private_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let field = |name: &str| -> Option<u64> {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.trim().trim_end_matches("kB").trim().parse().ok()
    };
    Some((field("Private_Clean:")? + field("Private_Dirty:")?) * 1024)
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
