//! From one action to the next: at most one run of the edge model and one call of the cloud are
//! under way at a time, and whichever ends first is the next event. Whatever still runs when the
//! answer is there is dropped, which cancels it: the edge run's ticket, the cloud call's stream.

use super::{Requests, Terms, check::Check, internal, is_the_askers_fault, remaining};
use crate::engine::{ActiveModel, EdgeAnswer};
use crate::uplink::deferral::CloudAnswer;
use ::link::traces::Trace;
use edge::offload::{Action, Event, Request};
use models::stream::{Piece, StreamState};
use protocol::id::Version;
use protocol::infer::{
    InferRequest, InferResponse, Placement, Plan, Reason, Risk, Timing, Verdict,
};
use protocol::problem::Problem;
use protocol::tensor::Tensor;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One request on its way.
pub(super) struct Journey<'a> {
    pub(super) requests: &'a Requests,
    pub(super) model: &'a Arc<ActiveModel>,
    pub(super) request: &'a InferRequest,
    pub(super) terms: &'a Terms,
    pub(super) trace: &'a Trace,
}

/// An answer, and where it came from.
pub(super) struct Arrival {
    placement: Placement,
    reason: Reason,
    version: Version,
    outputs: Vec<Tensor>,
    confidence: Option<f32>,
    risk: Option<Risk>,
    label: Option<String>,
    timing: Timing,
    attempts: u32,
    saved_bytes: u64,
    /// Where its sequence stands now, for a piece of one.
    pub(super) stream: Option<StreamState>,
}

/// Something under way, if it is.
type Way<'a, T> = Option<Pin<Box<dyn Future<Output = T> + Send + 'a>>>;
type EdgeEnd = Result<EdgeAnswer, Problem>;
type CloudEnd = Result<CloudAnswer, (Reason, Problem)>;

enum End {
    Edge(EdgeEnd),
    Cloud(CloudEnd),
}

/// What a request has gathered so far.
#[derive(Default)]
struct Hand {
    /// When the edge model was asked.
    edge_asked: Option<Instant>,
    edge: Option<EdgeAnswer>,
    edge_failure: Option<Problem>,
    cloud: Option<CloudAnswer>,
    cloud_failure: Option<Problem>,
    /// The share of the recent doubtful answers that were less in doubt than the one in hand.
    doubt: Option<f64>,
}

impl<'a> Journey<'a> {
    /// To the answer, or to the failure.
    pub(super) async fn travel(&self, mut piece: Option<Piece>) -> Result<Arrival, Problem> {
        let (mut machine, mut action) = Request::start(self.terms.plan);
        let mut hand = Hand::default();
        let (mut edge, mut cloud): (Way<'_, EdgeEnd>, Way<'_, CloudEnd>) = (None, None);
        loop {
            match action {
                Action::RunEdge => edge = self.run_edge(piece.take(), &mut hand),
                Action::AskCloud => cloud = self.ask_cloud(&machine, &hand),
                Action::RunBoth => {
                    edge = self.run_edge(piece.take(), &mut hand);
                    cloud = self.ask_cloud(&machine, &hand);
                }
                Action::Wait => {}
                Action::AnswerEdge(placement, reason) => {
                    let answer = hand.edge.ok_or_else(|| taken(None))?;
                    return Ok(self.edge_arrival(answer, placement, reason));
                }
                Action::AnswerCloud(reason) => {
                    let answer = hand.cloud.ok_or_else(|| taken(None))?;
                    if let Some(failure) = &hand.edge_failure {
                        self.model.served().stood_in(failure);
                    }
                    return Ok(cloud_arrival(answer, reason));
                }
                Action::FailEdge => return Err(taken(hand.edge_failure)),
                Action::FailCloud => return Err(taken(hand.cloud_failure)),
            }
            let event = match next(&mut edge, &mut cloud).await {
                End::Edge(end) => self.edge_event(end, &mut hand),
                End::Cloud(end) => hand.cloud_event(end),
            };
            action = machine.handle(event).map_err(|e| internal(&e))?;
        }
    }

