//! Requests that wait for a session: which run together, which do not run at all, and what becomes of
//! the mates of one that fails.

use link::connection::Connection;
use link::frames::LinkError;
use models::fake::Gate;
use outrigger_cloud::serving::settings::AdmissionSettings;
use protocol::id::Variant;
use protocol::problem::ProblemCode;
use protocol::tensor::Tensor;
use protocol::wire;
use tokio::task::JoinHandle;

use crate::support::{Cloud, MODEL, bundle, infer, request, start_narrow};

type Answer = JoinHandle<Result<(wire::InferReply, Vec<Tensor>), LinkError>>;

/// A model with one session, which is held at the gate by its first request.
struct Busy {
    cloud: Cloud,
    gate: Gate,
    connection: Connection,
    first: Option<Answer>,
    /// Runs before those that wait.
    runs: usize,
}

impl Busy {
    fn with(lines: &str) -> Self {
        let (cloud, gate) = start_narrow(AdmissionSettings::default());
        gate.open();
        let model = format!("{MODEL}\n{lines}");
        assert_eq!(cloud.push(&bundle(1, Variant::Cloud, &model)).0, 201);
        let connection = cloud.agent(&cloud.device_with_model());
        gate.close();
        let runs = gate.arrived() + 1;
        let first = Some(ask(&cloud, &connection, 0.5));
        gate.wait_for(runs);
        Self { cloud, gate, connection, first, runs }
    }

    /// Asks once more, and returns when the request waits for the session.
    fn ask(&self, value: f32) -> Answer {
        let before = self.waiting();
        let asked = ask(&self.cloud, &self.connection, value);
        while self.waiting() == before {
            std::thread::yield_now();
        }
        asked
    }

    fn waiting(&self) -> usize {
        self.cloud.server.cloud().serving.waiting()
    }

    /// What the model said to each: twice the value, or why not.
    fn answers(&self, asked: impl IntoIterator<Item = Answer>) -> Vec<Result<f32, ProblemCode>> {
        let answer = |asked: Answer| match self.cloud.runtime.block_on(asked).unwrap() {
            Ok((_, outputs)) => Ok::<f32, _>(outputs[0].to_f32().unwrap()[0]),
            Err(error) => Err(error.into_problem().code),
        };
        asked.into_iter().map(answer).collect()
    }
}

fn ask(cloud: &Cloud, connection: &Connection, value: f32) -> Answer {
    ask_within(cloud, connection, value, 20_000)
}

fn ask_within(cloud: &Cloud, connection: &Connection, value: f32, deadline_ms: u32) -> Answer {
    let (connection, request) = (connection.clone(), request(&[value, 0.0, 0.0]));
    cloud.runtime.spawn(async move { infer(&connection, &request, 1, deadline_ms).await })
}

#[test]
fn what_gathers_while_the_session_is_busy_runs_together() {
    let mut busy = Busy::with("");
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
    let asked: Vec<_> = values.iter().map(|value| busy.ask(*value)).collect();
    busy.gate.open();
    let doubled: Vec<_> = values.iter().map(|value| Ok(value * 2.0)).collect();
    assert_eq!(busy.answers(asked), doubled, "each its own");
    let first = busy.first.take();
    assert_eq!(busy.answers(first), [Ok(1.0)]);
    let runs = busy.gate.arrived() - busy.runs;
    assert!(runs < values.len(), "{runs} runs for {} requests", values.len());
}

#[test]
fn who_has_gone_or_is_late_does_not_run() {
    let mut busy = Busy::with("");
    let gone = busy.ask(1.0);
    gone.abort(); // its stream is reset
    let late = ask_within(&busy.cloud, &busy.connection, 2.0, 30);
    assert_eq!(busy.answers([late]), [Err(ProblemCode::DeadlineExceeded)]);
    while busy.waiting() > 0 {
        std::thread::yield_now();
    }
    busy.gate.open();
    let first = busy.first.take();
    assert_eq!(busy.answers(first), [Ok(1.0)]);
    assert_eq!(busy.gate.arrived(), busy.runs);
}

#[test]
fn one_that_fails_fails_alone() {
    let busy = Busy::with("fail 7");
    let asked = [7.0, 1.0, 2.0].map(|value| busy.ask(value));
    busy.gate.open();
    let expected = [Err(ProblemCode::InferenceFailed), Ok(2.0), Ok(4.0)];
    assert_eq!(busy.answers(asked), expected);
}

#[test]
fn one_that_costs_two_sessions_is_given_up_and_its_mates_are_answered() {
    let busy = Busy::with("lose 7");
    let asked = [7.0, 1.0, 2.0].map(|value| busy.ask(value));
    busy.gate.open();
    let expected = [Err(ProblemCode::InferenceFailed), Ok(2.0), Ok(4.0)];
    assert_eq!(busy.answers(asked), expected);
    let drops: Vec<_> = busy.cloud.server.cloud().serving.door().drops().collect();
    assert_eq!(drops.iter().map(|(_, count)| count).sum::<u64>(), 1, "{drops:?}");
}
