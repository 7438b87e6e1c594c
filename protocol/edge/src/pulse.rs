//! Whether the other end of a connection still lives, how soon that has to be known, and how little may be sent for it.
//!
//! **While a request waits** and nothing is heard, a sign of life is asked for at once; then another path is tried, for a
//! NAT on the way may have forgotten this device; then the node is taken for dead, and its requests are asked of another.
//! A slow model is no dead node: the sign comes from the process, not from the model.
//!
//! **While nothing happens** a NAT or firewall on the way forgets the connection after some time that nobody tells, and the
//! cloud cannot reach the device from then on. So every now and then the connection is nudged: something is sent that the
//! other end has to acknowledge. How often decides what an idle device pays in a month. It begins with
//! [`PULSE_MIN`], is doubled with each nudge that was answered after true silence, and stops at what owner and cloud allow.
//! A device that the cloud suddenly sees at another address (it challenges the path, RFC 9000 section 9.3) has been silent
//! for too long: from then on it nudges more often, and tries the longer wait again after hours. While requests come often,
//! the wait is short again, so that the next one is not the first to learn that the link is gone.
//!
//! An older cloud says nothing of its patience, which is ten seconds: there the wait never grows.

use protocol::carrier::Carrier;
use std::time::{Duration, Instant};

/// The wait between two nudges at first, and while more requests are expected. An older cloud gives a silent device up
/// after ten seconds: two may get lost.
pub const PULSE_MIN: Duration = Duration::from_secs(3);
/// The longest wait unless the owner says otherwise: within the 60 s that most mappings of NATs for UDP last.
pub const PULSE_MAX: Duration = Duration::from_secs(45);
/// A silent end is given up after so many of its longest waits.
pub const PATIENCE_PULSES: u32 = 4;
/// No mapping of a NAT that is met with is shorter than this (RFC 8085 section 3.5 advises against more than one in 15 s).
const MAPPING_MIN: Duration = Duration::from_secs(15);
/// After so long without a lapse, a longer wait is tried again.
const TRY_LONGER_AFTER: Duration = Duration::from_secs(6 * 3600);
/// Two requests within this, and a third one is expected within this.
const OFTEN: Duration = Duration::from_secs(10);
/// How often it is looked whether something was heard, while a request waits.
const TICK: Duration = Duration::from_millis(100);
/// After so long without a request under way, nobody looks that often until the next one.
const LINGER: Duration = Duration::from_secs(1);
/// Rounds that a silence takes at least before another path is tried.
const CHANGE_PATH_ROUNDS: u32 = 2;
/// Rounds that a silence takes at least before a node is dead.
const DEAD_ROUNDS: u32 = 4;

/// How long a silence may be before something is done about it.
#[derive(Debug, Clone, Copy)]
struct Patience {
    ask: Duration,
    change_path: Duration,
    dead: Duration,
}

/// While a request waits.
const WAITING: Patience = Patience {
    ask: Duration::from_millis(150),
    change_path: Duration::from_millis(300),
    dead: Duration::from_millis(600),
};
/// The same over TCP, where everything waits for a packet that was lost twice.
const WAITING_OVER_TCP: Patience = Patience { dead: Duration::from_secs(2), ..WAITING };
/// After a nudge that nobody waits for.
const NUDGED: Patience = Patience {
    ask: Duration::ZERO,
    change_path: Duration::from_secs(3),
    dead: Duration::from_secs(10),
};

impl Patience {
    /// With more of it where a round takes long.
    fn over(self, round_trip: Duration) -> Self {
        Self {
            ask: self.ask,
            change_path: self.change_path.max(round_trip * CHANGE_PATH_ROUNDS),
            dead: self.dead.max(round_trip * DEAD_ROUNDS),
        }
    }
}

/// What is seen of a connection at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Grows whenever something is heard.
    pub heard: u64,
    /// How often the other end has challenged this end's address.
    pub challenges: u64,
    /// How long a round takes.
    pub round_trip: Duration,
    /// What carries it.
    pub carrier: Carrier,
    /// Whether a request waits for an answer.
    pub waiting: bool,
    /// How long the other end takes silence for nothing unusual, by its own word; zero where it says nothing.
    pub patience: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask the node for a sign of life, in words.
    Ask,
    /// Send the smallest thing that has to be acknowledged.
    Nudge,
    /// Go on from another port.
    ChangePath,
    /// Nobody is there.
    Dead,
}

/// A sign of life that was asked for, and not heard yet.
#[derive(Debug, Clone, Copy)]
struct Nudged {
    at: Instant,
    /// How long before it nothing was heard.
    idle: Duration,
    path_changed: bool,
}

