//! Ways that forget, ends that die, and requests in between, in virtual time.

use super::*;

const PATIENCE: Duration = Duration::from_secs(180);
const ROUND: Duration = Duration::from_millis(40);
const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// A device behind a NAT that forgets after `mapping`, and the cloud behind that.
struct Way {
    mapping: Duration,
    dead: bool,
    seen: Seen,
    passed_at: Instant,
    pulse: Pulse,
    now: Instant,
    start: Instant,
    nudges: u64,
    /// What was done, and when; without nudges.
    done: Vec<(u128, Action)>,
}

impl Way {
    fn new(mapping: Duration, patience: Duration) -> Self {
        let seen = Seen {
            heard: 0,
            challenges: 0,
            round_trip: ROUND,
            carrier: Carrier::Quic,
            waiting: false,
            patience,
        };
        let now = Instant::now();
        let pulse = Pulse::new(PULSE_MAX, &seen, now);
        let (dead, nudges, done) = (false, 0, Vec::new());
        Self { mapping, dead, seen, passed_at: now, pulse, now, start: now, nudges, done }
    }

    /// Something goes there, and its answer comes back.
    fn pass(&mut self) {
        if self.dead {
            return;
        }
        self.seen.heard += 1;
        if self.now.duration_since(self.passed_at) >= self.mapping {
            self.seen.challenges += 1; // the cloud saw another address
        }
        self.passed_at = self.now;
    }

    fn look(&mut self) {
        match self.pulse.look(&self.seen, self.now) {
            Some(Action::Nudge) => {
                self.nudges += 1;
                self.pass();
            }
            Some(other) => {
                self.done.push((self.now.duration_since(self.start).as_millis(), other));
                if other == Action::Ask {
                    self.pass();
                }
            }
            None => {}
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.pulse.poll_timeout() < end && self.done.last().map(|d| d.1) != Some(Action::Dead)
        {
            self.now = self.now.max(self.pulse.poll_timeout());
            self.look();
        }
        self.now = end;
    }

    /// A request that is answered after so long.
    fn request(&mut self, took: Duration) {
        self.seen.waiting = true;
        self.pass();
        self.look();
        self.run(took);
        self.pass();
        self.seen.waiting = false;
    }
}

#[test]
fn an_idle_link_is_left_alone_for_ever_longer() {
    let mut way = Way::new(S(120), PATIENCE);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let before = way.nudges;
        let began = way.now;
        while way.nudges == before {
            let step = way.pulse.poll_timeout().duration_since(way.now);
            way.run(step + MS(1));
        }
        waits.push(way.now.duration_since(began).as_secs());
    }
    assert_eq!(waits, [3, 6, 12, 24, 45, 45, 45, 45]);
    way.run(S(30 * 86_400));
    let a_day = way.nudges as f64 / 30.0;
    assert!((1_915.0..1_935.0).contains(&a_day), "{a_day}");
    assert_eq!(way.done, []);
}

#[test]
fn a_way_that_forgets_is_asked_more_often_and_now_and_then_less() {
    for (mapping_s, lapses_most) in [(20, 130), (30, 130), (40, 130)] {
        let mut way = Way::new(S(mapping_s), PATIENCE);
        way.run(S(600));
        assert!(way.pulse.every() < S(mapping_s), "{mapping_s}: {:?}", way.pulse.every());
        way.run(S(30 * 86_400));
        assert!(
            (1..lapses_most).contains(&way.seen.challenges),
            "{mapping_s} {}",
            way.seen.challenges
        );
        assert_eq!(way.done, []);
    }
    // Where the way is changed for a better one, that is found out.
    let mut way = Way::new(S(20), PATIENCE);
    way.run(S(3600));
    way.mapping = S(300);
    way.run(S(86_400));
    assert_eq!(way.pulse.every(), PULSE_MAX);
}

#[test]
fn an_older_cloud_hears_every_three_seconds() {
    let mut way = Way::new(S(120), Duration::ZERO);
    way.run(S(3_600));
    assert_eq!(way.nudges, 1_199);
    let mut owner = Way::new(S(120), PATIENCE);
    owner.pulse = Pulse::new(S(1), &owner.seen, owner.now);
    owner.run(S(3_600));
    assert_eq!(owner.nudges, 1_199, "no owner makes it less");
}

