//! What may be shown of the whole fleet: figures that hide each device in a crowd, in a bounded number of
//! groups.
//!
//! A figure only moves once so many different devices have added to it since it moved last (k-anonymity,
//! Samarati and Sweeney 1998, of each step): whoever watches it sees sums of a crowd and never what one
//! device has sent. Groups are named by what devices say, so that their number has a bound: beyond it a group
//! takes the place of the one that was never shown and has been quiet for longest, and where all were shown
//! it counts as one with all others.

/// What is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrowdPolicy {
    /// Different devices behind each step of a figure, at least.
    pub devices_min: u32,
    /// Groups that have figures of their own, at most.
    pub groups_max: u32,
}

impl Default for CrowdPolicy {
    fn default() -> Self {
        Self { devices_min: 5, groups_max: 500 }
    }
}

/// Where a group's figures go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// They are its own.
    Own,
    /// The same, once the quietest of those that were never shown has given way.
    Instead,
    /// They are those of all that found no place.
    Others,
}

impl CrowdPolicy {
    /// Where the figures of a group go that is not known yet, beside `groups` that are, `hidden` of which
    /// were never shown.
    pub fn place(&self, groups: u32, hidden: u32) -> Place {
        match groups < self.groups_max {
            true => Place::Own,
            false if hidden > 0 => Place::Instead,
            false => Place::Others,
        }
    }

    /// Whether what so many devices have added may be shown.
    pub fn shows(&self, devices: u32) -> bool {
        devices >= self.devices_min.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crowds_are_shown() {
        let policy = CrowdPolicy::default();
        assert_eq!([4, 5, 6].map(|devices| policy.shows(devices)), [false, true, true]);
        let open = CrowdPolicy { devices_min: 0, ..policy };
        assert_eq!([0, 1].map(|devices| open.shows(devices)), [false, true]);
    }

    #[test]
    fn groups_are_bounded_and_who_was_shown_stays() {
        let policy = CrowdPolicy { groups_max: 3, ..CrowdPolicy::default() };
        assert_eq!(policy.place(2, 2), Place::Own);
        assert_eq!(policy.place(3, 1), Place::Instead);
        assert_eq!(policy.place(3, 0), Place::Others);
    }
}
