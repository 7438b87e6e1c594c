//! How long the two ways to an answer take: the model on the device, and the cloud.
//!
//! What is learned of the cloud is what is *not* the wire: its queue, its model, losses. The wire
//! itself is computed anew for each request from the link as it is now ([`LinkState::wire`]), so
//! that a large payload, or a link that has just become slow, counts before an answer has shown it.

use crate::quantiles::Quantiles;
use std::time::{Duration, Instant};

/// How long something is expected to take.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// In half of the cases.
    pub usual: Duration,
    /// In 19 of 20 cases.
    pub high: Duration,
    /// How many recent observations it rests on.
    pub evidence: f64,
}

/// Fewer recent observations are no ground to leave the usual order.
pub const EVIDENCE_MIN: f64 = 8.0;

const USUAL: f64 = 0.5;
const HIGH: f64 = 0.95;

impl Estimate {
    /// Whether there is ground to decide on it.
    pub fn is_founded(&self) -> bool {
        self.evidence >= EVIDENCE_MIN
    }

    fn of(quantiles: &Quantiles) -> Self {
        let at = |share| Duration::from_micros(quantiles.quantile(share).unwrap_or(0));
        Self { usual: at(USUAL), high: at(HIGH), evidence: quantiles.evidence() }
    }
}

/// Runs of one model on the device.
#[derive(Debug, Clone, Default)]
pub struct EdgePath {
    runs: Quantiles,
    under_way: u32,
}

impl EdgePath {
    /// A run was asked for. Its end must be told with [`EdgePath::left`].
    pub fn entered(&mut self) {
        self.under_way += 1;
    }

    /// A run ended, was refused, or nobody waits for it any more.
    pub fn left(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Whether no run is under way.
    pub fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// A run took so long, without its wait in the queue.
    pub fn ran(&mut self, took: Duration, now: Instant) {
        self.runs.record(micros(took), now);
    }

    /// How long the next answer takes where `sessions` runs go on side by side: those ahead of it
    /// in the queue, then its own run.
    pub fn estimate(&self, sessions: u32) -> Estimate {
        let own = Estimate::of(&self.runs);
        let ahead = self.under_way / sessions.max(1);
        let wait = own.usual.saturating_mul(ahead);
        Estimate { usual: own.usual + wait, high: own.high + wait, ..own }
    }
}

/// Payloads up to these sizes are remembered together; the last class has no bound.
const CLASS_BOUNDS_BYTES: [u64; 3] = [4 << 10, 64 << 10, 1 << 20];

/// Answers of the cloud to one model's requests.
#[derive(Debug, Clone, Default)]
pub struct CloudPath {
    beyond_wire: [Quantiles; CLASS_BOUNDS_BYTES.len() + 1],
}

impl CloudPath {
    /// An answer to so many bytes took so long, on this link. One that did not come in time is told
    /// with the time that was waited: it would have taken at least that.
    pub fn took(&mut self, bytes: u64, link: LinkState, took: Duration, now: Instant) {
        let beyond = took.saturating_sub(link.wire(bytes));
        self.beyond_wire[class(bytes)].record(micros(beyond), now);
    }

    /// How long the next answer to so many bytes takes on this link.
    pub fn estimate(&self, bytes: u64, link: LinkState) -> Estimate {
        let wire = link.wire(bytes);
        let own = class(bytes);
        let nearest = (0..self.beyond_wire.len())
            .filter(|other| self.beyond_wire[*other].evidence() > 0.0)
            .min_by_key(|other| other.abs_diff(own));
        let Some(nearest) = nearest else {
            let high = wire + link.repair(bytes);
            return Estimate { usual: wire, high, evidence: 0.0 };
        };
        let beyond = Estimate::of(&self.beyond_wire[nearest]);
        Estimate { usual: wire + beyond.usual, high: wire + beyond.high, ..beyond }
    }
}

fn class(bytes: u64) -> usize {
    CLASS_BOUNDS_BYTES.iter().position(|bound| bytes <= *bound).unwrap_or(CLASS_BOUNDS_BYTES.len())
}

/// The link to the cloud at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LinkState {
    /// The smoothed round trip.
    pub round_trip: Duration,
    /// The share of packets that were lost lately.
    pub loss: f64,
    /// Bytes that may be under way at a time (the congestion window).
    pub window_bytes: u64,
}

/// What a packet carries, about.
const PACKET_BYTES: u64 = 1_200;
/// Beyond this probability a loss is to be expected in [`HIGH`] of the cases.
const LOSS_COUNTS: f64 = 1.0 - HIGH;

impl LinkState {
    /// The time of so many bytes to the cloud and of a small answer back: a round trip, and another
    /// one for each further window that the bytes fill.
    pub fn wire(&self, bytes: u64) -> Duration {
        let windows = bytes.saturating_sub(1).checked_div(self.window_bytes).unwrap_or(0);
        self.round_trip.saturating_mul(u32::try_from(windows + 1).unwrap_or(u32::MAX))
    }

