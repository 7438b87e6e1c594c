//! One request on its way to an answer, as a table: state x event -> state and action.

use super::choice::{First, Plan};
use crate::IllegalTransition;
use protocol::infer::{Placement, Reason};

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The edge model runs; its answer may be deferred.
    EdgeFirst,
    /// The edge model runs; its answer stands, for this reason.
    EdgeOnly(Reason),
    /// The cloud was asked at once, for this reason; the edge model is the fallback.
    CloudFirst(Reason),
    /// Both run; the first acceptable answer wins.
    Hedge,
    /// Both ran, but the cloud does not answer, for this reason; the edge model runs.
    HedgeAlone(Reason),
    /// The edge model failed, the cloud was asked.
    CloudLast,
    /// The cloud was asked, an edge answer that was not accepted is in hand; what a cloud answer's
    /// reason is.
    Deferred(Reason),
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
    /// The cloud gave no answer, or was not asked, for this reason.
    CloudAbsent(Reason),
}

/// What is to be done for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Run the edge model.
    RunEdge,
    /// Ask the cloud, as far as [`super::Passage::ask`] lets it be asked.
    AskCloud,
    /// Do both at once.
    RunBoth,
    /// Wait for what runs.
    Wait,
    /// Answer with the edge answer in hand; what still runs is cancelled.
    AnswerEdge(Placement, Reason),
    /// Answer with the cloud's answer; what still runs is cancelled.
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
    /// A request that was planned, and its first action.
    pub fn start(plan: Plan) -> (Self, Action) {
        let (state, action) = match plan.first {
            First::Edge => (State::EdgeFirst, Action::RunEdge),
            First::EdgeOnly => (State::EdgeOnly(plan.reason), Action::RunEdge),
            First::Cloud => (State::CloudFirst(plan.reason), Action::AskCloud),
            First::Hedge => (State::Hedge, Action::RunBoth),
        };
        (Self { state }, action)
    }

    /// Whether the edge model has still to run should the cloud fail: its time must be kept back.
    pub fn keeps_time_for_edge(&self) -> bool {
        matches!(self.state, State::CloudFirst(_))
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
    use Action::{AnswerCloud, AnswerEdge, AskCloud, FailCloud, FailEdge, RunEdge, Wait};
    use Event::{CloudAbsent, CloudAnswered, EdgeAccepted, EdgeDoubtful, EdgeFailed};
    use Placement::{Edge, EdgeDegraded};
    use State::{
        CloudFirst, CloudLast, Deferred, Done, EdgeFirst, EdgeOnly, Fallback, Hedge, HedgeAlone,
    };
    Some(match (state, event) {
        (EdgeFirst, EdgeAccepted) => (Done, AnswerEdge(Edge, Reason::Confident)),
        (EdgeFirst, EdgeDoubtful) => (Deferred(Reason::Deferred), AskCloud),
        (EdgeFirst, EdgeFailed) => (CloudLast, AskCloud),
        (EdgeOnly(why), EdgeAccepted | EdgeDoubtful) => (Done, AnswerEdge(Edge, why)),
        (EdgeOnly(_), EdgeFailed) => (Done, FailEdge),
        (CloudFirst(why), CloudAnswered) => (Done, AnswerCloud(why)),
        // Asked for by the application, the edge answer is a lesser one however sure it is.
        (CloudFirst(_), CloudAbsent(why)) => (Fallback(why), RunEdge),
        (Hedge, EdgeAccepted) => (Done, AnswerEdge(Edge, Reason::Confident)),
        (Hedge, EdgeDoubtful) => (Deferred(Reason::Hedged), Wait),
        (Hedge, EdgeFailed) => (CloudLast, Wait),
        (Hedge, CloudAnswered) => (Done, AnswerCloud(Reason::Hedged)),
        (Hedge, CloudAbsent(why)) => (HedgeAlone(why), Wait),
        (HedgeAlone(_), EdgeAccepted) => (Done, AnswerEdge(Edge, Reason::Confident)),
        (HedgeAlone(why), EdgeDoubtful) => (Done, AnswerEdge(EdgeDegraded, why)),
        (HedgeAlone(_), EdgeFailed) => (Done, FailEdge),
        (CloudLast, CloudAnswered) => (Done, AnswerCloud(Reason::EdgeFailed)),
        (CloudLast, CloudAbsent(_)) => (Done, FailEdge),
        (Deferred(why), CloudAnswered) => (Done, AnswerCloud(why)),
        (Deferred(_), CloudAbsent(why)) => (Done, AnswerEdge(EdgeDegraded, why)),
        (Fallback(why), EdgeAccepted | EdgeDoubtful) => (Done, AnswerEdge(EdgeDegraded, why)),
        (Fallback(_), EdgeFailed) => (Done, FailCloud),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STATES: [State; 9] = [
        State::EdgeFirst,
        State::EdgeOnly(Reason::Requested),
        State::CloudFirst(Reason::Requested),
        State::Hedge,
        State::HedgeAlone(Reason::CloudLate),
        State::CloudLast,
        State::Deferred(Reason::Deferred),
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

    /// What runs for a request, as whoever carries actions out knows it.
    #[derive(Default)]
    struct Running {
        edge: bool,
        cloud: bool,
        edge_answers: u32,
    }

    proptest! {
        /// Whatever happens, a request ends once, waits only for what runs, and answers only with
        /// what is there.
        #[test]
        fn every_request_ends_once(
            first in prop::sample::select(vec![First::Edge, First::EdgeOnly, First::Cloud, First::Hedge]),
            picks in prop::collection::vec((any::<bool>(), 0usize..3), 8),
        ) {
            let (mut request, mut action) = Request::start(Plan { first, reason: Reason::Requested });
            let mut running = Running::default();
            let mut ended = false;
            for (edge_next, pick) in picks {
                match action {
                    Action::RunEdge => running.edge = true,
                    Action::AskCloud => running.cloud = true,
                    Action::RunBoth => (running.edge, running.cloud) = (true, true),
                    Action::Wait => {}
                    Action::AnswerEdge(..) => {
                        prop_assert_eq!(running.edge_answers, 1);
                        ended = true;
                    }
                    Action::AnswerCloud(_) | Action::FailEdge | Action::FailCloud => ended = true,
                }
                if ended {
                    break;
                }
                prop_assert!(running.edge || running.cloud, "it waits for nothing");
                let event = if running.edge && (edge_next || !running.cloud) {
                    running.edge = false;
                    running.edge_answers += u32::from(pick < 2);
                    EVENTS[pick]
                } else {
                    running.cloud = false;
                    EVENTS[3 + pick % 2]
                };
                action = request.handle(event).unwrap();
            }
            prop_assert!(ended);
            prop_assert!(EVENTS.iter().all(|event| request.handle(*event).is_err()));
        }
    }
}
