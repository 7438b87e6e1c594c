//! What time it is on a device whose own clock may be years off.
//!
//! A device has two clocks: the system's, which tells a date and may be wrong or be set at any
//! moment, and a counter since boot, which tells no date and is never set. Time that the fleet CA
//! signed for a nonce of this device ties the counter to a date. From then on the system's clock is
//! believed only while it agrees; until then, while it is not before what is known, nor decades
//! after. Everything on a device that judges an end or a beginning asks [`DeviceTime::now`].
//!
//! Signed time has a floor, below which it is refused: the build of the program, or what was signed
//! before. A cloud whose clock once stood far ahead must not raise that floor for ever, so the floor
//! follows by [`LEAP_MS`] per start, and then at most twice as fast as time passes here. What it has
//! not followed yet is believed all the same, but can be taken back: a cloud that told a wrong time for
//! a day is, once it is right, refused for another day at most.

use std::fmt;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
const YEAR_MS: u64 = 365 * DAY_MS;
/// The system's clock agrees with signed time within this; clouds of one fleet differ by less.
pub const TOLERANCE_MS: u64 = MINUTE_MS;
/// A counter gains or loses at most one part in so many.
const DRIFT_PARTS: u64 = 5_000;
/// No program runs, and no fleet CA is valid, this long after its build.
pub const CEILING_MS: u64 = 30 * YEAR_MS;
/// How far one start may raise the floor before time has passed.
pub const LEAP_MS: u64 = 60 * MINUTE_MS;
/// An answer that took longer says too little about now.
pub const ROUND_TRIP_MAX_MS: u64 = 10_000;
/// What is kept is written anew when it is off by this much, to spare flash.
const KEEP_STEP_MS: u64 = 10 * MINUTE_MS;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The system's clock, Unix milliseconds.
    pub system_ms: i64,
    /// Milliseconds since the device was started, sleep included.
    pub counter_ms: u64,
}

/// What survives a restart. All in Unix milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Signed time before this is refused. Never goes back.
    pub floor_ms: i64,
    /// The last signed time: the best guess where nothing else is known.
    pub last_ms: i64,
}

/// What an opinion of the time rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The system's clock, which nothing speaks against.
    System,
    /// Signed time, and the counter since.
    Signed,
    /// The last that is known from before the start, and the counter since.
    Known,
}

/// The device's opinion of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Unix milliseconds.
    pub unix_ms: i64,
    /// What it rests on.
    pub basis: Basis,
    /// The system's clock minus this opinion.
    pub system_off_ms: i64,
}

impl Now {
    /// Unix seconds.
    pub fn unix_s(self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }
}

/// Why signed time is not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedTime {
    /// Either the cloud's clock was set back, or somebody wants old things to be valid again.
    #[error(
        "the cloud's time is {} what this device knows to have passed",
        Offset(difference(*.signed_ms, *.floor_ms))
    )]
    BeforeFloor {
        /// What was signed.
        signed_ms: i64,
        /// What it must not be before.
        floor_ms: i64,
    },
    /// Decades after this program was built.
    #[error("the cloud's time is decades after this program was built")]
    TooFar {
        /// What was signed.
        signed_ms: i64,
    },
    /// It says too little about now.
    #[error("the cloud took {round_trip_ms} ms to tell the time")]
    TooSlow {
        /// From asking to hearing.
        round_trip_ms: u64,
    },
}

impl RefusedTime {
    /// What a person can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::BeforeFloor { .. } => {
                "set the cloud's clock; if it once stood far ahead, enrol again with --replace"
            }
            Self::TooFar { .. } => "set the cloud's clock",
            Self::TooSlow { .. } => "",
        }
    }
}

/// Signed time was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// How much the cloud's clock was set since it last told the time to this process.
    pub cloud_jumped_ms: Option<i64>,
    /// What to keep, where that has changed enough.
    pub keep: Option<Kept>,
}

/// Signed time tied to the counter.
#[derive(Debug, Clone, Copy)]
struct Tie {
    unix_ms: i64,
    counter_ms: u64,
    error_ms: u64,
}

impl Tie {
    fn at(&self, counter_ms: u64) -> (i64, u64) {
        let since_ms = counter_ms.saturating_sub(self.counter_ms);
        let tolerance_ms = TOLERANCE_MS + self.error_ms + since_ms / DRIFT_PARTS;
        (plus(self.unix_ms, since_ms), tolerance_ms)
    }
}

/// What a device knows of the time.
#[derive(Debug, Clone)]
pub struct DeviceTime {
    build_ms: i64,
    started: Reading,
    /// How far the floor may rise at once, and the counter from which on it may rise further.
    headroom: (u64, u64),
    now: Kept,
    written: Kept,
    tie: Option<Tie>,
}

impl DeviceTime {
    /// At the start of the process: nothing is signed yet.
    pub fn new(build_ms: i64, kept: Kept, started: Reading) -> Self {
        let floor_ms = kept.floor_ms.max(build_ms);
        let now = Kept { floor_ms, last_ms: kept.last_ms };
        let headroom = (LEAP_MS, started.counter_ms);
        Self { build_ms, started, headroom, now, written: kept, tie: None }
    }

    /// Whether the fleet CA told the time since the process started.
    pub fn is_verified(&self) -> bool {
        self.tie.is_some()
    }

