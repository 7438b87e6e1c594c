//! How many sessions a model has: sized from the cores, adjusted by what is measured.
//!
//! The [`Scaler`] looks at one window after the other. It adds a session when requests wait long
//! beside their run and the sessions are busy, in [`ScalingPolicy::windows_up`] windows in a row;
//! it takes one away when the rest would not be busy without it, in
//! [`ScalingPolicy::windows_down`] windows in a row. The two conditions cannot both hold for the
//! same load (busy beyond 80 % of n, or below 60 % of n - 1), so at a constant load it settles.
//!
//! An added session is on trial: sessions share cores and memory bandwidth, and one more can make
//! all of them slower. If after the cool-down neither more items get done nor the wait has become
//! shorter, it is taken back, and that number is not tried again for
//! [`ScalingPolicy::hold`].
//!
//! # The loop that drives it
//!
//! ```
//! use fleet::scaling::{Run, Scaler, ScalingPolicy};
//! # use outrigger_fleet as fleet;
//! use std::time::{Duration, Instant};
//!
//! let mut now = Instant::now();
//! let mut scaler = Scaler::new(ScalingPolicy::for_cores(8, 1), now);
//! assert_eq!(scaler.sessions(), 4); // to begin with
//! let ms = Duration::from_millis;
//! // After each batch: what the batcher's action and the session's report say.
//! scaler.handle_run(Run { requests: 3, items: 3, waited: ms(30), ran: ms(8) });
//! if scaler.poll_timeout() <= now {
//!     if let Some(sessions) = scaler.poll_sessions(now) {
//!         println!("start or retire sessions until there are {sessions}");
//!     }
//! }
//! ```

use std::time::{Duration, Instant};

/// The rules of one model's scaler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalingPolicy {
    /// Sessions at least.
    pub min: u32,
    /// Sessions at most.
    pub max: u32,
    /// Sessions to begin with.
    pub start: u32,
    /// How long is measured before a decision.
    pub window: Duration,
    /// Windows in a row that ask for one more.
    pub windows_up: u32,
    /// Windows in a row that can do with one less.
    pub windows_down: u32,
    /// Windows that say nothing after a change.
    pub cool_down: u32,
    /// How long a number that did not pay off is not tried again.
    pub hold: Duration,
}

impl ScalingPolicy {
    /// For a machine with so many cores, and sessions that use so many threads each. Half of what
    /// fits is there at the start: the rest is memory that a quiet model does not need.
    pub fn for_cores(cores: u32, threads_per_session: u32) -> Self {
        let max = (cores / threads_per_session.max(1)).max(1);
        Self {
            min: 1,
            max,
            start: max.div_ceil(2),
            window: Duration::from_secs(1),
            windows_up: 2,
            windows_down: 10,
            cool_down: 2,
            hold: Duration::from_secs(300),
        }
    }

    /// For accelerators of which each computes one run at a time: a session for each, and where that
    /// pays off a second one, which moves tensors meanwhile.
    pub fn for_devices(devices: u32) -> Self {
        let devices = devices.max(1);
        Self { min: devices, max: 2 * devices, start: devices, ..Self::for_cores(1, 1) }
    }
}

/// One finished batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Requests in it.
    pub requests: u32,
    /// Items in it.
    pub items: u32,
    /// How long its requests waited for a session, all together.
    pub waited: Duration,
    /// How long it ran.
    pub ran: Duration,
}

/// What a window measured.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    runs: u32,
    requests: u32,
    items: u64,
    waited: Duration,
    ran: Duration,
}

impl Window {
    fn mean_wait(&self) -> Duration {
        self.waited / self.requests.max(1)
    }

    fn mean_run(&self) -> Duration {
        self.ran / self.runs.max(1)
    }

    /// How many sessions were busy on average, in thousandths.
    fn busy_permille(&self, length: Duration) -> u64 {
        let permille = self.ran.as_micros() * 1000 / length.as_micros().max(1);
        u64::try_from(permille).unwrap_or(u64::MAX)
    }
}

/// An added session that has to prove itself.
#[derive(Debug, Clone, Copy)]
struct Trial {
    items: u64,
    mean_wait: Duration,
}

