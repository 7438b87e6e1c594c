//! Over what two ends talk: QUIC, or TLS over TCP where UDP is blocked. Which, is decided here for one
//! address; agents and inference nodes carry it out in the same way.
//!
//! **The race**: QUIC begins. If it is not there after a few rounds, as far as their length is known, TCP
//! begins too, and the first whole handshake wins ("Happy Eyeballs", RFC 8305, with other runners).
//! Where TCP won, UDP counts as silent, and the next connection begins with TCP.
//!
//! **The return**: while UDP is silent, QUIC is tried beside the connection that works, soon at first,
//! then ever more seldom. Once it answers, the connection over TCP takes no new requests and ends with
//! its last answer.
//!
//! What is known is not kept over a restart: a wrong guess costs a fraction of a second once.

use std::time::{Duration, Instant};

/// What carries a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP, its streams multiplexed by [`crate::mux`].
    Tcp,
}

impl Carrier {
    /// A word for people, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Quic => Self::Tcp,
            Self::Tcp => Self::Quic,
        }
    }
}

/// What a person wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// QUIC wherever it works.
    #[default]
    Auto,
    /// QUIC or nothing.
    Quic,
    /// Never QUIC.
    Tcp,
}

/// The names of a protocol in the TLS handshake (ALPN), over QUIC and over TCP.
pub const ALPNS: [(&[u8], &[u8]); 5] = [
    (crate::ALPN_AGENT, b"outrigger-tcp/1"),
    (crate::ALPN_ENROL, b"outrigger-enrol-tcp/1"),
    (crate::ALPN_RENEW, b"outrigger-renew-tcp/1"),
    (crate::ALPN_NODE, b"outrigger-node-tcp/1"),
    (crate::ALPN_NODE_ENROL, b"outrigger-node-enrol-tcp/1"),
];

/// What a protocol is called over TCP; `None` for one that is not spoken there.
pub fn alpn_over_tcp(over_quic: &[u8]) -> Option<&'static [u8]> {
    ALPNS.iter().find(|(quic, _)| *quic == over_quic).map(|(_, tcp)| *tcp)
}

/// Which protocol it is that is called so over TCP.
pub fn alpn_from_tcp(over_tcp: &[u8]) -> Option<&'static [u8]> {
    ALPNS.iter().find(|(_, tcp)| *tcp == over_tcp).map(|(quic, _)| *quic)
}

/// A head start is at least this: a round to anywhere but a satellite.
const HEAD_START_MIN: Duration = Duration::from_millis(250);
/// Nobody waits longer before TCP is tried as well.
const HEAD_START_MAX: Duration = Duration::from_secs(2);
/// A handshake of QUIC takes two rounds, the proof of the address included; a lost packet, another two.
const HEAD_START_ROUNDS: u32 = 4;
/// How long TCP is ahead where UDP was silent.
const TCP_HEAD_START: Duration = Duration::from_secs(1);
/// The first time that QUIC is tried again, soon, for a lost packet may have been all; each later one
/// waits twice as long...
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// ...but no longer than this.
const PROBE_LAST: Duration = Duration::from_secs(600);

/// How a connection is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// At once.
    pub first: Carrier,
    /// The other one too, if there is no connection after so long, or the first has failed.
    pub then: Option<(Carrier, Duration)>,
}

/// What is known of UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Udp {
    Unknown,
    Works { round_trip: Duration },
    Silent { probe_at: Instant, wait: Duration },
}

/// The ways to one address.
#[derive(Debug, Clone)]
pub struct Carriers {
    wanted: Wanted,
    udp: Udp,
}