#[test]
fn a_dead_end_is_found_ten_seconds_after_a_nudge_and_at_once_when_somebody_waits() {
    let mut way = Way::new(S(120), PATIENCE);
    way.run(S(600));
    way.dead = true;
    let from = way.now.duration_since(way.start).as_millis();
    way.run(S(60));
    let done: Vec<_> = way.done.iter().map(|(at, what)| (at - from, *what)).collect();
    let [(changed, Action::ChangePath), (dead, Action::Dead)] = done[..] else {
        panic!("{done:?}")
    };
    assert!(dead - changed == 7_000 && dead <= 55_000, "{done:?}");

    let mut way = Way::new(S(120), PATIENCE);
    way.run(S(600));
    way.dead = true;
    let from = way.now.duration_since(way.start).as_millis();
    way.seen.waiting = true;
    way.look();
    way.run(S(2));
    let done: Vec<_> = way.done.iter().map(|(at, what)| (at - from, *what)).collect();
    let expected = [(200, Action::Ask), (300, Action::ChangePath), (600, Action::Dead)];
    assert_eq!(done, expected);
    way.done.clear();
    (way.dead, way.seen.carrier) = (true, Carrier::Tcp);
    way.pulse = Pulse::new(PULSE_MAX, &way.seen, way.now);
    let from = way.now;
    way.look();
    way.run(S(5));
    let (at, what) = *way.done.last().unwrap();
    let took = at - from.duration_since(way.start).as_millis();
    assert_eq!((took, what), (2_000, Action::Dead));
}

#[test]
fn a_slow_answer_is_no_silence_and_a_lone_request_costs_no_nudges() {
    let mut way = Way::new(S(120), PATIENCE);
    way.run(S(600));
    way.request(S(20)); // it is asked whether the node lives, and it says so
    assert!(way.done.len() > 50 && way.done.iter().all(|(_, what)| *what == Action::Ask));
    way.run(S(2));
    assert!(!way.pulse.is_attentive() && way.pulse.every() == PULSE_MAX);
    let before = way.nudges;
    way.run(S(90));
    assert!(way.nudges - before <= 2);
    // Two within ten seconds, and a third is expected: for ten seconds the link is not left alone.
    for _ in 0..2 {
        way.request(MS(50));
        way.run(S(5));
    }
    let before = way.nudges;
    way.run(S(6));
    assert!((1..=2).contains(&(way.nudges - before)), "{}", way.nudges - before);
    way.run(S(10));
    let before = way.nudges;
    way.run(S(90));
    assert!(way.nudges - before <= 2);
    assert!(way.done.iter().all(|(_, what)| *what == Action::Ask));
}

#[test]
fn another_port_of_ones_own_making_says_nothing_of_the_way() {
    let mut way = Way::new(S(120), PATIENCE);
    way.run(S(600));
    way.dead = true;
    let before = way.nudges;
    while way.nudges == before {
        way.run(S(1));
    }
    way.run(S(3)); // it is not answered for three seconds
    assert_eq!(way.done.last().map(|(_, what)| *what), Some(Action::ChangePath));
    way.dead = false;
    (way.seen.heard, way.seen.challenges) = (way.seen.heard + 1, way.seen.challenges + 1);
    way.run(S(600));
    assert_eq!((way.done.len(), way.pulse.every()), (1, PULSE_MAX));
}

#[test]
fn requests_that_give_up_early_do_not_keep_a_dead_end_alive() {
    for every in [MS(350), MS(900), S(2)] {
        let mut way = Way::new(S(120), PATIENCE);
        way.run(S(600));
        way.dead = true;
        let from = way.now;
        while way.done.last().map(|(_, what)| *what) != Some(Action::Dead) {
            way.request(MS(300));
            way.look();
            way.run(every - MS(300));
            assert!(way.now.duration_since(from) < S(15), "{every:?}: {:?}", way.done);
        }
    }
    // And such requests to one that lives end nothing.
    let mut way = Way::new(S(120), PATIENCE);
    for _ in 0..100 {
        way.seen.waiting = true;
        way.look();
        way.run(MS(20)); // given up before the answer could be here
        way.seen.waiting = false;
        way.look();
        way.run(MS(40));
    }
    assert_eq!(way.done, []);
}
