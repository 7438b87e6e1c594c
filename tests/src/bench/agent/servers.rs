//! Servers under load: where they are, which processes they are, and how they are asked.

use super::subjects::Subject;
use crate::load::{Ask, Target};
use crate::world::Agent;
use prost::Message;
use protocol::wire::inference::InferParameter;
use protocol::wire::inference::ModelInferRequest;
use protocol::wire::inference::infer_parameter::ParameterChoice;
use protocol::wire::inference::model_infer_request::{
    InferInputTensor, InferRequestedOutputTensor,
};
use std::net::SocketAddr;

/// How a server is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    /// The Open Inference Protocol over HTTP, binary tensors.
    Http,
    /// The same over gRPC, raw contents.
    Grpc,
    /// The tensor's bytes, and nothing else, to a path of the model's name.
    Bytes,
}

/// A server and one way to ask it.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) speech: Speech,
    pub(super) process: u32,
}

impl Server {
    /// The agent, both ways.
    pub(super) fn of_agent(agent: &Agent) -> [Self; 2] {
        let process = agent.process().id();
        let (http, grpc) = (agent.address(), agent.grpc_address());
        [
            Self { name: "agent, HTTP", address: http, speech: Speech::Http, process },
            Self { name: "agent, gRPC", address: grpc, speech: Speech::Grpc, process },
        ]
    }

    pub(super) fn target(&self, subject: &Subject) -> Target {
        let address = self.address;
        let ask = match self.speech {
            Speech::Http => {
                let (json_len, body) = subject.http_body();
                let len = json_len.to_string();
                let headers = [("Inference-Header-Content-Length", len.as_str())];
                let path = format!("/v2/models/{}/infer", subject.model);
                Ask::post(address, &path, &headers, &body)
            }
            Speech::Bytes => {
                Ask::post(address, &format!("/{}", subject.model), &[], subject.input.data())
            }
            Speech::Grpc => Ask::Grpc(message(subject).encode_to_vec().into()),
        };
        Target { address, ask, expected: subject.expected.clone() }
    }
}

fn message(subject: &Subject) -> ModelInferRequest {
    let input = &subject.input;
    let timeout =
        InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(60_000_000)) };
    ModelInferRequest {
        model_name: subject.model.to_owned(),
        parameters: [("timeout".to_owned(), timeout)].into(),
        inputs: vec![InferInputTensor {
            name: input.name().to_owned(),
            datatype: input.datatype().to_string(),
            shape: input.shape().to_vec(),
            ..InferInputTensor::default()
        }],
        outputs: vec![InferRequestedOutputTensor {
            name: subject.output.to_owned(),
            ..InferRequestedOutputTensor::default()
        }],
        raw_input_contents: vec![input.data().clone()],
        ..ModelInferRequest::default()
    }
}
