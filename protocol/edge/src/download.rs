//! When a device may download, and how much: windows of the day, and bytes in a day and in a month, as its owner's
//! contract counts them.
//!
//! The time is that of the fleet's CA, with the owner's offset from UTC; a clock that is set back gives nothing
//! back. What is spent survives a crash by leases, as in [`crate::budget`]: bytes are written down as spent before
//! they are asked for, a few MiB at a time, so a crash may cost that much, and never lets more through.

use protocol::tuf::date::date_of;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const DAY_S: i64 = 24 * 3600;
/// What is written down ahead as spent.
const LEASE_BYTES: u64 = 4 << 20;

/// A time of the day in which downloads may run, in minutes from midnight; it may go over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    begin_min: u16,
    end_min: u16,
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time of the day as in \"01:00-05:30\"")]
pub struct InvalidWindow(String);

impl FromStr for Window {
    type Err = InvalidWindow;
    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let is_number =
                |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
            let fits = is_number(hours) && is_number(minutes);
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (fits && hours <= 24 && minutes < 60 && hours * 60 + minutes <= 24 * 60)
                .then_some(hours * 60 + minutes)
        };
        let parse = || {
            let (begin, end) = text.split_once('-')?;
            let (begin_min, end_min) = (minutes(begin)?, minutes(end)?);
            (begin_min != end_min).then_some(Self { begin_min, end_min })
        };
        parse().ok_or_else(|| InvalidWindow(text.to_owned()))
    }
}

impl TryFrom<String> for Window {
    type Error = InvalidWindow;
    fn try_from(text: String) -> Result<Self, InvalidWindow> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begin_min, end_min } = self;
        let part = |min: &u16| (min / 60, min % 60);
        let ((a, b), (c, d)) = (part(begin_min), part(end_min));
        write!(f, "{a:02}:{b:02}-{c:02}:{d:02}")
    }
}

impl Window {
    fn contains(self, second: i64) -> bool {
        let (begin, end) = (i64::from(self.begin_min) * 60, i64::from(self.end_min) * 60);
        if begin < end { (begin..end).contains(&second) } else { second >= begin || second < end }
    }

    /// Seconds from this second of the day until it opens.
    fn opens_in(self, second: i64) -> i64 {
        (i64::from(self.begin_min) * 60 - second).rem_euclid(DAY_S)
    }
}

/// What the device's owner allows; a budget of 0 is none, and no window is all day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DownloadPolicy {
    /// When.
    pub windows: Vec<Window>,
    /// The owner's clock minus UTC.
    pub utc_offset_min: i32,
    /// Bytes from midnight to midnight.
    pub bytes_per_day: u64,
    /// Bytes in a calendar month.
    pub bytes_per_month: u64,
}

/// Why a download waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It is not the time of day.
    Window,
    /// The day's bytes are spent.
    Day,
    /// The month's bytes are spent.
    Month,
}

impl Waiting {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Window => "waiting for window",
            Self::Day => "waiting for the next day's bytes",
            Self::Month => "waiting for the next month's bytes",
        }
    }
}

/// Whether bytes may be asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Up to so many.
    Go {
        /// How many; never 0.
        bytes: u64,
    },
    /// Not before that.
    Wait {
        /// Why.
        why: Waiting,
        /// Unix seconds.
        until_s: i64,
    },
}

/// What was spent, as it is written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Days from 1970 on, by the owner's clock.
    pub day: i64,
    /// Months from year 0 on.
    pub month: i64,
    /// Bytes of that day.
    pub day_bytes: u64,
    /// Bytes of that month.
    pub month_bytes: u64,
}

/// All downloads of a device.
#[derive(Debug, Clone)]
pub struct Downloads {
    policy: DownloadPolicy,
    spent: Spent,
    /// What of what is written down as spent is not.
    lease: u64,
}

impl Downloads {
    /// Goes on from what was written down.
    pub fn new(policy: DownloadPolicy, saved: Option<Spent>) -> Self {
        Self { policy, spent: saved.unwrap_or_default(), lease: 0 }
    }

    /// From now on something else is allowed.
    pub fn set_policy(&mut self, policy: DownloadPolicy) {
        self.policy = policy;
    }

