//! Where a request is answered.
//!
//! [`route`] picks the first step from what is known before anything runs; then [`Request`] is a
//! state machine: the agent carries out each [`Action`] and reports back an [`Event`], until the
//! action is an answer or a failure. [`ask_budget`] says whether, and for how long, the cloud may
//! be asked. Every request ends in exactly one answer or failure.

use std::time::Duration;

use crate::IllegalTransition;
use protocol::infer::{Placement, PlacementHint, Reason, Risk};
use protocol::problem::{Problem, ProblemCode};

/// What the placement of requests for one model depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// The least confidence of an edge answer; every one is accepted without it.
    pub threshold: Option<f32>,
    /// What is promised of answers that reach the threshold.
    pub risk: Option<Risk>,
    /// Whether the cloud holds a larger variant of this version.
    pub cloud_variant: bool,
    /// Whether inputs may never leave the device.
    pub never_leaves_device: bool,
}

impl Profile {
    /// Whether this edge answer is accepted. An answer without a confidence is accepted only
    /// where there is no threshold.
    pub fn accepts(&self, confidence: Option<f32>) -> bool {
        match (self.threshold, confidence) {
            (None, _) => true,
            (Some(threshold), Some(confidence)) => confidence >= threshold,
            (Some(_), None) => false,
        }
    }

    /// What is promised of an answer from there, for that reason: only what the rule accepted was
    /// calibrated, so an answer that was asked for, or that stands because the cloud was absent, is
    /// promised nothing.
    pub fn promise(&self, placement: Placement, reason: Reason) -> Option<Risk> {
        match (placement, reason) {
            (Placement::Edge, Reason::Confident) => self.risk,
            _ => None,
        }
    }

    fn can_defer(&self) -> bool {
        self.cloud_variant && !self.never_leaves_device
    }
}

/// The first step of a request.
///
/// # Errors
/// The application asks for the cloud, and this model cannot go there.
pub fn route(profile: &Profile, hint: PlacementHint) -> Result<Request, Problem> {
    let state = match hint {
        PlacementHint::Edge => State::EdgeOnly(Reason::Requested),
        PlacementHint::Cloud if profile.never_leaves_device => {
            let text = "this model never leaves the device, so the cloud cannot be asked";
            return Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("leave the parameter \"placement\" out"));
        }
        PlacementHint::Cloud if !profile.cloud_variant => {
            let text = "this version has no cloud variant";
            return Err(Problem::new(ProblemCode::NotFound, text)
                .hint("leave the parameter \"placement\" out, or push a cloud variant"));
        }
        PlacementHint::Cloud => State::CloudFirst,
        PlacementHint::Auto if profile.threshold.is_some() && profile.can_defer() => {
            State::EdgeFirst
        }
        PlacementHint::Auto => State::EdgeOnly(Reason::EdgeOnlyModel),
    };
    Ok(Request { state })
}

/// The first step of a request that is a piece of a sequence: its state is here, so it is answered
/// here, and never deferred.
///
/// # Errors
/// The application asks for the cloud.
pub fn route_sequence(hint: PlacementHint) -> Result<Request, Problem> {
    match hint {
        PlacementHint::Cloud => {
            let text = "the state of a sequence is on the device, so the cloud cannot be asked";
            Err(Problem::new(ProblemCode::InvalidRequest, text)
                .hint("leave the parameter \"placement\" out, or send the stream as a whole"))
        }
        PlacementHint::Edge => Ok(Request { state: State::EdgeOnly(Reason::Requested) }),
        PlacementHint::Auto => Ok(Request { state: State::EdgeOnly(Reason::Sequence) }),
    }
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The edge model runs; its answer may be deferred.
    EdgeFirst,
    /// The edge model runs; its answer stands, for this reason.
    EdgeOnly(Reason),
    /// The cloud was asked at once; the edge model is the fallback.
    CloudFirst,
    /// The edge model failed, the cloud was asked.
    CloudLast,
    /// The cloud was asked, a deferred edge answer is in hand.
    Deferred,
    /// The cloud did not answer, for this reason; the edge model runs after all.
    Fallback(Reason),
    /// The end.
    Done,
}

/// What happened to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The edge model answered, confidently enough.
    EdgeAccepted,
    /// The edge model answered, not confidently enough.
    EdgeDoubtful,
    /// The edge model gave no answer.
    EdgeFailed,
    /// The cloud answered.
    CloudAnswered,
    /// The cloud gave no answer, for this reason.
    CloudAbsent(Reason),
}

