//! How often an address may fail to say who it is.
//!
//! Secrets have 256 bits: no rate of guessing finds one. What is bounded here is what failures
//! cost: a refusal beyond the rate is short, and not logged. A valid key is served from any
//! address, so that one misconfigured program does not shut out its neighbours behind the same
//! router.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Failures that an address may have at once.
const BURST: f64 = 20.0;
/// Failures that it may have per second in the long run.
const PER_S: f64 = 1.0;
/// Addresses that are remembered; beyond, all new ones share one bucket.
const ADDRESSES_MAX: usize = 4096;

/// A bucket of tokens that fills with time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Bucket {
    fn full(now: Duration) -> Self {
        Self { tokens: BURST, at: now }
    }

    fn fill(&mut self, now: Duration) {
        let since = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * PER_S).min(BURST);
        self.at = now;
    }

    /// Takes one, or says how long until there is one.
    fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / PER_S))
    }
}

/// The failures of every address. `now` is the time since any fixed moment.
#[derive(Debug, Default)]
pub struct Attempts {
    buckets: HashMap<IpAddr, Bucket>,
    overflow: Option<Bucket>,
}

impl Attempts {
    /// Counts a failure.
    ///
    /// # Errors
    /// How long this address should wait, when it failed too often.
    pub fn failed(&mut self, address: IpAddr, now: Duration) -> Result<(), Duration> {
        let address = network(address);
        if self.buckets.len() >= ADDRESSES_MAX && !self.buckets.contains_key(&address) {
            self.forget_full(now);
        }
        if self.buckets.len() >= ADDRESSES_MAX && !self.buckets.contains_key(&address) {
            return self.overflow.get_or_insert_with(|| Bucket::full(now)).take(now);
        }
        self.buckets.entry(address).or_insert_with(|| Bucket::full(now)).take(now)
    }

    /// How long this address should wait, when it failed too often: before what is costly is done for it.
    pub fn wait(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        let known = self.buckets.get(&network(address));
        let shared = self.overflow.as_ref().filter(|_| self.buckets.len() >= ADDRESSES_MAX);
        let mut bucket = *known.or(shared)?;
        bucket.take(now).err()
    }

    /// A bucket that is full again says nothing.
    fn forget_full(&mut self, now: Duration) {
        self.buckets.retain(|_, bucket| {
            bucket.fill(now);
            bucket.tokens < BURST
        });
    }

    /// How many addresses are remembered.
    pub fn addresses(&self) -> usize {
        self.buckets.len()
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_per_second() {
        let mut attempts = Attempts::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let other: IpAddr = "192.0.2.2".parse().unwrap();
        for _ in 0..20 {
            assert_eq!(attempts.failed(address, Duration::ZERO), Ok(()));
        }
        assert_eq!(attempts.failed(address, Duration::ZERO), Err(Duration::from_secs(1)));
        assert_eq!(attempts.failed(other, Duration::ZERO), Ok(()));
        assert_eq!(attempts.failed(address, Duration::from_secs(1)), Ok(()));
        assert!(attempts.failed(address, Duration::from_secs(1)).is_err());
    }

    #[test]
    fn who_failed_too_often_is_told_without_another_failure() {
        let mut attempts = Attempts::default();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        assert_eq!(attempts.wait(address, Duration::ZERO), None);
        for _ in 0..20 {
            assert_eq!(attempts.wait(address, Duration::ZERO), None);
            let _ = attempts.failed(address, Duration::ZERO);
        }
        for _ in 0..2 {
            let wait = attempts.wait(address, Duration::from_millis(500));
            assert_eq!(wait, Some(Duration::from_millis(500)));
        }
        assert_eq!(attempts.wait(address, Duration::from_secs(1)), None);
    }

    #[test]
    fn a_whole_ipv6_network_is_one_address() {
        let mut attempts = Attempts::default();
        for last in 0..20u128 {
            let address = IpAddr::V6((0x2001_0db8_u128 << 96 | last).into());
            assert_eq!(attempts.failed(address, Duration::ZERO), Ok(()));
        }
        let next = "2001:db8::ffff:1".parse().unwrap();
        assert!(attempts.failed(next, Duration::ZERO).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let mut attempts = Attempts::default();
        for number in 0..10_000u32 {
            let _ = attempts.failed(IpAddr::V4(number.into()), Duration::ZERO);
        }
        assert_eq!(attempts.addresses(), ADDRESSES_MAX);
        let fresh = IpAddr::V4(99_999.into());
        assert!(attempts.failed(fresh, Duration::ZERO).is_err(), "the shared bucket is empty");
        assert_eq!(attempts.failed(fresh, Duration::from_secs(30)), Ok(()));
        assert_eq!(attempts.addresses(), 1);
    }
}