/// The silence while a request waits.
#[derive(Debug, Clone, Copy)]
struct Silence {
    since: Instant,
    /// Something was heard while it waited.
    heard: bool,
    asked: bool,
    path_changed: bool,
}

/// Watches over one connection.
#[derive(Debug, Clone)]
pub struct Pulse {
    pace: Pace,
    heard: u64,
    challenges: u64,
    /// Another path was tried here: the challenge that comes of it says nothing of a NAT.
    own_change: bool,
    silence: Option<Silence>,
    nudged: Option<Nudged>,
    /// Since when nothing is heard, as far as was looked.
    quiet_since: Instant,
    /// When the next nudge is due.
    due: Instant,
    /// When it is to be looked next.
    look_at: Instant,
    last_request: Option<Instant>,
    expecting_until: Option<Instant>,
    linger_until: Option<Instant>,
}

impl Pulse {
    /// Of a connection that is new. `max` is the longest wait between two nudges.
    pub fn new(max: Duration, seen: &Seen, now: Instant) -> Self {
        Self {
            pace: Pace::new(max, now),
            heard: seen.heard,
            challenges: seen.challenges,
            own_change: false,
            silence: None,
            nudged: None,
            quiet_since: now,
            due: now + PULSE_MIN,
            look_at: now + PULSE_MIN,
            last_request: None,
            expecting_until: None,
            linger_until: None,
        }
    }

    /// When [`Self::look`] is to be called next, if no request begins before.
    pub fn poll_timeout(&self) -> Instant {
        self.look_at
    }

    /// Whether it is looked so often that nobody need be woken by a request that begins.
    pub fn is_attentive(&self) -> bool {
        self.silence.is_some() || self.linger_until.is_some()
    }

    /// The wait between two nudges as it is now.
    pub fn every(&self) -> Duration {
        self.pace.every
    }

    /// What to do about what is seen now.
    pub fn look(&mut self, seen: &Seen, now: Instant) -> Option<Action> {
        self.pace.limit(seen.patience);
        self.note_challenges(seen, now);
        let moved = std::mem::replace(&mut self.heard, seen.heard) != seen.heard;
        if seen.waiting {
            return self.look_waiting(seen, moved, now);
        }
        if let Some(silence) = self.silence.take() {
            return self.end_waiting(silence, moved, now);
        }
        if self.linger_until.is_some_and(|until| now < until) {
            self.nudged.take_if(|_| moved);
            self.look_at = now + TICK;
            return None;
        }
        self.linger_until = None;
        self.look_idle(seen, moved, now)
    }

    /// Nobody waits any more. Who gives up before an end is dead says nothing of it: where nothing was heard, a nudge
    /// goes on asking, however many requests give up meanwhile.
    fn end_waiting(&mut self, silence: Silence, moved: bool, now: Instant) -> Option<Action> {
        self.linger_until = Some(now + LINGER);
        self.look_at = now + TICK;
        self.due = now + self.wait(now);
        if moved || silence.heard {
            (self.nudged, self.quiet_since) = (None, now);
            return None;
        }
        if self.nudged.is_some() {
            return None;
        }
        let path_changed = silence.path_changed;
        self.nudged = Some(Nudged { at: now, idle: Duration::ZERO, path_changed });
        Some(Action::Nudge)
    }

    /// The other end was not where it expected this one to be.
    fn note_challenges(&mut self, seen: &Seen, now: Instant) {
        if std::mem::replace(&mut self.challenges, seen.challenges) == seen.challenges {
            return;
        }
        if !std::mem::take(&mut self.own_change) {
            self.pace.handle_lapse(now);
            if let Some(nudged) = &mut self.nudged {
                nudged.idle = Duration::ZERO; // it proves nothing but that
            }
        }
    }

    fn look_waiting(&mut self, seen: &Seen, moved: bool, now: Instant) -> Option<Action> {
        self.look_at = now + TICK;
        if self.silence.is_none() {
            self.note_request(now);
        }
        let fresh = Silence { since: now, heard: moved, asked: false, path_changed: false };
        let silence = self.silence.get_or_insert(fresh);
        if moved {
            *silence = fresh;
            (self.nudged, self.quiet_since) = (None, now);
            return None;
        }
        let asked_since = self.nudged.map(|nudged| now.saturating_duration_since(nudged.at));
        if asked_since.is_some_and(|time| time >= NUDGED.over(seen.round_trip).dead) {
            return Some(Action::Dead);
        }
        let patience = match seen.carrier {
            Carrier::Quic => WAITING,
            Carrier::Tcp => WAITING_OVER_TCP,
        };
        let patience = patience.over(seen.round_trip);
        let silent = now.saturating_duration_since(silence.since);
        if silent >= patience.dead {
            return Some(Action::Dead);
        }
        if silent >= patience.change_path && !silence.path_changed {
            (silence.path_changed, self.own_change) = (true, true);
            return Some(Action::ChangePath);
        }
        if silent >= patience.ask && !silence.asked {
            silence.asked = true;
            return Some(Action::Ask);
        }
        None
    }