/// The number of sessions of one model.
#[derive(Debug, Clone)]
pub struct Scaler {
    policy: ScalingPolicy,
    sessions: u32,
    window: Window,
    began: Instant,
    asks_up: u32,
    asks_down: u32,
    cooling: u32,
    trial: Option<Trial>,
    /// A number that did not pay off, and until when it is not tried again.
    held: Option<(u32, Instant)>,
}

impl Scaler {
    /// Begins with [`ScalingPolicy::start`] sessions.
    pub fn new(policy: ScalingPolicy, now: Instant) -> Self {
        let min = policy.min.max(1);
        let policy = ScalingPolicy { min, max: policy.max.max(min), ..policy };
        Self {
            sessions: policy.start.clamp(policy.min, policy.max),
            policy,
            window: Window::default(),
            began: now,
            asks_up: 0,
            asks_down: 0,
            cooling: 0,
            trial: None,
            held: None,
        }
    }

    /// The number of sessions that there should be.
    pub fn sessions(&self) -> u32 {
        self.sessions
    }

    /// A batch has finished.
    pub fn handle_run(&mut self, run: Run) {
        self.window.runs += 1;
        self.window.requests += run.requests;
        self.window.items += u64::from(run.items);
        self.window.waited += run.waited;
        self.window.ran += run.ran;
    }

    /// When to call [`Scaler::poll_sessions`].
    pub fn poll_timeout(&self) -> Instant {
        self.began + self.policy.window
    }

    /// Another number of sessions, when it is time for a change.
    pub fn poll_sessions(&mut self, now: Instant) -> Option<u32> {
        if now < self.poll_timeout() {
            return None;
        }
        let length = now - self.began;
        self.began = now;
        let window = std::mem::take(&mut self.window);
        if self.cooling > 0 {
            self.cooling -= 1;
            return None;
        }
        let rated = Rated { items: per_second(window.items, length), window, length };
        let sessions = self.judge(&rated, now).or_else(|| self.decide(&rated, now))?;
        self.sessions = sessions;
        self.cooling = self.policy.cool_down;
        (self.asks_up, self.asks_down) = (0, 0);
        Some(sessions)
    }

    /// Ends a trial: back to one less, if the session brought nothing.
    fn judge(&mut self, rated: &Rated, now: Instant) -> Option<u32> {
        let trial = self.trial.take()?;
        let more_done = rated.items * 20 >= trial.items * 21;
        let shorter_wait = rated.window.mean_wait() * 4 <= trial.mean_wait * 3;
        if more_done || shorter_wait || self.sessions <= self.policy.min {
            return None;
        }
        self.held = Some((self.sessions, now + self.policy.hold));
        Some(self.sessions - 1)
    }

    fn decide(&mut self, rated: &Rated, now: Instant) -> Option<u32> {
        let busy = rated.window.busy_permille(rated.length);
        let sessions = u64::from(self.sessions);
        let waits = rated.window.mean_wait() * 2 > rated.window.mean_run();
        let up = waits && busy > 800 * sessions && self.may_grow(now);
        let down = self.sessions > self.policy.min && busy < 600 * (sessions - 1);
        self.asks_up = if up { self.asks_up + 1 } else { 0 };
        self.asks_down = if down { self.asks_down + 1 } else { 0 };
        if self.asks_up >= self.policy.windows_up {
            let mean_wait = rated.window.mean_wait();
            self.trial = Some(Trial { items: rated.items, mean_wait });
            return Some(self.sessions + 1);
        }
        (self.asks_down >= self.policy.windows_down).then(|| self.sessions - 1)
    }

    fn may_grow(&self, now: Instant) -> bool {
        let held = self.held.is_some_and(|(at, until)| self.sessions + 1 >= at && now < until);
        self.sessions < self.policy.max && !held
    }
}

struct Rated {
    window: Window,
    length: Duration,
    /// Items per second.
    items: u64,
}

fn per_second(items: u64, length: Duration) -> u64 {
    let rate = u128::from(items) * 1_000_000 / length.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}
