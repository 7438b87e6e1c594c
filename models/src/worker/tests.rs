use super::*;
use crate::backend::{Backend, SessionOptions};
use crate::fake::{FakeBackend, Gate};
use crate::runner::Pipelines;

const MODEL: &str = "fake\ninput x FP32 -1 2\noutput y FP32 -1 2\npanic 13\nfail 14";

fn worker(backend: &FakeBackend, capacity: usize) -> Worker {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, MODEL).unwrap();
    let session = backend.load(&file, &SessionOptions::default()).unwrap();
    let runner = Runner::new(session, Pipelines::default());
    Worker::start("model", runner, capacity).unwrap()
}

/// A worker whose first job stands at the closed gate, so that what follows waits.
fn busy(capacity: usize) -> (Gate, Worker, Ticket) {
    let gate = Gate::default();
    let worker = worker(&FakeBackend::gated(gate.clone()), capacity);
    let first = worker.submit(job(0.0)).unwrap();
    gate.wait_for(1);
    (gate, worker, first)
}

fn job(first: f32) -> Job {
    let inputs = vec![Tensor::from_f32("x", vec![1, 2], &[first, 0.0]).unwrap()];
    Job { inputs, ..Job::default() }
}

fn first_number(answer: Result<Answer, RunError>) -> Result<f32, RunError> {
    answer.map(|a| a.outputs[0].to_f32().unwrap()[0])
}

#[test]
fn jobs_are_answered_in_order() {
    let worker = worker(&FakeBackend::default(), 8);
    let tickets = [1.0, 2.0, 3.0].map(|n| worker.submit(job(n)).unwrap());
    assert_eq!(tickets.map(|t| first_number(t.wait())), [Ok(1.0), Ok(2.0), Ok(3.0)]);
    let expected = Counters { queued: 3, run: 3, ..Counters::default() };
    assert_eq!(worker.counters(), expected);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let (gate, worker, first) = busy(2);
    let waiting = [1.0, 2.0].map(|n| worker.submit(job(n)).unwrap());
    assert_eq!(worker.submit(job(3.0)).unwrap_err(), Refused::Full { capacity: 2 });
    assert_eq!((worker.counters().waiting, worker.counters().refused), (3, 1));
    gate.open();
    assert!(first.wait().is_ok());
    assert!(waiting.map(Ticket::wait).iter().all(Result::is_ok));
}

#[test]
fn a_dropped_ticket_cancels_its_job() {
    let (gate, worker, first) = busy(4);
    drop(worker.submit(job(1.0)).unwrap());
    let last = worker.submit(job(2.0)).unwrap();
    gate.open();
    assert!(first.wait().is_ok());
    assert_eq!(first_number(last.wait()), Ok(2.0));
    let expected = Counters { queued: 3, run: 2, cancelled: 1, ..Counters::default() };
    assert_eq!(worker.counters(), expected);
}

#[test]
fn a_late_job_expires_before_it_runs() {
    let (gate, worker, first) = busy(4);
    let late = worker.submit(Job { deadline: Some(Instant::now()), ..job(1.0) }).unwrap();
    let in_time = Some(Instant::now() + Duration::from_secs(3600));
    let in_time = worker.submit(Job { deadline: in_time, ..job(2.0) }).unwrap();
    gate.open();
    assert!(first.wait().is_ok());
    assert_eq!(late.wait(), Err(RunError::Expired));
    assert_eq!(first_number(in_time.wait()), Ok(2.0));
    assert_eq!((worker.counters().expired, worker.counters().run), (1, 2));
}

#[test]
fn a_panic_fails_one_job_only() {
    let worker = worker(&FakeBackend::default(), 4);
    let ask = |n| first_number(worker.submit(job(n)).unwrap().wait());
    assert_eq!(ask(13.0), Err(RunError::Panicked("told to panic".into())));
    assert_eq!(ask(14.0), Err(RunError::Failed("told to fail".into())));
    assert_eq!(ask(15.0), Ok(15.0));
    assert_eq!((worker.counters().run, worker.counters().failed), (3, 2));
}

#[test]
fn dropping_the_worker_stops_what_waits() {
    let (gate, worker, first) = busy(4);
    let waiting = worker.submit(job(1.0)).unwrap();
    let tally = Arc::clone(&worker.tally);
    let dropping = thread::spawn(move || drop(worker));
    while !tally.is_stopped() {
        thread::yield_now();
    }
    gate.open();
    dropping.join().unwrap();
    assert_eq!(first_number(first.wait()), Ok(0.0));
    assert_eq!(waiting.wait(), Err(RunError::Stopped));
}