    /// What time it is.
    pub fn now(&self, reading: Reading) -> Now {
        let (known_ms, believed, basis) = match &self.tie {
            Some(tie) => {
                let (unix_ms, tolerance_ms) = tie.at(reading.counter_ms);
                (unix_ms, reading.system_ms.abs_diff(unix_ms) <= tolerance_ms, Basis::Signed)
            }
            None => {
                let from_ms = self.now.last_ms.max(self.now.floor_ms);
                let since_ms = reading.counter_ms.saturating_sub(self.started.counter_ms);
                let off_ms = difference(reading.system_ms, from_ms);
                let plausible = -signed(TOLERANCE_MS)..=signed(CEILING_MS);
                (plus(from_ms, since_ms), plausible.contains(&off_ms), Basis::Known)
            }
        };
        if believed {
            return Now { unix_ms: reading.system_ms, basis: Basis::System, system_off_ms: 0 };
        }
        let system_off_ms = difference(reading.system_ms, known_ms);
        Now { unix_ms: known_ms, basis, system_off_ms }
    }

    /// The system's clock minus signed time, once there is signed time.
    pub fn system_off_ms(&self, reading: Reading) -> Option<i64> {
        let (unix_ms, _) = self.tie.as_ref()?.at(reading.counter_ms);
        Some(difference(reading.system_ms, unix_ms))
    }

    /// Takes over a time whose signature and nonce were verified: asked for at `sent`, heard at
    /// `received`. It was right somewhere between the two.
    ///
    /// # Errors
    /// [`RefusedTime`]; nothing changes then.
    pub fn accept(
        &mut self,
        signed_ms: i64,
        sent: Reading,
        received: Reading,
    ) -> Result<Accepted, RefusedTime> {
        let round_trip_ms = received.counter_ms.saturating_sub(sent.counter_ms);
        let floor_ms = self.now.floor_ms;
        if round_trip_ms > ROUND_TRIP_MAX_MS {
            return Err(RefusedTime::TooSlow { round_trip_ms });
        }
        if difference(signed_ms, floor_ms) < -signed(TOLERANCE_MS) {
            return Err(RefusedTime::BeforeFloor { signed_ms, floor_ms });
        }
        if signed_ms > plus(self.build_ms, CEILING_MS) {
            return Err(RefusedTime::TooFar { signed_ms });
        }
        let error_ms = round_trip_ms.div_ceil(2);
        let unix_ms = plus(signed_ms, error_ms);
        let cloud_jumped_ms = self.tie.and_then(|tie| {
            let (expected_ms, tolerance_ms) = tie.at(received.counter_ms);
            let off_ms = difference(unix_ms, expected_ms);
            (off_ms.unsigned_abs() > tolerance_ms).then_some(off_ms)
        });
        self.tie = Some(Tie { unix_ms, counter_ms: received.counter_ms, error_ms });
        let (leap_ms, since_ms) = self.headroom;
        let counted_ms = received.counter_ms.saturating_sub(since_ms);
        let most_ms = plus(floor_ms, counted_ms.saturating_mul(2).saturating_add(leap_ms));
        self.headroom = (0, received.counter_ms);
        self.now = Kept { floor_ms: floor_ms.max(signed_ms.min(most_ms)), last_ms: signed_ms };
        Ok(Accepted { cloud_jumped_ms, keep: self.worth_keeping() })
    }

    fn worth_keeping(&mut self) -> Option<Kept> {
        let far = |a: i64, b: i64| a.abs_diff(b) >= KEEP_STEP_MS;
        let changed = far(self.now.floor_ms, self.written.floor_ms)
            || far(self.now.last_ms, self.written.last_ms);
        changed.then(|| {
            self.written = self.now;
            self.now
        })
    }
}

/// When a certificate, or whatever else has a life, is valid. Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From this second on.
    pub not_before_s: i64,
    /// Until this second.
    pub not_after_s: i64,
}

/// Something is not valid now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotValid {
    /// Its life has not begun.
    #[error("it becomes valid only in {0} s")]
    NotYet(i64),
    /// Its life is over.
    #[error("it ended {0} s ago")]
    Ended(i64),
}

impl Validity {
    /// Judges it.
    ///
    /// # Errors
    /// [`NotValid`].
    pub fn check(self, now_s: i64) -> Result<(), NotValid> {
        if now_s < self.not_before_s {
            return Err(NotValid::NotYet(self.not_before_s.saturating_sub(now_s)));
        }
        if now_s > self.not_after_s {
            return Err(NotValid::Ended(now_s.saturating_sub(self.not_after_s)));
        }
        Ok(())
    }
}

/// How far a clock is off, in milliseconds, for people: `6.0 years behind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset(pub i64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.unsigned_abs();
        let units = [(YEAR_MS, "years"), (DAY_MS, "days"), (60 * MINUTE_MS, "hours")];
        let fitting = units.into_iter().find(|(unit_ms, _)| ms >= *unit_ms * 2);
        let (unit_ms, unit) = fitting.unwrap_or((1000, "s"));
        let direction = if self.0 < 0 { "behind" } else { "ahead" };
        write!(f, "{:.1} {unit} {direction}", ms as f64 / unit_ms as f64)
    }
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn plus(unix_ms: i64, ms: u64) -> i64 {
    unix_ms.saturating_add(signed(ms))
}

fn difference(a_ms: i64, b_ms: i64) -> i64 {
    a_ms.saturating_sub(b_ms)
}

#[cfg(test)]
mod tests;
