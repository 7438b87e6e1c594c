//! Where both ends touch the world in the same way: TLS configuration and trust ([`tls`],
//! [`pki`]), QUIC endpoints with their limits ([`quic`]), the same streams over TLS and TCP ([`tcp`],
//! through a [`proxy`] too), connections over whichever of the two answers ([`connection`], [`dial`]), what devices say
//! on them ([`device`]), and between devices ([`peer`]), frames on streams ([`frames`]),
//! files that survive a power cut ([`durable`]), counters ([`counter`]), what Prometheus
//! reads ([`metrics`]), [`traces`], the way of all that to a collector ([`otlp`]), by which certificates such servers are trusted ([`roots`]), and what the system says of itself
//! ([`system`]).
//!
//! The pure crates beside this one never import it; it never decides anything.

pub mod connection;
pub mod counter;
pub mod device;
pub mod dial;
pub mod durable;
pub mod frames;
pub mod metrics;
pub mod otlp;
pub mod peer;
pub mod pki;
pub mod proxy;
pub mod quic;
pub mod roots;
pub mod system;
pub mod tcp;
pub mod tls;
pub mod traces;

/// Random bytes from the operating system.
///
/// # Panics
/// When the operating system has no randomness to give, on which nothing here could be safe.
pub fn entropy<const N: usize>() -> [u8; N] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the operating system's randomness");
    bytes
}