/// What is to be done for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run the edge model.
    RunEdge,
    /// Ask the cloud, within [`ask_budget`].
    AskCloud,
    /// Answer with the edge answer in hand.
    AnswerEdge(Placement, Reason),
    /// Answer with the cloud's answer.
    AnswerCloud(Reason),
    /// No answer exists: report the edge model's failure.
    FailEdge,
    /// No answer exists: report the cloud's failure.
    FailCloud,
}

/// One request on its way to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    state: State,
}

impl Request {
    /// The first action.
    pub fn start(&self) -> Action {
        match self.state {
            State::CloudFirst => Action::AskCloud,
            _ => Action::RunEdge,
        }
    }

    /// Whether the edge model has still to run should the cloud fail: its time must be kept back.
    pub fn keeps_time_for_edge(&self) -> bool {
        self.state == State::CloudFirst
    }

    /// The next action.
    ///
    /// # Errors
    /// An event that cannot happen in this state.
    pub fn handle(&mut self, event: Event) -> Result<Action, IllegalTransition> {
        let (state, action) = transition(self.state, event)
            .ok_or_else(|| IllegalTransition::new(self.state, event))?;
        self.state = state;
        Ok(action)
    }
}

fn transition(state: State, event: Event) -> Option<(State, Action)> {
    use Action::{AnswerCloud, AnswerEdge, AskCloud, FailCloud, FailEdge, RunEdge};
    use Event::{CloudAbsent, CloudAnswered, EdgeAccepted, EdgeDoubtful, EdgeFailed};
    use Placement::{Edge, EdgeDegraded};
    use State::{CloudFirst, CloudLast, Deferred, Done, EdgeFirst, EdgeOnly, Fallback};
    Some(match (state, event) {
        (EdgeFirst, EdgeAccepted) => (Done, AnswerEdge(Edge, Reason::Confident)),
        (EdgeFirst, EdgeDoubtful) => (Deferred, AskCloud),
        (EdgeFirst, EdgeFailed) => (CloudLast, AskCloud),
        (EdgeOnly(why), EdgeAccepted | EdgeDoubtful) => (Done, AnswerEdge(Edge, why)),
        (EdgeOnly(_), EdgeFailed) => (Done, FailEdge),
        (CloudFirst, CloudAnswered) => (Done, AnswerCloud(Reason::Requested)),
        (CloudFirst, CloudAbsent(why)) => (Fallback(why), RunEdge),
        (CloudLast, CloudAnswered) => (Done, AnswerCloud(Reason::EdgeFailed)),
        (CloudLast, CloudAbsent(_)) => (Done, FailEdge),
        (Deferred, CloudAnswered) => (Done, AnswerCloud(Reason::Deferred)),
        (Deferred, CloudAbsent(why)) => (Done, AnswerEdge(EdgeDegraded, why)),
        (Fallback(why), EdgeAccepted | EdgeDoubtful) => (Done, AnswerEdge(EdgeDegraded, why)),
        (Fallback(_), EdgeFailed) => (Done, FailCloud),
        _ => return None,
    })
}

/// What is known of the way to the cloud at the moment of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// Whether there is a connection.
    pub connected: bool,
    /// Whether the breaker lets a request through.
    pub breaker_allows: bool,
}

