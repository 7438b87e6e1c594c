//! Whether inputs are packed for the way to the cloud. Packing loses accuracy, as much as was measured and
//! allowed when the bundle was made, and takes time at both ends; it is done where the way is what takes
//! longer, or costs.

use crate::paths::LinkState;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// When inputs are packed that may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thrift {
    /// Where it saves more time on the way than it takes, or where bytes are paid for.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Bytes of `FP32` that both ends pack and unpack in a second, about, on a slow core.
const PACKED_PER_S: f64 = 400e6;
/// What a connection begins with (RFC 6928, section 2), where the system keeps its window to itself.
const WINDOW_UNKNOWN_BYTES: u64 = 14_600;

impl Thrift {
    /// Whether it pays to send `packed` bytes in the place of `raw` ones. `paid`: there is a budget of bytes.
    pub fn pays(self, raw: u64, packed: u64, link: LinkState, paid: bool) -> bool {
        match self {
            _ if packed >= raw => false,
            Self::Never => false,
            Self::Always => true,
            Self::Auto => paid || saved(raw, packed, link) > packing(raw),
        }
    }
}

/// Time on the way: whole rounds, for which the bytes wait for the window.
fn saved(raw: u64, packed: u64, link: LinkState) -> Duration {
    let known = link.window_bytes > 0;
    let window_bytes = if known { link.window_bytes } else { WINDOW_UNKNOWN_BYTES };
    let link = LinkState { window_bytes, ..link };
    link.wire(raw).saturating_sub(link.wire(packed))
}

#[allow(clippy::cast_precision_loss)] // a time
fn packing(raw: u64) -> Duration {
    Duration::from_secs_f64(raw as f64 / PACKED_PER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(round_trip_us: u64, window_bytes: u64) -> LinkState {
        let round_trip = Duration::from_micros(round_trip_us);
        LinkState { round_trip, loss: 0.0, window_bytes }
    }

    #[test]
    fn packed_where_the_way_takes_longer_or_costs() {
        let check =
            |thrift: Thrift, (raw, packed), link, paid| thrift.pays(raw, packed, link, paid);
        let image = (602_112, 150_536);
        let wan = link(40_000, 200_000);
        assert!(check(Thrift::Auto, image, wan, false), "three rounds of 40 ms for 1.5 ms");
        assert!(!check(Thrift::Auto, image, link(40_000, 1 << 20), false), "one round either way");
        assert!(!check(Thrift::Auto, image, link(300, 200_000), false), "rounds of 0.3 ms");
        assert!(check(Thrift::Auto, image, link(300, 1 << 20), true), "bytes are paid for");
        assert!(check(Thrift::Auto, image, link(40_000, 0), false), "the window is not known");
        assert!(!check(Thrift::Auto, (3136, 792), link(40_000, 0), false), "few packets");
        for paid in [false, true] {
            assert!(!check(Thrift::Never, image, wan, paid));
            assert!(check(Thrift::Always, image, link(1, 1 << 30), paid));
            assert!(!check(Thrift::Always, (10, 18), wan, paid), "nothing is saved");
        }
    }
}
