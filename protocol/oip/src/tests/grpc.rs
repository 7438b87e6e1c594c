use super::fake::{Fake, limited, served};
use crate::Caller;
use crate::grpc::Client;
use axum::Router;
use protocol::tensor::Tensor;
use protocol::wire::inference::infer_parameter::ParameterChoice;
use protocol::wire::inference::model_infer_request::InferInputTensor;
use protocol::wire::inference::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};

type InProcess = Client<Router>;

fn client(caller: Caller) -> (Arc<Fake>, InProcess) {
    let (fake, router) = served(caller);
    (fake, Client::new(router))
}

fn request(values: &[f32]) -> ModelInferRequest {
    let tensor = Tensor::from_f32("x", vec![values.len() as i64 / 2, 2], values).unwrap();
    ModelInferRequest {
        model_name: "double".into(),
        id: values[0].to_string(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: tensor.shape().to_vec(),
            ..Default::default()
        }],
        raw_input_contents: vec![tensor.data().clone()],
        ..Default::default()
    }
}

fn named<T>(build: impl Fn(String, String) -> T) -> T {
    build("double".into(), String::new())
}

#[tokio::test]
async fn what_is_said_about_the_server_and_its_model() {
    let (_, mut client) = client(Caller::unlimited());
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let server = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!((server.name.as_str(), server.version.as_str()), ("fake", "1.2.3"));
    let metadata = named(|name, version| ModelMetadataRequest { name, version });
    let metadata = client.model_metadata(metadata).await.unwrap().into_inner();
    assert_eq!(metadata.outputs[0].shape, [-1, 2]);
    let config = named(|name, version| ModelConfigRequest { name, version });
    let config = client.model_config(config).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.max_batch_size, &config.input[0].dims), (4096, &vec![2]));
    let everything = ModelStatisticsRequest::default();
    let all = client.model_statistics(everything).await.unwrap().into_inner().model_stats;
    assert_eq!(all.len(), 2);
    let one = named(|name, version| ModelStatisticsRequest { name, version });
    assert_eq!(client.model_statistics(one).await.unwrap().into_inner().model_stats.len(), 1);
    for (name, ready) in [("double", true), ("nothing", false), ("", false)] {
        let ask = ModelReadyRequest { name: name.into(), version: String::new() };
        assert_eq!(client.model_ready(ask).await.unwrap().into_inner().ready, ready, "{name}");
    }
}

#[tokio::test]
async fn answers_raw_typed_compressed_and_as_classes() {
    for encoding in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Deflate)] {
        let (_, mut client) = client(Caller::unlimited());
        if let Some(encoding) = encoding {
            client = client.send_compressed(encoding);
        }
        let answer = client.model_infer(request(&[1.0, 2.0])).await.unwrap().into_inner();
        assert_eq!(answer.raw_output_contents, [vec![0, 0, 0, 64, 0, 0, 128, 64]]);
        let mut typed = request(&[1.0, 2.0]);
        typed.raw_input_contents.clear();
        typed.inputs[0].contents =
            Some(InferTensorContents { fp32_contents: vec![1.0, 2.0], ..Default::default() });
        typed.outputs = vec![model_infer_request::InferRequestedOutputTensor {
            name: "y".into(),
            parameters: [("classification".into(), parameter(ParameterChoice::Int64Param(1)))]
                .into(),
        }];
        let classes = client.model_infer(typed).await.unwrap().into_inner();
        assert_eq!(&classes.raw_output_contents[0][4..], b"4.000000:1:right");
    }
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