/// How long the cloud may take, or why it is not asked.
///
/// `remaining` is the time to the deadline, `keep` what must be kept back to answer from the edge:
/// running the model where it did not run yet, and a margin for the way back to the application.
///
/// # Errors
/// The reason for not asking.
pub fn ask_budget(path: Path, remaining: Duration, keep: Duration) -> Result<Duration, Reason> {
    if !path.connected {
        return Err(Reason::CloudUnreachable);
    }
    if !path.breaker_allows {
        return Err(Reason::BreakerOpen);
    }
    let budget = remaining.saturating_sub(keep);
    if budget < Duration::from_millis(1) {
        return Err(Reason::CloudLate);
    }
    Ok(budget)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATES: [State; 7] = [
        State::EdgeFirst,
        State::EdgeOnly(Reason::Requested),
        State::CloudFirst,
        State::CloudLast,
        State::Deferred,
        State::Fallback(Reason::CloudLate),
        State::Done,
    ];
    const EVENTS: [Event; 5] = [
        Event::EdgeAccepted,
        Event::EdgeDoubtful,
        Event::EdgeFailed,
        Event::CloudAnswered,
        Event::CloudAbsent(Reason::CloudLate),
    ];

    #[test]
    fn table() {
        let mut lines = Vec::new();
        for state in STATES {
            for event in EVENTS {
                let to = match transition(state, event) {
                    Some((next, action)) => format!("{next:?}, {action:?}"),
                    None => "-".into(),
                };
                lines.push(format!(
                    "{:24} {:22} -> {to}",
                    format!("{state:?}"),
                    format!("{event:?}")
                ));
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }

    fn profile() -> Profile {
        let risk = Some(Risk::AtMost(0.01));
        Profile { threshold: Some(0.8), risk, cloud_variant: true, never_leaves_device: false }
    }

    #[test]
    fn the_first_step() {
        use PlacementHint::{Auto, Cloud, Edge};
        let check = |profile: Profile, hint| match route(&profile, hint) {
            Ok(request) => format!("{:?}", request.state),
            Err(problem) => problem.code.as_str().to_owned(),
        };
        let private = Profile { never_leaves_device: true, ..profile() };
        let alone = Profile { cloud_variant: false, ..profile() };
        let unruled = Profile { threshold: None, ..profile() };
        assert_eq!(check(profile(), Auto), "EdgeFirst");
        assert_eq!(check(profile(), Edge), "EdgeOnly(Requested)");
        assert_eq!(check(profile(), Cloud), "CloudFirst");
        for never_deferred in [private, alone, unruled] {
            assert_eq!(check(never_deferred, Auto), "EdgeOnly(EdgeOnlyModel)");
        }
        assert_eq!(check(private, Cloud), "invalid_request");
        assert_eq!(check(alone, Cloud), "not_found");
        assert_eq!(check(unruled, Cloud), "CloudFirst");
    }

    #[test]
    fn pieces_of_sequences_stay_on_the_device() {
        let state = |hint| route_sequence(hint).map(|request| request.state);
        assert_eq!(state(PlacementHint::Auto), Ok(State::EdgeOnly(Reason::Sequence)));
        assert_eq!(state(PlacementHint::Edge), Ok(State::EdgeOnly(Reason::Requested)));
        let refused = state(PlacementHint::Cloud).unwrap_err();
        assert_eq!(refused.code, ProblemCode::InvalidRequest);
    }

    #[test]
    fn confidence_is_compared_with_the_threshold() {
        for (confidence, accepted) in
            [(Some(0.8), true), (Some(0.79), false), (Some(f32::NAN), false), (None, false)]
        {
            assert_eq!(profile().accepts(confidence), accepted, "{confidence:?}");
        }
        assert!(Profile { threshold: None, ..profile() }.accepts(None));
    }

    #[test]
    fn only_what_the_rule_accepted_is_promised_anything() {
        let promise = |placement, reason| profile().promise(placement, reason);
        let bound = Some(Risk::AtMost(0.01));
        assert_eq!(promise(Placement::Edge, Reason::Confident), bound);
        assert_eq!(promise(Placement::Edge, Reason::Requested), None);
        assert_eq!(promise(Placement::EdgeDegraded, Reason::CloudLate), None);
        assert_eq!(promise(Placement::Cloud, Reason::Deferred), None);
    }

    #[test]
    fn the_cloud_is_asked_only_where_an_answer_can_arrive() {
        let ms = Duration::from_millis;
        let path = |connected, breaker_allows| Path { connected, breaker_allows };
        assert_eq!(ask_budget(path(true, true), ms(100), ms(5)), Ok(ms(95)));
        assert_eq!(ask_budget(path(false, true), ms(100), ms(5)), Err(Reason::CloudUnreachable));
        assert_eq!(ask_budget(path(true, false), ms(100), ms(5)), Err(Reason::BreakerOpen));
        assert_eq!(ask_budget(path(true, true), ms(5), ms(5)), Err(Reason::CloudLate));
    }

    proptest! {
        /// Whatever happens, a request ends after at most three events, once.
        #[test]
        fn every_request_ends_once(first in 0usize..3, picks in prop::collection::vec(0usize..5, 8)) {
            let mut request = Request { state: STATES[first] };
            let mut ends = 0;
            for pick in picks {
                match request.handle(EVENTS[pick]) {
                    Ok(Action::RunEdge | Action::AskCloud) => prop_assert_eq!(ends, 0),
                    Ok(_) => ends += 1,
                    Err(_) => {}
                }
            }
            prop_assert!(ends <= 1);
        }
    }
}
