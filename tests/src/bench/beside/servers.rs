//! Servers under load: where they are, which processes they are, and how they are asked.

use super::subjects::Subject;
use crate::load::{Ask, Target, Tls};
use crate::world::{Agent, World};
use anyhow::Context;
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
pub(in crate::bench) enum Speech {
    /// The Open Inference Protocol over HTTP, binary tensors.
    Http,
    /// The same over gRPC, raw contents.
    Grpc,
    /// The tensor's bytes, and nothing else, to a path of the model's name.
    Bytes,
}

/// A server and one way to ask it.
pub(in crate::bench) struct Server {
    pub(in crate::bench) name: &'static str,
    pub(in crate::bench) address: SocketAddr,
    pub(in crate::bench) speech: Speech,
    pub(in crate::bench) process: u32,
    /// Whether requests may share a run there, where the model allows it.
    pub(in crate::bench) batches: bool,
    /// For servers that want a key, and speak TLS.
    pub(in crate::bench) secured: Option<Secured>,
}

/// How a server with TLS is asked.
#[derive(Clone)]
pub(in crate::bench) struct Secured {
    /// Whom its callers trust.
    pub(in crate::bench) tls: Tls,
    /// What they show.
    pub(in crate::bench) authorization: String,
}

impl Server {
    /// The cloud, both ways, with a key of a client.
    pub(in crate::bench) fn of_cloud(world: &World) -> anyhow::Result<[Self; 2]> {
        let process = world.cloud.process().context("no cloud")?.id();
        let address = world.cloud.address().parse()?;
        let key = world.operator.json(&["key", "create", "--name", "bench", "--role", "client"])?;
        let key = key["key"].as_str().context("no key")?;
        let tls = Tls::of_fleet(&world.cloud.ca_pem())?;
        let secured = Some(Secured { tls, authorization: format!("Bearer {key}") });
        let server = |name, speech| Self {
            name,
            address,
            speech,
            process,
            batches: true,
            secured: secured.clone(),
        };
        Ok([server("cloud, HTTPS", Speech::Http), server("cloud, gRPC", Speech::Grpc)])
    }

    /// The agent, both ways.
    pub(in crate::bench) fn of_agent(agent: &Agent) -> [Self; 2] {
        let process = agent.process().id();
        let (http, grpc) = (agent.address(), agent.grpc_address());
        [
            Self::open("agent, HTTP", http, Speech::Http, process, false),
            Self::open("agent, gRPC", grpc, Speech::Grpc, process, false),
        ]
    }

    /// A server that answers everybody.
    pub(super) fn open(
        name: &'static str,
        address: SocketAddr,
        speech: Speech,
        process: u32,
        batches: bool,
    ) -> Self {
        Self { name, address, speech, process, batches, secured: None }
    }

    /// Whether it is worth asking: a peer that is configured to batch has its twin that is not, and
    /// does the same where nothing can be batched.
    pub(in crate::bench) fn matters_for(&self, subject: &Subject) -> bool {
        subject.batches || !self.batches || self.secured.is_some()
    }

    pub(in crate::bench) fn target(&self, subject: &Subject) -> Target {
        let address = self.address;
        let authorization = self.secured.as_ref().map(|s| s.authorization.as_str());
        let ask = match self.speech {
            Speech::Http => {
                let (json_len, body) = subject.http_body();
                let len = json_len.to_string();
                let mut headers = vec![("Inference-Header-Content-Length", len.as_str())];
                headers.extend(authorization.map(|text| ("Authorization", text)));
                let path = format!("/v2/models/{}/infer", subject.model);
                Ask::post(address, &path, &headers, &body)
            }
            Speech::Bytes => {
                Ask::post(address, &format!("/{}", subject.model), &[], subject.input.data())
            }
            Speech::Grpc => Ask::Grpc {
                message: message(subject).encode_to_vec().into(),
                authorization: authorization.map(str::to_owned),
            },
        };
        let tls = self.secured.as_ref().map(|secured| secured.tls.clone());
        Target { address, ask, expected: subject.expected.clone(), tls }
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
