//! How the device and the agent on it are, as the system tells; what it does not tell is left out.

use crate::uplink::Uplink;
use std::path::Path;
use std::time::Duration;
use telemetry::wire::{Health, Resources};

pub(super) fn health(uplink: &Uplink, uptime: Duration) -> Health {
    let carrier = uplink.carrier();
    Health {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: uptime.as_secs(),
        connected: carrier.is_some(),
        carrier: carrier.map(|(carrier, _)| carrier.to_owned()).unwrap_or_default(),
    }
}

pub(super) fn resources(state_dir: &Path) -> Resources {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let memory = |file: Option<String>, field: &str| field_bytes(&file?, field);
    let disk = rustix::fs::statvfs(state_dir).ok();
    Resources {
        cpu_s: cpu_s().unwrap_or(0.0),
        memory_bytes: memory(read("/proc/self/status"), "VmRSS:").unwrap_or(0),
        memory_available_bytes: memory(read("/proc/meminfo"), "MemAvailable:").unwrap_or(0),
        temperature_c: hottest(),
        load_1m: read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        disk_available_bytes: disk.map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
    }
}

/// A field of /proc that is in KiB.
fn field_bytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[allow(clippy::cast_precision_loss)] // seconds
fn cpu_s() -> Option<f64> {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(clock.tv_sec as f64 + clock.tv_nsec as f64 / 1e9)
}

/// The hottest of the zones that the kernel names.
#[allow(clippy::cast_precision_loss)] // thousandths of a degree
fn hottest() -> Option<f32> {
    let zones = std::fs::read_dir("/sys/class/thermal").ok()?;
    let read = |path: &Path| -> Option<i32> {
        std::fs::read_to_string(path.join("temp")).ok()?.trim().parse().ok()
    };
    let all = zones.flatten().filter_map(|zone| read(&zone.path()));
    all.max().map(|milli| milli as f32 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read() {
        let own = resources(Path::new("/"));
        assert!(own.memory_bytes > 1 << 20 && own.memory_available_bytes > 1 << 20);
        assert!(own.cpu_s > 0.0 && own.disk_available_bytes > 0 && own.load_1m.is_some());
        assert_eq!(field_bytes("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
        assert_eq!(field_bytes("VmRSS:\n", "VmRSS:"), None);
    }
}