    /// What a loss adds, where one is to be expected: a probe timeout (RFC 9002, section 6.2) with
    /// the customary variance of a quarter of the round trip and 25 ms until acknowledgement.
    pub fn repair(&self, bytes: u64) -> Duration {
        let packets = i32::try_from(bytes / PACKET_BYTES + 2).unwrap_or(i32::MAX);
        if 1.0 - (1.0 - self.loss).powi(packets) < LOSS_COUNTS {
            return Duration::ZERO;
        }
        self.round_trip * 2 + Duration::from_millis(25)
    }
}

/// What a connection counts, since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Which connection it is.
    pub connection: u64,
    /// The smoothed round trip.
    pub round_trip: Duration,
    /// The congestion window.
    pub window_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets lost.
    pub lost_packets: u64,
}

/// After so many packets an old loss counts little (by a factor of e).
const LOSS_MEMORY_PACKETS: f64 = 1_000.0;

/// Follows the counters of one connection after the other.
#[derive(Debug, Clone, Default)]
pub struct LinkMeter {
    last: LinkCounters,
    loss: f64,
}

impl LinkMeter {
    /// The counters as they are now; the state of the link by them.
    pub fn read(&mut self, counters: LinkCounters) -> LinkState {
        if counters.connection != self.last.connection {
            self.last = counters; // what it lost before is not known by when
        }
        let sent = counters.sent_packets.saturating_sub(self.last.sent_packets);
        let lost = counters.lost_packets.saturating_sub(self.last.lost_packets).min(sent);
        if sent > 0 {
            let share = lost as f64 / sent as f64;
            let weight = 1.0 - (-(sent as f64) / LOSS_MEMORY_PACKETS).exp();
            self.loss += weight * (share - self.loss);
        }
        self.last = counters;
        self.state()
    }

    /// The state as it was read last.
    pub fn state(&self) -> LinkState {
        let LinkCounters { round_trip, window_bytes, .. } = self.last;
        LinkState { round_trip, loss: self.loss, window_bytes }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn link(round_trip_ms: u64, window_bytes: u64) -> LinkState {
        LinkState { round_trip: MS(round_trip_ms), loss: 0.0, window_bytes }
    }

    #[test]
    fn the_wire_takes_a_round_trip_for_each_window() {
        for (bytes, expected_ms) in [(0, 40), (1, 40), (10_000, 40), (10_001, 80), (100_000, 400)] {
            assert_eq!(link(40, 10_000).wire(bytes), MS(expected_ms), "{bytes}");
        }
        assert_eq!(link(40, 0).wire(1 << 30), MS(40), "nothing is known of the window");
    }

    #[test]
    fn a_loss_counts_where_it_is_to_be_expected() {
        let lossy = LinkState { loss: 0.02, ..link(40, 100_000) };
        assert_eq!(lossy.repair(100), Duration::ZERO, "two packets of which 2 % are lost");
        assert_eq!(lossy.repair(12_000), MS(105));
        assert_eq!(link(40, 1).repair(1 << 20), Duration::ZERO);
    }

    #[test]
    fn those_ahead_in_the_queue_are_waited_for() {
        let mut path = EdgePath::default();
        let now = Instant::now();
        (0..20).for_each(|_| path.ran(MS(8), now));
        let alone = path.estimate(2);
        assert!(alone.is_founded() && alone.usual >= MS(8) && alone.usual < MS(10));
        (0..4).for_each(|_| path.entered());
        assert_eq!(path.estimate(2).usual, alone.usual * 3);
        (0..9).for_each(|_| path.left());
        assert_eq!(path.estimate(2), alone);
    }

    #[test]
    fn what_the_cloud_takes_is_learned_without_the_wire() {
        let mut path = CloudPath::default();
        let (near, now) = (link(20, 12_000), Instant::now());
        assert_eq!(path.estimate(100, near).usual, MS(20));
        (0..20).for_each(|_| path.took(784, near, MS(30), now));
        let high = |bytes, link| path.estimate(bytes, link).high.as_millis();
        assert!((30..=32).contains(&high(784, near)), "{}", high(784, near));
        assert!((210..=212).contains(&high(784, link(200, 12_000))), "the link became slow");
        assert!((1_010..=1_012).contains(&high(600_000, near)), "fifty windows");
    }

    #[test]
    fn losses_are_followed_over_connections() {
        let mut meter = LinkMeter::default();
        let counters = |connection, sent_packets, lost_packets| LinkCounters {
            connection,
            round_trip: MS(9),
            window_bytes: 7,
            sent_packets,
            lost_packets,
        };
        assert_eq!(meter.read(counters(0, 0, 0)).loss, 0.0);
        let loss = meter.read(counters(0, 1_000, 100)).loss;
        assert!((0.05..0.07).contains(&loss), "{loss}");
        assert_eq!(
            meter.read(counters(1, 10, 9)).loss,
            loss,
            "a new connection has lost nothing yet"
        );
        assert!(meter.read(counters(1, 9_000, 9)).loss < 0.001);
        assert_eq!(meter.state().round_trip, MS(9));
    }
}