#[tokio::test]
async fn problems_have_their_codes() {
    let (fake, mut client) = client(Caller::unlimited());
    let full = client.model_infer(request(&[-2.0, 0.0])).await.unwrap_err();
    assert_eq!(full.code(), Code::Unavailable);
    assert_eq!(full.metadata().get("grpc-retry-pushback-ms").unwrap(), "1500");
    let mut absent = request(&[1.0, 2.0]);
    absent.model_name = "nothing".into();
    assert_eq!(client.model_infer(absent).await.unwrap_err().code(), Code::NotFound);
    let mut wrong = request(&[1.0, 2.0]);
    wrong.inputs[0].shape = vec![3];
    assert_eq!(client.model_infer(wrong).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(fake.refused.load(SeqCst), 1);
}

#[tokio::test]
async fn the_deadline_of_a_call_reaches_the_model() {
    let (fake, mut client) = client(Caller::unlimited());
    let mut call = Request::new(request(&[1.0, 2.0]));
    call.set_timeout(Duration::from_millis(70));
    client.model_infer(call).await.unwrap();
    assert_eq!(fake.deadline_ms.load(SeqCst), 70);
    let mut sooner = request(&[1.0, 2.0]);
    sooner.parameters.insert("timeout".into(), parameter(ParameterChoice::Int64Param(20_000)));
    let mut call = Request::new(sooner);
    call.set_timeout(Duration::from_millis(70));
    client.model_infer(call).await.unwrap();
    assert_eq!(fake.deadline_ms.load(SeqCst), 20);
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled() {
    let (fake, mut client) = client(Caller::unlimited());
    let waiting =
        tokio::time::timeout(Duration::from_millis(50), client.model_infer(request(&[-1.0, 0.0])));
    assert!(waiting.await.is_err());
    assert_eq!(fake.running.load(SeqCst), 0);
}

#[tokio::test]
async fn streams_keep_the_order_and_survive_errors() {
    let (_, mut client) = client(Caller::unlimited());
    // The first is slow, the second fails, and still they come back in order.
    let mut last = request(&[4.0, 0.0]);
    let enable = parameter(ParameterChoice::BoolParam(true));
    last.parameters.insert("triton_enable_empty_final_response".into(), enable);
    let mut broken = request(&[5.0, 0.0]);
    broken.raw_input_contents.clear();
    let asked = [request(&[100.0, 0.0]), request(&[-2.0, 0.0]), broken, last];
    let stream = futures_util::stream::iter(asked);
    let mut answers = client.model_stream_infer(stream).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        let inside = answer.infer_response.unwrap();
        let is_last = inside.parameters.contains_key("triton_final_response");
        seen.push((inside.id, answer.error_message.is_empty(), is_last));
    }
    let expected =
        [("100", true, false), ("-2", false, false), ("5", false, false), ("4", true, true)];
    assert_eq!(seen, expected.map(|(id, good, last)| (id.to_owned(), good, last)));
}

#[tokio::test]
async fn a_repository_is_managed_only_from_where_it_may_be() {
    let (_, mut manager) = client(Caller::unlimited().managing());
    let unload =
        || RepositoryModelUnloadRequest { model_name: "double".into(), ..Default::default() };
    let load = |key: &str| {
        let value = ModelRepositoryParameter::default();
        let parameters = if key.is_empty() { [].into() } else { [(key.to_owned(), value)].into() };
        RepositoryModelLoadRequest { model_name: "double".into(), parameters, ..Default::default() }
    };
    manager.repository_model_unload(unload()).await.unwrap();
    assert!(!manager.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    for key in ["config", "file:1/model.onnx"] {
        let refused = manager.repository_model_load(load(key)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
    manager.repository_model_load(load("")).await.unwrap();

    let (_, mut client) = client(limited());
    let refused = client.repository_model_unload(unload()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap();
    assert_eq!(index.into_inner().models.len(), 1);
    let mut other = request(&[1.0, 2.0]);
    other.model_name = "other".into();
    assert_eq!(client.model_infer(other).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn calls_that_are_not_served_say_so() {
    let (_, router) = served(Caller::unlimited());
    for call in ["inference.GRPCInferenceService/TraceSetting", "grpc.health.v1.Health/Check"] {
        let request = axum::http::Request::post(format!("/{call}"))
            .header("content-type", "application/grpc")
            .body(axum::body::Body::empty())
            .unwrap();
        let response = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
        let header = |name| response.headers()[name].to_str().unwrap();
        assert_eq!(header("grpc-status"), "12", "{call}");
        assert!(header("grpc-message").contains("not%20served"), "{call}");
    }
}
