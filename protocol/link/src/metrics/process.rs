//! What is measured of every process, under the names that Prometheus' own client libraries give it.

use super::{Exposition, Kind};

/// Memory and open files of this process, where the system says them.
pub fn process(out: &mut Exposition) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(kib) = kib {
        let help = "Resident memory size in bytes.";
        let bytes = kib.saturating_mul(1024);
        out.family("process_resident_memory_bytes", help, Kind::Gauge).sample(&[], bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let help = "Number of open file descriptors.";
        out.family("process_open_fds", help, Kind::Gauge).sample(&[], open.count());
    }
}
