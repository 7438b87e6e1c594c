//! The machine: clock, disk, memory, limits, and the files that the agent cannot do without.

use super::{Check, Finding, Group, PATIENCE, Subject, bounded, permissions};
use crate::clock::ClockStatus;
use crate::state::State;
use edge::time::TOLERANCE_MS;
use std::io::Write;
use std::path::Path;

const SET_CLOCK: &str = "set the clock; with systemd: timedatectl set-ntp true";
const MIB: u64 = 1 << 20;

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    let status = subject.clock.status();
    let (space, inodes) = disk(&subject.state_dir);
    let [state_dir, again, db] = std::array::from_fn(|_| subject.state_dir.clone());
    [
        ("clock", clock(&status)),
        ("clock-against-cloud", clock_against(status.system_off_ms)),
        ("disk-space", space),
        ("disk-inodes", inodes),
        ("memory", memory()),
        ("permissions", permissions::check(&state_dir)),
        ("state-database", bounded(PATIENCE, move || database(&db))),
        ("durable-writes", bounded(PATIENCE, move || durable_writes(&again))),
        (
            "open-files",
            open_files(rustix::process::getrlimit(rustix::process::Resource::Nofile).current),
        ),
    ]
    .map(|(name, finding)| Group::Device.check(name, finding))
    .into()
}

fn clock(status: &ClockStatus) -> Finding {
    match (status.system_believed, status.verified) {
        (true, _) => Finding::ok(status.text.clone()),
        (false, true) => Finding::warning(status.text.clone()).hint(SET_CLOCK),
        (false, false) => Finding::failed(status.text.clone()).hint(SET_CLOCK),
    }
}

fn clock_against(off_ms: Option<i64>) -> Finding {
    let Some(off_ms) = off_ms else {
        return Finding::skipped("the cloud's time is not known");
    };
    let text = format!("{:+.1} s from the cloud's", off_ms as f64 / 1000.0);
    if off_ms.unsigned_abs() > TOLERANCE_MS {
        return Finding::warning(text).hint(SET_CLOCK);
    }
    Finding::ok(text)
}

fn disk(state_dir: &Path) -> (Finding, Finding) {
    match rustix::fs::statvfs(state_dir) {
        Ok(fs) => (
            disk_space(fs.f_bavail.saturating_mul(fs.f_frsize)),
            disk_inodes(fs.f_favail, fs.f_files),
        ),
        Err(error) => {
            let finding = Finding::failed(format!("{}: {error}", state_dir.display()))
                .hint("is this the right --state-dir, and may this user read it?");
            (finding.clone(), Finding::skipped(finding.detail))
        }
    }
}

/// Room for what the next bundle and the database need.
fn disk_space(free_bytes: u64) -> Finding {
    let text = format!("{} MiB free", free_bytes / MIB);
    let hint = "make room on the file system of the state folder; a full disk stops installing";
    match free_bytes / MIB {
        ..64 => Finding::failed(text).hint(hint),
        64..512 => Finding::warning(text).hint(hint),
        _ => Finding::ok(text),
    }
}

