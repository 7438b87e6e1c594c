//! The calls.

use super::early::Early;
use super::generated::grpc_inference_service_server::GrpcInferenceService;
use super::{refused, status_of};
use crate::intake::Held;
use crate::{Ask, Caller, Inference};
use futures_util::{Stream, StreamExt};
use prost::Message as _;
use protocol::oip::grpc::{
    parse_names, parse_request, parse_timeout, render_response, stream_response,
};
use protocol::oip::{self, ModelDescription, ParsedRequest};
use protocol::problem::Problem;
use protocol::wire::inference::*;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

/// Requests of one stream that are answered at the same time; the next ones wait to be read.
const STREAM_IN_FLIGHT: usize = 16;

/// Answers calls with what an [`Inference`] says.
pub(super) struct Service<I>(pub(super) Arc<I>);

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(result: Result<T, Problem>) -> Answer<T> {
    result.map(Response::new).map_err(|problem| status_of(&problem))
}

fn deadline(metadata: &MetadataMap) -> Option<Duration> {
    parse_timeout(metadata.get("grpc-timeout")?.to_str().ok()?)
}

impl<I: Inference> Service<I> {
    fn describe(
        &self,
        caller: Result<Caller, Problem>,
        model: &str,
        version: &str,
    ) -> Result<Arc<ModelDescription>, Problem> {
        let (model, version) = parse_names(model, version)?;
        caller?.check_model(&model)?;
        self.0.describe(&model, version)
    }

    /// Answers one request, which may have its place already. Whether it asked for the mark of a last
    /// response stands before the answer.
    async fn infer(
        &self,
        caller: &Caller,
        early: Option<Early<I::Place>>,
        timeout: Option<Duration>,
        message: ModelInferRequest,
    ) -> (bool, Result<ModelInferResponse, Problem>) {
        let bytes = message.encoded_len() as u64;
        let parsed = parse_request(message, timeout).and_then(|parsed| {
            caller.check_model(&parsed.request.model)?;
            let place = early.map(|early| early.place_for(&parsed.request)).transpose()?;
            Ok((parsed, place.flatten()))
        });
        match parsed {
            Ok((ParsedRequest { mut request, form }, place)) => {
                caller.own(&mut request);
                let ask = Ask {
                    model: &request.model,
                    version: request.version,
                    body_bytes: Some(bytes),
                };
                let place = place.map_or_else(|| self.0.admit(caller, &ask), Ok);
                let result = match place {
                    Ok(place) => self.infer_parsed(place, request, &form).await,
                    Err(problem) => Err(problem),
                };
                (form.wants_final_response(), result)
            }
            Err(problem) => {
                self.0.refused(&problem);
                (false, Err(problem))
            }
        }
    }

    async fn infer_parsed(
        &self,
        place: I::Place,
        request: protocol::infer::InferRequest,
        form: &oip::OutputForm,
    ) -> Result<ModelInferResponse, Problem> {
        let mut response = self.0.infer(place, request).await?;
        if form.wants_classes() {
            let model = self.0.describe(&response.model, Some(response.verdict.version))?;
            oip::classify(&mut response, form, &model)?;
        }
        Ok(render_response(response))
    }

    /// Who makes a load or unload request and which model it means, if the caller may make it.
    fn change<'a>(
        &self,
        caller: Result<Caller, Problem>,
        model: &str,
        mut parameters: impl Iterator<Item = &'a String>,
    ) -> Result<(Caller, protocol::id::ModelName), Status> {
        let check = || {
            let (model, _) = parse_names(model, "")?;
            let caller = caller?;
            caller.check_manages(&model)?;
            parameters.try_for_each(|key| oip::check_parameter(key))?;
            Ok((caller, model))
        };
        check().map_err(|problem| {
            self.0.refused(&problem);
            status_of(&problem)
        })
    }
}