    fn is_counted(&self) -> bool {
        self.policy.bytes_per_day > 0 || self.policy.bytes_per_month > 0
    }

    fn local_s(&self, now_s: i64) -> i64 {
        now_s.saturating_add(i64::from(self.policy.utc_offset_min) * 60)
    }

    /// A new day, or month, begins; not an old one, when a clock is set back.
    fn turn(&mut self, local_s: i64) {
        let (day, month) = (local_s.div_euclid(DAY_S), month(local_s));
        if day > self.spent.day {
            (self.spent.day, self.spent.day_bytes) = (day, 0);
            self.lease = 0; // it was written down for the day before
        }
        if month > self.spent.month {
            (self.spent.month, self.spent.month_bytes) = (month, 0);
        }
    }

    /// Whether bytes may be asked for at this moment, and how many.
    pub fn permit(&mut self, now_s: i64) -> Permit {
        let local_s = self.local_s(now_s);
        self.turn(local_s);
        let second = local_s.rem_euclid(DAY_S);
        let Self { policy, spent, .. } = self;
        let is_open =
            policy.windows.is_empty() || policy.windows.iter().any(|w| w.contains(second));
        if !is_open {
            let opens = policy.windows.iter().map(|window| window.opens_in(second)).min();
            let until_s = now_s.saturating_add(opens.unwrap_or(0));
            return Permit::Wait { why: Waiting::Window, until_s };
        }
        let left = |most: u64, spent: u64| match most {
            0 => u64::MAX,
            most => most.saturating_sub(spent),
        };
        let of_month = left(policy.bytes_per_month, spent.month_bytes);
        let of_day = left(policy.bytes_per_day, spent.day_bytes);
        if of_month == 0 {
            let until_s = now_s.saturating_add(next_month(local_s) - local_s);
            return Permit::Wait { why: Waiting::Month, until_s };
        }
        if of_day == 0 {
            let until_s = now_s.saturating_add(DAY_S - second);
            return Permit::Wait { why: Waiting::Day, until_s };
        }
        Permit::Go { bytes: of_day.min(of_month) }
    }

    /// What must be written down before that many bytes may come; nothing while the lease holds them.
    pub fn save(&mut self, bytes: u64) -> Option<Spent> {
        if !self.is_counted() || self.lease >= bytes {
            return None;
        }
        self.lease = LEASE_BYTES.max(bytes);
        let Spent { day_bytes, month_bytes, .. } = self.spent;
        let ahead = |spent: u64| spent.saturating_add(self.lease);
        Some(Spent { day_bytes: ahead(day_bytes), month_bytes: ahead(month_bytes), ..self.spent })
    }

    /// So many bytes came.
    pub fn spend(&mut self, bytes: u64) {
        self.lease = self.lease.saturating_sub(bytes);
        self.spent.day_bytes = self.spent.day_bytes.saturating_add(bytes);
        self.spent.month_bytes = self.spent.month_bytes.saturating_add(bytes);
    }

    /// What was spent, to be written down when a download ends, so that its lease is given back.
    pub fn spent(&mut self) -> Option<Spent> {
        self.lease = 0;
        self.is_counted().then_some(self.spent)
    }
}

/// The year and month (0 to 11) of a day, counted from 1970.
fn civil(day: i64) -> (i64, i64) {
    let (year, month, _) = date_of(day);
    (year, month - 1)
}

fn month(local_s: i64) -> i64 {
    let (year, month) = civil(local_s.div_euclid(DAY_S));
    year * 12 + month
}