    fn run_edge(&self, piece: Option<Piece>, hand: &mut Hand) -> Way<'a, EdgeEnd> {
        hand.edge_asked = Some(Instant::now());
        Some(Box::pin(self.model.run(self.request, piece, self.terms.cutoff)))
    }

    fn ask_cloud(&self, machine: &Request, hand: &Hand) -> Way<'a, CloudEnd> {
        if hand.edge_failure.as_ref().is_some_and(is_the_askers_fault) {
            let problem = hand.edge_failure.clone().unwrap_or_else(|| taken(None));
            // The cloud would refuse it as well.
            return Some(Box::pin(std::future::ready(Err((Reason::CloudFailed, problem)))));
        }
        let keep =
            if machine.keeps_time_for_edge() { self.model.high_run() } else { <_>::default() };
        let (remaining, doubt) = (remaining(self.terms.cutoff), hand.doubt.unwrap_or(1.0));
        let (requests, model, request, trace) =
            (self.requests, self.model, self.request, self.trace);
        Some(Box::pin(async move {
            let parcel = requests.pack(model, request);
            let asked = (request, &parcel);
            let ask = requests.ask_for(model, asked, remaining, keep, doubt);
            requests.ask_cloud(model, asked, trace, ask).await
        }))
    }

    fn edge_event(&self, end: EdgeEnd, hand: &mut Hand) -> Event {
        self.note_edge(&end, hand.edge_asked.unwrap_or_else(Instant::now));
        let answer = match end {
            Ok(answer) => answer,
            Err(problem) => {
                hand.edge_failure = Some(problem);
                return Event::EdgeFailed;
            }
        };
        self.model.statistics().ran(answer.queue_us, answer.infer_us);
        let profile = &self.terms.profile;
        let accepted = profile.accepts(answer.confidence);
        self.model.served().ran(&answer, accepted);
        if profile.can_defer() && self.request.sequence.is_none() {
            let mut outlook = self.model.outlook();
            if accepted {
                outlook.accepted();
            } else {
                let (threshold, now) = (profile.threshold, Instant::now());
                hand.doubt = Some(outlook.doubted(threshold, answer.confidence, now));
            }
        }
        hand.edge = Some(answer);
        if accepted { Event::EdgeAccepted } else { Event::EdgeDoubtful }
    }

    /// Where the edge model's time went, for the trace.
    fn note_edge(&self, end: &EdgeEnd, asked: Instant) {
        match end {
            Ok(answer) => {
                let queue = Duration::from_micros(answer.queue_us);
                drop(self.trace.part("queue", asked, queue));
                let infer = Duration::from_micros(answer.infer_us);
                let part = self.trace.part("inference", asked + queue, infer);
                drop(part.with("outrigger.model.version", self.model.target().version.get()));
            }
            Err(problem) => {
                let mut part = self.trace.part("inference", asked, asked.elapsed());
                part.failed(problem.code.as_str());
            }
        }
    }

    fn edge_arrival(&self, answer: EdgeAnswer, placement: Placement, reason: Reason) -> Arrival {
        if let (Reason::Confident, Some(watch)) = (reason, self.terms.watch) {
            if let Some(confidence) = answer.confidence {
                self.requests.audits.accepted(self.model, confidence);
            }
            if watch.drawn {
                let (model, request) = (self.model.clone(), self.request.clone());
                self.requests.check(Check::new(model, request, &answer, watch.level));
            }
        }
        Arrival {
            placement,
            reason,
            version: self.model.target().version,
            outputs: answer.outputs,
            confidence: answer.confidence,
            risk: self.terms.profile.promise(placement, reason),
            label: answer.label,
            attempts: 0,
            saved_bytes: 0,
            timing: Timing { queue_us: answer.queue_us, infer_us: answer.infer_us, network_us: 0 },
            stream: answer.stream,
        }
    }
}

/// The end of whichever ends first.
async fn next(edge: &mut Way<'_, EdgeEnd>, cloud: &mut Way<'_, CloudEnd>) -> End {
    let end = tokio::select! {
        biased; // of two answers at the same moment the cheaper one
        end = finished(edge) => End::Edge(end),
        end = finished(cloud) => End::Cloud(end),
    };
    match &end {
        End::Edge(_) => *edge = None,
        End::Cloud(_) => *cloud = None,
    }
    end
}

async fn finished<T>(way: &mut Way<'_, T>) -> T {
    match way {
        Some(way) => way.await,
        None => std::future::pending().await,
    }
}

fn cloud_arrival(answer: CloudAnswer, reason: Reason) -> Arrival {
    Arrival {
        placement: Placement::Cloud,
        reason,
        version: answer.version,
        outputs: answer.outputs,
        confidence: answer.confidence,
        risk: None,
        label: answer.label,
        timing: answer.timing,
        attempts: answer.attempts,
        saved_bytes: answer.saved_bytes,
        stream: None,
    }
}

fn taken(problem: Option<Problem>) -> Problem {
    problem.unwrap_or_else(|| internal(&"an answer without its data"))
}

impl Hand {
    fn cloud_event(&mut self, end: CloudEnd) -> Event {
        match end {
            Ok(answer) => {
                self.cloud = Some(answer);
                Event::CloudAnswered
            }
            Err((reason, problem)) => {
                self.cloud_failure = Some(problem);
                Event::CloudAbsent(reason)
            }
        }
    }
}

impl Arrival {
    /// The answer, as the application gets it.
    pub(super) fn respond(self, request: InferRequest, plan: Plan) -> InferResponse {
        let verdict = Verdict {
            placement: self.placement,
            reason: self.reason,
            plan: Some(plan),
            version: self.version,
            confidence: self.confidence,
            risk: self.risk,
            label: self.label,
            timing: self.timing,
            attempts: self.attempts,
            saved_bytes: self.saved_bytes,
        };
        InferResponse { model: request.model, id: request.id, outputs: self.outputs, verdict }
    }
}