#[tonic::async_trait]
impl<I: Inference> GrpcInferenceService for Service<I> {
    async fn server_live(
        self: Arc<Self>,
        _: Request<ServerLiveRequest>,
    ) -> Answer<ServerLiveResponse> {
        answer(Ok(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        self: Arc<Self>,
        _: Request<ServerReadyRequest>,
    ) -> Answer<ServerReadyResponse> {
        answer(Ok(ServerReadyResponse { ready: self.0.is_ready() }))
    }

    /// A model that is not there is not ready, which is an answer and no error.
    async fn model_ready(
        self: Arc<Self>,
        request: Request<ModelReadyRequest>,
    ) -> Answer<ModelReadyResponse> {
        let caller = Caller::of(request.extensions());
        let ModelReadyRequest { name, version } = request.into_inner();
        let ready = self.describe(caller, &name, &version).is_ok();
        answer(Ok(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        self: Arc<Self>,
        _: Request<ServerMetadataRequest>,
    ) -> Answer<ServerMetadataResponse> {
        answer(Ok(ServerMetadataResponse {
            name: self.0.name().to_owned(),
            version: self.0.version().to_owned(),
            extensions: oip::EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        self: Arc<Self>,
        request: Request<ModelMetadataRequest>,
    ) -> Answer<ModelMetadataResponse> {
        let caller = Caller::of(request.extensions());
        let ModelMetadataRequest { name, version } = request.into_inner();
        answer(self.describe(caller, &name, &version).map(|model| model.metadata()))
    }

    async fn model_config(
        self: Arc<Self>,
        request: Request<ModelConfigRequest>,
    ) -> Answer<ModelConfigResponse> {
        let caller = Caller::of(request.extensions());
        let ModelConfigRequest { name, version } = request.into_inner();
        let sequences = self.0.sequence_limits();
        let config = self.describe(caller, &name, &version).map(|model| model.config(sequences));
        answer(config.map(|config| ModelConfigResponse { config: Some(config) }))
    }

    async fn model_infer(
        self: Arc<Self>,
        request: Request<ModelInferRequest>,
    ) -> Answer<ModelInferResponse> {
        let caller = Caller::of(request.extensions()).map_err(|p| status_of(&p))?;
        let timeout = deadline(request.metadata());
        let early = request.extensions().get::<Early<I::Place>>().cloned();
        let (_, result) = self.infer(&caller, early, timeout, request.into_inner()).await;
        answer(result)
    }

    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    /// Responses come in the order of their requests. The deadline of the call is the stream's, so
    /// only a request's own parameter bounds its answer.
    async fn model_stream_infer(
        self: Arc<Self>,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let caller = Caller::of(request.extensions()).map_err(|p| status_of(&p))?;
        let held = request.extensions().get::<Held>().cloned();
        let answers = request.into_inner().map(move |message| {
            let (service, caller) = (self.clone(), caller.clone());
            let memory = held.as_ref().and_then(Held::take); // of this message, until its answer
            async move {
                let _memory = memory;
                let message = message.map_err(|status| refused::count(&*service.0, status))?;
                let id = message.id.clone();
                let (last, result) = service.infer(&caller, None, None, message).await;
                Ok(stream_response(id, last, result))
            }
        });
        answer(Ok(answers.buffered(STREAM_IN_FLIGHT).boxed()))
    }

    async fn model_statistics(
        self: Arc<Self>,
        request: Request<ModelStatisticsRequest>,
    ) -> Answer<ModelStatisticsResponse> {
        let caller = Caller::of(request.extensions());
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let find = || {
            let wanted = if name.is_empty() { None } else { Some(parse_names(&name, &version)?) };
            crate::statistics(&*self.0, &caller?, wanted)
        };
        answer(find().map(|model_stats| ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        self: Arc<Self>,
        request: Request<RepositoryIndexRequest>,
    ) -> Answer<RepositoryIndexResponse> {
        let caller = Caller::of(request.extensions()).map_err(|p| status_of(&p))?;
        let models = crate::index(&*self.0, &caller, request.into_inner().ready);
        answer(Ok(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        self: Arc<Self>,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Answer<RepositoryModelLoadResponse> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let (caller, model) =
            self.change(caller, &request.model_name, request.parameters.keys())?;
        answer(self.0.load(&caller, &model).await.map(|()| RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        self: Arc<Self>,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Answer<RepositoryModelUnloadResponse> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let (caller, model) =
            self.change(caller, &request.model_name, request.parameters.keys())?;
        answer(self.0.unload(&caller, &model).await.map(|()| RepositoryModelUnloadResponse {}))
    }
}