/// Some file systems count no inodes and say 0 of 0.
fn disk_inodes(free: u64, total: u64) -> Finding {
    let hint =
        "remove files from the file system of the state folder: it has room for no more names";
    match (free, total) {
        (_, 0) => Finding::ok("this file system has no limit of inodes"),
        (..100, _) => Finding::failed(format!("{free} inodes free")).hint(hint),
        (..1000, _) => Finding::warning(format!("{free} inodes free")).hint(hint),
        _ => Finding::ok(format!("{free} inodes free")),
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match available_kb(&text) {
        Some(kb) => memory_available(kb / 1024),
        None => Finding::skipped("this system does not tell"),
    }
}

fn available_kb(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn memory_available(mib: u64) -> Finding {
    let text = format!("{mib} MiB available");
    let hint = "stop what takes the memory; models need room for their weights and one run";
    match mib {
        ..32 => Finding::failed(text).hint(hint),
        32..128 => Finding::warning(text).hint(hint),
        _ => Finding::ok(text),
    }
}

fn database(state_dir: &Path) -> Finding {
    if !state_dir.join("state.db").exists() {
        return Finding::skipped("not made yet; the agent makes it at its first start");
    }
    let hint = "stop the agent, move state.db* away and start it: the models are installed anew";
    match State::inspect(state_dir).and_then(|state| state.quick_check()) {
        Ok(answer) if answer == "ok" => Finding::ok("whole"),
        Ok(answer) => Finding::failed(answer).hint(hint),
        Err(error) => Finding::failed(protocol::problem::chain(&error)).hint(hint),
    }
}

/// Writes and syncs a file without a name, which is gone when it is closed.
fn durable_writes(state_dir: &Path) -> Finding {
    let write = || {
        let mut file = tempfile::tempfile_in(state_dir)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()
    };
    let started = std::time::Instant::now();
    match write() {
        Ok(()) => Finding::ok(format!("4 KiB written and synced in {:.1?}", started.elapsed())),
        Err(error) => Finding::failed(format!("{}: {error}", state_dir.display()))
            .hint("is the file system full, read-only, or owned by another user?"),
    }
}

/// One per connection of an application, some for models and the database. `None`: no limit.
fn open_files(limit: Option<u64>) -> Finding {
    let Some(limit) = limit else { return Finding::ok("no limit") };
    let text = format!("at most {limit} for a process of this user");
    let hint = "raise it: ulimit -n 4096, or LimitNOFILE= of the service";
    match limit {
        ..128 => Finding::failed(text).hint(hint),
        128..1024 => Finding::warning(text).hint(hint),
        _ => Finding::ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome::{self, Failed, Ok as Fine, Skipped, Warning};
    use super::*;

    fn outcomes(findings: impl IntoIterator<Item = Finding>) -> Vec<Outcome> {
        let findings: Vec<_> = findings.into_iter().collect();
        for f in &findings {
            let needs_hint = matches!(f.outcome, Failed | Warning);
            assert_eq!(!f.hint.is_empty(), needs_hint, "{f:?}");
        }
        findings.into_iter().map(|f| f.outcome).collect()
    }

    #[test]
    fn clocks() {
        let status = |system_believed, verified| ClockStatus {
            verified,
            system_believed,
            ..ClockStatus::default()
        };
        let seen = [(true, true), (true, false), (false, true), (false, false)];
        let findings = seen.map(|(believed, verified)| clock(&status(believed, verified)));
        assert_eq!(outcomes(findings), [Fine, Fine, Warning, Failed]);
        let against = [None, Some(0), Some(60_000), Some(-60_001), Some(i64::MIN)];
        assert_eq!(outcomes(against.map(clock_against)), [Skipped, Fine, Fine, Warning, Warning]);
    }

    #[test]
    fn disks() {
        let space = [0, 63 * MIB, 64 * MIB, 511 * MIB, 512 * MIB, u64::MAX];
        assert_eq!(outcomes(space.map(disk_space)), [Failed, Failed, Warning, Warning, Fine, Fine]);
        let inodes = [(0, 0), (0, 1000), (99, 9999), (999, 9999), (1000, 9999)];
        assert_eq!(
            outcomes(inodes.map(|(free, total)| disk_inodes(free, total))),
            [Fine, Failed, Failed, Warning, Fine]
        );
    }

    #[test]
    fn memories_and_limits() {
        assert_eq!(available_kb("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2048));
        assert_eq!(available_kb(""), None);
        assert_eq!(outcomes([31, 127, 128].map(memory_available)), [Failed, Warning, Fine]);
        let limits = [Some(64), Some(512), Some(1024), None];
        assert_eq!(outcomes(limits.map(open_files)), [Failed, Warning, Fine, Fine]);
    }

    #[test]
    fn a_folder_that_takes_no_files_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(durable_writes(&folder.path().join("absent")).outcome, Failed);
        assert_eq!(durable_writes(folder.path()).outcome, Fine);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        assert_eq!(database(folder.path()).outcome, Skipped);
        std::fs::write(folder.path().join("state.db"), [7; 8192]).unwrap();
        assert_eq!(database(folder.path()).outcome, Failed);
    }
}