    /// Requests that come often are expected to go on coming.
    fn note_request(&mut self, now: Instant) {
        let often = |last: Instant| now.saturating_duration_since(last) <= OFTEN;
        if self.last_request.is_some_and(often) {
            self.expecting_until = Some(now + OFTEN);
        }
        self.last_request = Some(now);
    }

    fn wait(&self, now: Instant) -> Duration {
        let expecting = self.expecting_until.is_some_and(|until| now < until);
        if expecting { PULSE_MIN } else { self.pace.every }
    }

    fn look_idle(&mut self, seen: &Seen, moved: bool, now: Instant) -> Option<Action> {
        let answered = self.nudged.take_if(|_| moved);
        match (answered, self.nudged) {
            (Some(nudged), _) => {
                self.pace.handle_held(nudged.idle, now);
                self.quiet_since = nudged.at;
                self.due = nudged.at + self.wait(now);
            }
            (None, Some(nudged)) => return self.look_for_answer(nudged, seen, now),
            (None, None) if moved => self.quiet_since = now,
            (None, None) => {}
        }
        let wait = self.wait(now);
        if answered.is_none() && moved && wait <= PULSE_MIN {
            self.due = now + wait; // within so short a time, what was heard stands for a nudge
        }
        if now < self.due {
            self.look_at = self.due;
            return None;
        }
        self.due = now + wait;
        let idle = now.saturating_duration_since(self.quiet_since);
        self.nudged = Some(Nudged { at: now, idle, path_changed: false });
        self.look_at = now + NUDGED.over(seen.round_trip).change_path;
        Some(Action::Nudge)
    }

    fn look_for_answer(&mut self, nudged: Nudged, seen: &Seen, now: Instant) -> Option<Action> {
        let patience = NUDGED.over(seen.round_trip);
        let silent = now.saturating_duration_since(nudged.at);
        self.look_at = nudged.at + patience.dead;
        if silent >= patience.dead {
            return Some(Action::Dead);
        }
        if silent < patience.change_path {
            self.look_at = nudged.at + patience.change_path;
            return None;
        }
        if nudged.path_changed {
            return None;
        }
        self.nudged = Some(Nudged { path_changed: true, idle: Duration::ZERO, ..nudged });
        self.own_change = true;
        Some(Action::ChangePath)
    }
}

/// How long it may be silent.
#[derive(Debug, Clone)]
struct Pace {
    every: Duration,
    /// What the way is known to hold.
    ceiling: Duration,
    /// What owner and cloud allow.
    max: Duration,
    owner_max: Duration,
    /// When the ceiling was changed last.
    set_at: Instant,
}

impl Pace {
    fn new(owner_max: Duration, now: Instant) -> Self {
        let owner_max = owner_max.max(PULSE_MIN);
        Self { every: PULSE_MIN, ceiling: owner_max, max: PULSE_MIN, owner_max, set_at: now }
    }

    /// The other end has so much patience.
    fn limit(&mut self, patience: Duration) {
        self.max = self.owner_max.min(patience / PATIENCE_PULSES).max(PULSE_MIN);
        self.every = self.every.min(self.max);
    }

    /// After so long a silence, the way still was the same.
    fn handle_held(&mut self, idle: Duration, now: Instant) {
        if idle < self.every {
            return;
        }
        if now.saturating_duration_since(self.set_at) >= TRY_LONGER_AFTER {
            self.ceiling = (self.ceiling * 3 / 2).min(self.owner_max);
            self.set_at = now;
        }
        self.every = (self.every * 2).min(self.ceiling).min(self.max);
    }

    /// After a silence that was too long, it was another one.
    fn handle_lapse(&mut self, now: Instant) {
        self.ceiling = (self.every * 2 / 3).max(MAPPING_MIN).min(self.owner_max);
        self.every = self.every.min(self.ceiling);
        self.set_at = now;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the origin of the tests' own time line
mod tests;
