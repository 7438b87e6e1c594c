//! What others may be shown: sums over so many devices that no single one can be read off.
//!
//! A group of fewer than `k` devices is not shown. What was left out is shown as one group, `other`, where together it is
//! of `k` devices at least, and else not at all: with it and a total one could compute what was left out. (k-anonymity:
//! Samarati and Sweeney 1998. It says nothing against somebody who may ask again and again for other groups; so the groups
//! are columns from a fixed list, and only whole days.)

use std::fmt;
use std::str::FromStr;

use crate::AnalyticsError;
use crate::query::{Answer, Query};

/// The smallest group that is shown, unless the caller wants larger ones.
pub const DEVICES_MIN: u32 = 5;
/// Groups of one export.
const GROUPS_MAX: usize = 100_000;

/// A column that an export may be grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupBy {
    /// The UTC day.
    Day,
    /// The model.
    Model,
    /// Its version.
    Version,
    /// Where answers came from.
    Placement,
    /// Why there.
    Reason,
}

impl GroupBy {
    /// Every column that an export may be grouped by.
    pub const ALL: [GroupBy; 5] =
        [GroupBy::Day, GroupBy::Model, GroupBy::Version, GroupBy::Placement, GroupBy::Reason];

    /// The column's name.
    pub fn as_str(self) -> &'static str {
        match self {
            GroupBy::Day => "day",
            GroupBy::Model => "model",
            GroupBy::Version => "version",
            GroupBy::Placement => "placement",
            GroupBy::Reason => "reason",
        }
    }
}

/// No column that an export may be grouped by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of day, model, version, placement, reason")]
pub struct InvalidGroup(String);

impl FromStr for GroupBy {
    type Err = InvalidGroup;
    fn from_str(text: &str) -> Result<Self, InvalidGroup> {
        let found = Self::ALL.into_iter().find(|column| column.as_str() == text);
        found.ok_or_else(|| InvalidGroup(text.to_owned()))
    }
}

impl fmt::Display for GroupBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Requests and failures by group, of groups that `devices_min` devices are in; see the module's documentation.
///
/// # Errors
/// [`AnalyticsError`].
pub async fn export(
    query: &Query,
    by: &[GroupBy],
    devices_min: u32,
) -> Result<Answer, AnalyticsError> {
    let names: Vec<_> = by.iter().map(|column| column.as_str()).collect();
    let columns = |form: fn(&&str) -> String| names.iter().map(form).collect::<Vec<_>>().join(", ");
    let (own, groups) =
        (columns(|name| format!("{name}::varchar AS {name}")), columns(|name| (*name).to_owned()));
    let others = columns(|name| format!("'other' AS {name}"));
    let joined: Vec<_> =
        names.iter().map(|name| format!("(c.{name} IS NOT DISTINCT FROM s.{name})")).collect();
    let joined = if joined.is_empty() { "true".to_owned() } else { joined.join(" AND ") };
    let comma = if names.is_empty() { "" } else { ", " };
    let group_by =
        |of: &str| if names.is_empty() { String::new() } else { format!(" GROUP BY {of}") };
    let sums = "sum(requests) AS requests, sum(failures) AS failures";
    let sizes = format!(
        "SELECT {groups}{comma} count(DISTINCT device) AS devices, {sums} FROM counters{}",
        group_by(&groups)
    );
    let sql = format!(
        "WITH sizes AS ({sizes}), \
         small AS (SELECT count(DISTINCT c.device) AS devices, sum(c.requests) AS requests, sum(c.failures) AS failures \
           FROM counters c JOIN sizes s ON {joined} WHERE s.devices < {devices_min}) \
         SELECT {own}{comma} devices, requests, failures FROM sizes WHERE devices >= {devices_min} \
         UNION ALL SELECT {others}{comma} devices, requests, failures FROM small WHERE devices >= {devices_min}"
    );
    query.ask(&sql, GROUPS_MAX).await
}
