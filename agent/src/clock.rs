//! What time it is, for everything here that judges an end or a beginning. `edge::time` decides;
//! this reads the two clocks, keeps what must survive a restart (`time.json`), and says so once when
//! the system's clock falls out of favour or comes back into it.
//!
//! Not asked are: timestamps of the log, of `support-bundle` and of a model's statistics (for people,
//! who want to see what the system's clock says), and everything that waits (which counts, and has no
//! date).

use crate::counters::Counters;
use ::link::durable::{self, Access};
use edge::time::{Basis, DeviceTime, Kept, Now, Offset, Reading, RefusedTime};
use protocol::id::ContentHash;
use protocol::problem::chain;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const TIME_FILE: &str = "time.json";
/// When this program was built, in Unix seconds: no right clock stands before it.
const BUILD_S: &str = env!("OUTRIGGER_BUILD_S");

/// `time.json`: what one fleet CA told.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    ca_hash: ContentHash,
    kept: Kept,
}

/// How the clock stands, for status and metrics.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClockStatus {
    /// Whether the fleet CA told the time since the start.
    pub(crate) verified: bool,
    /// The system's clock minus the time that the fleet CA told.
    pub(crate) system_off_ms: Option<i64>,
    /// Whether the system's clock is believed.
    pub(crate) system_believed: bool,
    /// For people.
    pub(crate) text: String,
}

/// The device's time.
pub(crate) struct Clock {
    told: Mutex<Told>,
    /// Where it is kept; nowhere for a mere look.
    file: Option<(PathBuf, ContentHash)>,
    counters: Arc<Counters>,
}

struct Told {
    time: DeviceTime,
    /// The basis that was last spoken of.
    basis: Basis,
}

impl Clock {
    /// The time of a device that is a member of the fleet with this CA.
    pub(crate) fn open(state_dir: &Path, ca_hash: ContentHash, counters: Arc<Counters>) -> Self {
        let file = state_dir.join(TIME_FILE);
        let kept = read(&file, ca_hash).unwrap_or_else(|error| {
            // Worth no more than the floor that is lost with it: the build.
            counters.time_not_kept(&chain(&error));
            None
        });
        Self::new(kept.unwrap_or_default(), Some((file, ca_hash)), counters)
    }

    /// The time of a device that becomes a member: what another CA told is of no use any more, and
    /// a floor that is too high ends here.
    pub(crate) fn fresh(state_dir: &Path, ca_hash: ContentHash) -> Self {
        let file = state_dir.join(TIME_FILE);
        Self::new(Kept::default(), Some((file, ca_hash)), Arc::default())
    }

    /// For looking only: nothing is written. Without a fleet CA, the build is all that is known.
    pub(crate) fn inspect(state_dir: &Path, ca_hash: Option<ContentHash>) -> Self {
        let file = state_dir.join(TIME_FILE);
        let kept = ca_hash.and_then(|ca_hash| read(&file, ca_hash).ok().flatten());
        Self::new(kept.unwrap_or_default(), None, Arc::default())
    }

