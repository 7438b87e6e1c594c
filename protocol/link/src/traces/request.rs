//! What a request's span says of it, by the names of OpenTelemetry's semantic conventions where they
//! have one, and under `outrigger.` where they have none. By them a server's span is in error where the
//! server is at fault; what a caller did wrong has its `error.type` only.

use protocol::id::{ModelName, Version};
use protocol::infer::Verdict;
use protocol::problem::{Problem, ProblemCode};
use protocol::trace::{Origin, Via};

use super::{Part, Trace, Traces};

/// A request between an agent and the cloud, on either side.
const DEFERRAL: &str = "outrigger/infer";
const HTTP_ROUTE: &str = "/v2/models/{model}/infer";

impl Traces {
    /// A request for a model arrived, `over` a connection of this scheme, or of this carrier where it
    /// is an agent's; `unix_ns` is asked only for what is recorded.
    pub fn serve(
        &self,
        origin: Origin,
        over: &'static str,
        model: &ModelName,
        unix_ns: impl FnOnce() -> u64,
    ) -> Trace {
        let Origin { via, parent } = origin;
        let mut trace = self.begin(parent, via, name(via), unix_ns);
        if trace.is_recording() {
            match via {
                Via::Http => {
                    trace.set("http.request.method", "POST");
                    trace.set("http.route", HTTP_ROUTE);
                    trace.set("url.path", format!("/v2/models/{model}/infer"));
                    trace.set("url.scheme", over);
                }
                Via::Grpc | Via::GrpcStream => {
                    trace.set("rpc.system.name", "grpc");
                    trace.set("rpc.method", name(via));
                }
                Via::Agent => {
                    trace.set("rpc.system.name", "outrigger");
                    trace.set("rpc.method", DEFERRAL);
                    trace.set("network.transport", over);
                }
            }
            trace.set("outrigger.model.name", model.to_string());
        }
        trace
    }
}

fn name(via: Via) -> &'static str {
    match via {
        Via::Http => "POST /v2/models/{model}/infer",
        Via::Grpc => "inference.GRPCInferenceService/ModelInfer",
        Via::GrpcStream => "inference.GRPCInferenceService/ModelStreamInfer",
        Via::Agent => DEFERRAL,
    }
}

impl Trace {
    /// The request was answered.
    pub fn answered(&mut self, verdict: &Verdict) {
        if !self.is_recording() {
            return;
        }
        self.version(verdict.version);
        self.set("outrigger.placement", verdict.placement.as_str());
        self.set("outrigger.reason", verdict.reason.as_str());
        if let Some(confidence) = verdict.confidence {
            self.set("outrigger.confidence", confidence);
        }
        self.end(ProblemCode::None);
    }

    /// Which version answered.
    pub fn version(&mut self, version: Version) {
        self.set("outrigger.model.version", version.get());
    }

    /// The asker is told why there is no answer.
    pub fn failed(&mut self, problem: &Problem) {
        self.end(problem.code);
    }

    /// How the request ended.
    pub fn end(&mut self, code: ProblemCode) {
        let Some(recording) = &mut self.recording else { return };
        recording.ended = true;
        let status = match recording.via {
            Via::Http => ("http.response.status_code", u32::from(code.http_status()).into()),
            Via::Grpc | Via::GrpcStream => {
                ("rpc.response.status_code", code.grpc_status().1.into())
            }
            Via::Agent => ("rpc.response.status_code", code.as_str().into()),
        };
        recording.span.attributes.push(status);
        if code != ProblemCode::None {
            recording.span.attributes.push(("error.type", code.as_str().into()));
            recording.span.error = code.is_the_servers().then_some(code.as_str());
        }
    }

    /// A node of the cloud is asked for an answer over this carrier, from now on until this is dropped.
    pub fn deferral(&self, node: &str, carrier: &'static str, attempt: u32) -> Part<'_> {
        let mut part = self.call(DEFERRAL);
        if self.is_recording() {
            part.set("rpc.system.name", "outrigger");
            part.set("rpc.method", DEFERRAL);
            part.set("network.transport", carrier);
            part.set("outrigger.node", node.to_owned());
            part.set("outrigger.attempt", attempt);
        }
        part
    }
}

impl Part<'_> {
    /// How the call ended.
    pub fn end(&mut self, result: Result<(), &Problem>) {
        let code = result.map_or_else(|problem| problem.code, |()| ProblemCode::None);
        self.set("rpc.response.status_code", code.as_str());
        if result.is_err() {
            self.failed(code.as_str());
        }
    }
}
