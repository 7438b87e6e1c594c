//! Links between a device and its cloud, by profile: for the simulated world, where a message takes
//! a computed time, and for the relay, where packets do. Everything is decided by a seed.

use models::calibrate::random;
use std::time::Duration;

/// What worlds and links draw from a seed.
#[derive(Debug, Clone)]
pub struct Random(random::Random);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Self(random::Random::new(seed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// From 0 to 1, without 1.
    pub fn share(&mut self) -> f64 {
        self.0.share()
    }

    /// Whether something of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// One of so many, from 0 on.
    pub fn below(&mut self, count: u64) -> u64 {
        self.bits() % count.max(1)
    }

    /// Between two numbers above 0, all orders of magnitude alike.
    pub fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.share())
    }

    /// Exponentially distributed.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.share()).ln()
    }
}

/// How a link behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// For people.
    pub name: &'static str,
    /// From one end to the other.
    pub one_way: Duration,
    /// The mean of what is added at random.
    pub jitter: Duration,
    /// The probability that a packet is lost.
    pub loss: f64,
    /// The probability that a packet arrives twice.
    pub duplicate: f64,
    /// Out of each of the first, nothing passes for the second.
    pub outages: Option<(Duration, Duration)>,
    /// Nothing ever passes.
    pub blocked: bool,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The links of the deadline test.
pub const PROFILES: [Profile; 6] = [
    Profile { name: "fibre", one_way: ms(4), jitter: ms(1), loss: 0.0, ..NONE },
    Profile { name: "4G", one_way: ms(25), jitter: ms(8), loss: 0.002, ..NONE },
    Profile { name: "bad Wi-Fi", one_way: ms(5), jitter: ms(10), loss: 0.02, ..NONE },
    Profile { name: "satellite", one_way: ms(300), jitter: ms(10), loss: 0.005, ..NONE },
    Profile {
        name: "flapping",
        one_way: ms(20),
        jitter: ms(5),
        loss: 0.005,
        outages: Some((ms(5_000), ms(1_500))),
        ..NONE
    },
    Profile { name: "UDP blocked", blocked: true, ..NONE },
];

const NONE: Profile = Profile {
    name: "",
    one_way: ms(0),
    jitter: ms(0),
    loss: 0.0,
    duplicate: 0.01,
    outages: None,
    blocked: false,
};

impl Profile {
    /// Any: from good to hopeless, and one in ten is dead.
    pub fn drawn(random: &mut Random) -> Self {
        let one_way = Duration::from_secs_f64(random.log_uniform(0.000_5, 0.15));
        let jitter = one_way.mul_f64(random.share() * 2.0);
        let worst = if random.chance(0.5) { 0.3 } else { 0.02 };
        let (loss, duplicate) = (random.share() * worst, random.share() * worst);
        let period = Duration::from_secs_f64(random.log_uniform(0.1, 1.0));
        let outages = random.chance(0.3).then(|| (period, period.mul_f64(random.share())));
        Self {
            name: "drawn",
            one_way,
            jitter,
            loss,
            duplicate,
            outages,
            blocked: random.chance(0.1),
        }
    }

    /// Whether nothing passes, so long after the beginning.
    pub fn is_down(&self, at: Duration) -> bool {
        self.blocked || self.outages.is_some_and(|_| self.up_again(at).is_some())
    }

    /// The end of the outage at this time, if there is one. Each period ends with it.
    fn up_again(&self, at: Duration) -> Option<Duration> {
        let (period, down) = self.outages?;
        let into = Duration::from_nanos(u64::try_from(at.as_nanos() % period.as_nanos()).ok()?);
        (into >= period - down).then(|| at + (period - into))
    }

    /// How long one packet takes, if it arrives.
    pub fn packet(&self, random: &mut Random) -> Option<Duration> {
        if self.blocked || random.chance(self.loss) {
            return None;
        }
        Some(self.one_way + self.jitter.mul_f64(random.exponential(1.0).min(5.0)))
    }

    /// How long a message takes over a connection that repairs losses: each costs a probe timeout, and
    /// an outage is waited out. Nothing where it never arrives.
    pub fn message(&self, at: Duration, random: &mut Random) -> Option<Duration> {
        if self.blocked {
            return None;
        }
        let mut time = at;
        loop {
            if let Some(up) = self.up_again(time) {
                time = up + self.one_way;
            }
            match self.packet(random) {
                Some(took) => return Some(time + took - at),
                None => time += self.one_way * 4 + ms(25),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_come_and_go() {
        let flapping = PROFILES[4];
        for (at, down) in [(0, false), (3_499, false), (3_500, true), (4_999, true), (5_000, false)]
        {
            assert_eq!(flapping.is_down(ms(at)), down, "{at}");
        }
        let mut random = Random::new(1);
        assert!(flapping.message(ms(3_600), &mut random).unwrap() >= ms(1_400));
        assert!(PROFILES[5].message(ms(0), &mut random).is_none());
        assert!(!PROFILES[0].is_down(ms(9)) && PROFILES[5].is_down(ms(9)));
    }
}