    fn new(kept: Kept, file: Option<(PathBuf, ContentHash)>, counters: Arc<Counters>) -> Self {
        let build_ms = BUILD_S.parse::<i64>().unwrap_or(0).saturating_mul(1000);
        let time = DeviceTime::new(build_ms, kept, reading());
        Self { told: Mutex::new(Told { time, basis: Basis::System }), file, counters }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Now {
        let mut told = self.told();
        let now = told.time.now(reading());
        if now.basis != told.basis {
            told.basis = now.basis;
            drop(told);
            let believed = now.basis == Basis::System;
            self.counters.clock_changed(believed, &words(now));
        }
        now
    }

    /// Unix seconds.
    pub(crate) fn now_s(&self) -> i64 {
        self.now().unix_s()
    }

    /// Unix nanoseconds, by the same opinion.
    pub(crate) fn now_ns(&self) -> u64 {
        let off_ns = i128::from(self.now().system_off_ms) * 1_000_000;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let system_ns = i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
        u64::try_from(system_ns.saturating_sub(off_ns)).unwrap_or(0)
    }

    /// Both clocks now.
    pub(crate) fn reading(&self) -> Reading {
        reading()
    }

    /// Takes over a time whose nonce and signature were verified.
    pub(crate) fn accept(&self, signed_ms: i64, sent: Reading) -> Result<(), RefusedTime> {
        let accepted = self.told().time.accept(signed_ms, sent, reading())?;
        self.counters.time_verified();
        if let Some(jumped_ms) = accepted.cloud_jumped_ms {
            self.counters.cloud_clock_set(&Offset(jumped_ms).to_string());
        }
        if let (Some(kept), Some((file, ca_hash))) = (accepted.keep, &self.file)
            && let Err(error) = write(file, &File { ca_hash: *ca_hash, kept })
        {
            self.counters.time_not_kept(&chain(&error));
        }
        self.now(); // says so where the system's clock turns out to be wrong
        Ok(())
    }

    /// The cloud's word on the time was not taken.
    pub(crate) fn refused(&self, why: &str) {
        self.counters.time_refused(why);
    }

    /// How it stands.
    pub(crate) fn status(&self) -> ClockStatus {
        let now = self.now();
        let (verified, system_off_ms) = {
            let told = self.told();
            (told.time.is_verified(), told.time.system_off_ms(reading()))
        };
        let system_believed = now.basis == Basis::System;
        let text = match (system_believed, verified) {
            (true, true) => "agrees with signed time from the cloud".to_owned(),
            (true, false) => "not compared with the cloud's yet".to_owned(),
            (false, _) => words(now),
        };
        ClockStatus { verified, system_off_ms, system_believed, text }
    }
}

/// What is used instead of the system's clock, or that it is used.
fn words(now: Now) -> String {
    let off = Offset(now.system_off_ms);
    match now.basis {
        Basis::System => "plausible".into(),
        Basis::Signed => format!("{off}; using signed time from the cloud"),
        Basis::Known => {
            format!("{off}, by what is known; counting on from there until the cloud tells")
        }
    }
}

fn reading() -> Reading {
    #[cfg(target_os = "linux")]
    let id = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let id = rustix::time::ClockId::Monotonic;
    let counter = rustix::time::clock_gettime(id);
    let ms = |s: i64, ns: i64| s.saturating_mul(1000).saturating_add(ns / 1_000_000);
    let counter_ms = ms(counter.tv_sec, counter.tv_nsec);
    let system_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    Reading { system_ms, counter_ms: u64::try_from(counter_ms).unwrap_or(0) }
}

fn read(file: &Path, ca_hash: ContentHash) -> io::Result<Option<Kept>> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found: File = serde_json::from_slice(&bytes)?;
    Ok((found.ca_hash == ca_hash).then_some(found.kept))
}

fn write(file: &Path, contents: &File) -> io::Result<()> {
    durable::write(file, &serde_json::to_vec(contents)?, Access::Public)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Truth, as far as this machine knows it.
    fn system_ms() -> i64 {
        reading().system_ms
    }

    #[test]
    fn what_was_told_survives_a_restart_and_only_for_its_fleet() {
        let folder = tempfile::tempdir().unwrap();
        let ca_hash = ContentHash::of(b"ca");
        let ahead_ms = system_ms() + 3_600_000;
        let clock = Clock::open(folder.path(), ca_hash, Arc::default());
        clock.accept(ahead_ms, clock.reading()).unwrap();
        assert!(!clock.status().system_believed, "{:?}", clock.status());

        let again = Clock::open(folder.path(), ca_hash, Arc::default());
        assert!(!again.status().verified);
        assert!(again.now().unix_ms >= ahead_ms, "the system's clock is behind what is known");
        let kept = read(&folder.path().join(TIME_FILE), ca_hash).unwrap().unwrap();
        let refused = again.accept(kept.floor_ms - 3_600_000, again.reading());
        assert!(matches!(refused, Err(RefusedTime::BeforeFloor { .. })), "{refused:?}");

        let elsewhere = Clock::open(folder.path(), ContentHash::of(b"other"), Arc::default());
        elsewhere.accept(system_ms(), elsewhere.reading()).unwrap();
    }

    #[test]
    fn a_damaged_file_costs_the_floor_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(TIME_FILE), "{").unwrap();
        let clock = Clock::open(folder.path(), ContentHash::of(b"ca"), Arc::default());
        clock.accept(system_ms(), clock.reading()).unwrap();
        assert!(clock.status().verified);
    }

    #[test]
    fn a_look_writes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::inspect(folder.path(), Some(ContentHash::of(b"ca")));
        clock.accept(system_ms(), clock.reading()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