impl Carriers {
    /// Nothing is known yet.
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, udp: Udp::Unknown }
    }

    /// How the next connection is begun.
    pub fn plan(&self) -> Plan {
        let only = |first| Plan { first, then: None };
        let (first, head_start) = match (self.wanted, self.udp) {
            (Wanted::Quic, _) => return only(Carrier::Quic),
            (Wanted::Tcp, _) => return only(Carrier::Tcp),
            (Wanted::Auto, Udp::Unknown) => (Carrier::Quic, HEAD_START_MIN),
            (Wanted::Auto, Udp::Works { round_trip }) => {
                let rounds = round_trip.saturating_mul(HEAD_START_ROUNDS);
                (Carrier::Quic, rounds.clamp(HEAD_START_MIN, HEAD_START_MAX))
            }
            (Wanted::Auto, Udp::Silent { .. }) => (Carrier::Tcp, TCP_HEAD_START),
        };
        Plan { first, then: Some((first.other(), head_start)) }
    }

    /// There is a connection, over this. `entropy` is a random number.
    pub fn handle_connected(
        &mut self,
        carrier: Carrier,
        round_trip: Duration,
        entropy: u64,
        now: Instant,
    ) {
        self.udp = match (carrier, self.wanted) {
            (Carrier::Quic, _) => Udp::Works { round_trip },
            // The network may be another than before, so the waits begin anew.
            (Carrier::Tcp, Wanted::Auto) => silent(PROBE_FIRST, entropy, now),
            (Carrier::Tcp, _) => self.udp,
        };
    }

    /// When QUIC is to be tried beside a connection over TCP.
    pub fn probe_at(&self, now: Instant) -> Option<Instant> {
        match (self.wanted, self.udp) {
            (Wanted::Quic | Wanted::Tcp, _) => None,
            (Wanted::Auto, Udp::Silent { probe_at, .. }) => Some(probe_at),
            // Somebody else connected over QUIC since.
            (Wanted::Auto, Udp::Unknown | Udp::Works { .. }) => Some(now),
        }
    }

    /// QUIC was tried beside TCP, in vain. `entropy` is a random number.
    pub fn handle_probe_failed(&mut self, entropy: u64, now: Instant) {
        let waited = match self.udp {
            Udp::Silent { wait, .. } => wait,
            Udp::Unknown | Udp::Works { .. } => PROBE_FIRST,
        };
        self.udp = silent((waited * 2).min(PROBE_LAST), entropy, now);
    }

    /// Why a connection is over this, for people.
    pub fn why(&self, carrier: Carrier) -> &'static str {
        match (carrier, self.wanted) {
            (Carrier::Quic, Wanted::Quic) | (Carrier::Tcp, Wanted::Tcp) => "configured",
            (Carrier::Quic, _) => "udp_answers",
            (Carrier::Tcp, _) => "udp_silent",
        }
    }
}

/// A fleet behind one firewall does not try at the same moment.
fn silent(wait: Duration, entropy: u64, now: Instant) -> Udp {
    let share = (entropy >> 11) as f64 / (1u64 << 53) as f64; // uniform in 0..1
    Udp::Silent { probe_at: now + wait.mul_f64(0.5 + 0.5 * share), wait }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn plan(carriers: &Carriers) -> (&'static str, Option<(&'static str, u128)>) {
        let Plan { first, then } = carriers.plan();
        (first.as_str(), then.map(|(carrier, after)| (carrier.as_str(), after.as_millis())))
    }

    #[test]
    fn quic_begins_and_tcp_follows_unless_a_person_says_otherwise() {
        assert_eq!(plan(&Carriers::new(Wanted::Auto)), ("quic", Some(("tcp", 250))));
        assert_eq!(plan(&Carriers::new(Wanted::Quic)), ("quic", None));
        assert_eq!(plan(&Carriers::new(Wanted::Tcp)), ("tcp", None));
    }

    #[test]
    fn the_head_start_follows_the_rounds() {
        let now = Instant::now();
        for (round_trip_ms, head_start_ms) in [(1, 250), (100, 400), (600, 2000)] {
            let mut carriers = Carriers::new(Wanted::Auto);
            carriers.handle_connected(Carrier::Quic, MS(round_trip_ms), 0, now);
            assert_eq!(plan(&carriers), ("quic", Some(("tcp", head_start_ms))));
            assert_eq!(carriers.why(Carrier::Quic), "udp_answers");
            assert_eq!(carriers.probe_at(now), Some(now), "for whoever is still on TCP");
        }
    }

    #[test]
    fn where_udp_is_silent_tcp_begins_and_quic_is_tried_ever_more_seldom() {
        let start = Instant::now();
        let mut carriers = Carriers::new(Wanted::Auto);
        carriers.handle_connected(Carrier::Tcp, MS(40), u64::MAX, start);
        assert_eq!(plan(&carriers), ("tcp", Some(("quic", 1000))));
        assert_eq!(carriers.why(Carrier::Tcp), "udp_silent");
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let at = carriers.probe_at(now).unwrap();
            waits.push(at.duration_since(now).as_secs_f64().round());
            now = at;
            carriers.handle_probe_failed(u64::MAX, now);
        }
        assert_eq!(
            waits,
            [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 600.0, 600.0]
        );
        carriers.handle_connected(Carrier::Tcp, MS(40), 0, now);
        assert_eq!(carriers.probe_at(now), Some(now + MS(500)), "after a new connection anew");
        carriers.handle_connected(Carrier::Quic, MS(40), 0, now);
        assert_eq!(plan(&carriers), ("quic", Some(("tcp", 250))));
    }

    #[test]
    fn who_wants_tcp_is_not_probed() {
        let mut carriers = Carriers::new(Wanted::Tcp);
        let now = Instant::now();
        carriers.handle_connected(Carrier::Tcp, MS(40), 0, now);
        assert_eq!((carriers.probe_at(now), carriers.why(Carrier::Tcp)), (None, "configured"));
    }

    #[test]
    fn every_protocol_has_a_name_over_both() {
        for (quic, tcp) in ALPNS {
            assert_eq!(alpn_over_tcp(quic), Some(tcp));
            assert_eq!(alpn_from_tcp(tcp), Some(quic));
        }
        assert_eq!(alpn_from_tcp(b"h2"), None);
    }
}