/// The first second of the month after.
fn next_month(local_s: i64) -> i64 {
    let (now, today) = (month(local_s), local_s.div_euclid(DAY_S));
    let first = (today + 1..today + 32).find(|day| month(day * DAY_S) != now);
    first.unwrap_or(today + 31) * DAY_S
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-26, 16:00 UTC.
    const NOW_S: i64 = 1_795_708_800;

    fn policy(windows: &[&str], per_day: u64, per_month: u64) -> DownloadPolicy {
        DownloadPolicy {
            windows: windows.iter().map(|text| text.parse().unwrap()).collect(),
            utc_offset_min: 0,
            bytes_per_day: per_day,
            bytes_per_month: per_month,
        }
    }

    fn at(hour: i64) -> i64 {
        NOW_S.div_euclid(DAY_S) * DAY_S + hour * 3600
    }

    #[test]
    fn windows_are_read_and_written() {
        for good in ["01:00-05:30", "22:15-04:00", "00:00-24:00"] {
            assert_eq!(good.parse::<Window>().unwrap().to_string(), good);
        }
        for bad in
            ["", "1:00-5:00", "01:00", "25:00-26:00", "01:60-02:00", "02:00-02:00", "+1:00-02:00"]
        {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_opens_and_closes() {
        let cases = [
            (&["01:00-05:00"][..], 2, None),
            (&["01:00-05:00"], 5, Some(25)),
            (&["22:00-04:00"], 23, None),
            (&["22:00-04:00"], 3, None),
            (&["22:00-04:00"], 12, Some(22)),
            (&["22:00-04:00", "13:00-14:00"], 12, Some(13)),
            (&[], 12, None),
        ];
        for (windows, hour, opens) in cases {
            let permit = Downloads::new(policy(windows, 0, 0), None).permit(at(hour));
            let expected = opens.map_or(Permit::Go { bytes: u64::MAX }, |hour| Permit::Wait {
                why: Waiting::Window,
                until_s: at(hour),
            });
            assert_eq!(permit, expected, "{windows:?} at {hour}");
        }
        let mut ahead = policy(&["01:00-05:00"], 0, 0);
        ahead.utc_offset_min = 120;
        assert!(matches!(Downloads::new(ahead, None).permit(at(23)), Permit::Go { .. }));
    }

    #[test]
    fn a_day_and_a_month_have_their_bytes() {
        let mut downloads = Downloads::new(policy(&[], 100, 250), None);
        assert_eq!(downloads.permit(at(1)), Permit::Go { bytes: 100 });
        downloads.spend(60);
        assert_eq!(downloads.permit(at(2)), Permit::Go { bytes: 40 });
        downloads.spend(40);
        let wait = Permit::Wait { why: Waiting::Day, until_s: at(24) };
        assert_eq!(downloads.permit(at(3)), wait);
        assert_eq!(downloads.permit(at(-30)), Permit::Wait { why: Waiting::Day, until_s: at(-24) });
        downloads.spend(0);
        assert_eq!(downloads.permit(at(24)), Permit::Go { bytes: 100 });
        downloads.spend(150); // what was on its way already
        let december = at(24) + 4 * DAY_S;
        assert_eq!(
            downloads.permit(at(25)),
            Permit::Wait { why: Waiting::Month, until_s: december }
        );
        assert_eq!(downloads.permit(december), Permit::Go { bytes: 100 });
    }

    #[test]
    fn months_are_those_of_the_calendar() {
        // Days of known dates: 1970-01-01, 2000-02-29, 2000-03-01, 2024-12-31, 2025-01-01.
        let cases = [
            (0, 1970, 0),
            (11_016, 2000, 1),
            (11_017, 2000, 2),
            (20_088, 2024, 11),
            (20_089, 2025, 0),
        ];
        for (day, year, month) in cases {
            assert_eq!(civil(day), (year, month), "{day}");
        }
        assert_eq!(next_month(20_088 * DAY_S + 5), 20_089 * DAY_S);
    }

    proptest! {
        /// Whatever crashes and whenever: no day has more than its bytes, but for the one request that was granted.
        #[test]
        fn no_crash_gives_bytes_back(
            steps in prop::collection::vec((0i64..20_000, 1u64..3_000_000, any::<bool>()), 1..200),
        ) {
            let most = 20_000_000;
            let mut downloads = Downloads::new(policy(&[], most, 0), None);
            let (mut now, mut saved, mut days) = (NOW_S, None, std::collections::BTreeMap::new());
            for (wait_s, wanted, crashes) in steps {
                now += wait_s;
                if crashes {
                    downloads = Downloads::new(policy(&[], most, 0), saved);
                }
                let Permit::Go { bytes } = downloads.permit(now) else { continue };
                let bytes = bytes.min(wanted);
                saved = downloads.save(bytes).or(saved);
                downloads.spend(bytes);
                *days.entry(now.div_euclid(DAY_S)).or_insert(0) += bytes;
            }
            prop_assert!(days.values().all(|bytes| *bytes <= most), "{days:?}");
        }
    }
}
