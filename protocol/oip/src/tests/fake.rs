//! One model, `double`: `y = 2 * x`. An input `x` of -1 waits for ever, one of -2 is refused.

use crate::{Ask, Caller, Inference, Intake, router, state};
use axum::Router;
use protocol::id::{ModelName, Version};
use protocol::infer::{InferRequest, InferResponse, Placement, Reason, Timing, Verdict};
use protocol::manifest::TensorSpec;
use protocol::oip::ModelDescription;
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::{DataType, Tensor};
use protocol::versions::VersionPolicy;
use protocol::wire::inference::repository_index_response::ModelIndex;
use protocol::wire::inference::{InferStatistics, ModelStatistics};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};

#[derive(Default)]
pub(super) struct Fake {
    pub(super) intake: Intake,
    pub(super) unloaded: AtomicBool,
    /// Refuses every request on its header.
    pub(super) full: AtomicBool,
    /// The body's length that the last request announced.
    pub(super) announced: AtomicU64,
    pub(super) refused: AtomicUsize,
    /// Requests that are being answered right now.
    pub(super) running: Arc<AtomicUsize>,
    /// Of the last request.
    pub(super) deadline_ms: AtomicUsize,
}

fn spec(name: &str, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: shape.to_vec() }
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Inference for Fake {
    type Place = ();

    fn admit(&self, _: &Caller, ask: &Ask<'_>) -> Result<(), Problem> {
        self.announced.store(ask.body_bytes.unwrap_or(u64::MAX), SeqCst);
        if self.full.load(SeqCst) {
            return Err(Problem::new(ProblemCode::Overloaded, "full").retry_after_ms(1500));
        }
        Ok(())
    }

    fn name(&self) -> &str {
        "fake"
    }

    fn version(&self) -> &str {
        "1.2.3"
    }

    fn is_ready(&self) -> bool {
        !self.unloaded.load(SeqCst)
    }

    fn describe(
        &self,
        model: &ModelName,
        version: Option<Version>,
    ) -> Result<Arc<ModelDescription>, Problem> {
        let there = version.is_none_or(|v| v == Version::FIRST) && self.is_ready();
        if model.as_str() != "double" || !there {
            return Err(Problem::new(ProblemCode::NotFound, "no such model"));
        }
        Ok(Arc::new(ModelDescription {
            name: model.clone(),
            version: Version::FIRST,
            inputs: vec![spec("x", &[-1, 2])],
            outputs: vec![spec("y", &[-1, 2])],
            classes: Some("y".into()),
            labels: vec!["left".into(), "right".into()],
            instances: 1,
            kind: protocol::wire::inference::model_instance_group::Kind::Auto,
            versions: vec![Version::FIRST],
            policy: VersionPolicy::default(),
            takes_sequences: false,
        }))
    }

    async fn infer(&self, (): (), request: InferRequest) -> Result<InferResponse, Problem> {
        self.describe(&request.model, request.version)?;
        self.deadline_ms.store(request.deadline_ms.unwrap_or(0) as usize, SeqCst);
        self.running.fetch_add(1, SeqCst);
        let _running = Running(self.running.clone());
        let input = &request.inputs[0];
        let values = input.to_f32().unwrap_or_default();
        match values.first() {
            Some(-1.0) => std::future::pending().await,
            Some(-2.0) => {
                return Err(Problem::new(ProblemCode::Overloaded, "full").retry_after_ms(1500));
            }
            Some(slow) if *slow >= 100.0 => {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            }
            _ => {}
        }
        let doubled: Vec<f32> = values.iter().map(|v| v * 2.0).collect();
        let output = Tensor::from_f32("y", input.shape().to_vec(), &doubled)?;
        Ok(InferResponse {
            model: request.model,
            id: request.id,
            outputs: vec![output],
            verdict: Verdict {
                placement: Placement::Edge,
                reason: Reason::Confident,
                plan: None,
                version: Version::FIRST,
                confidence: None,
                risk: None,
                label: None,
                timing: Timing::default(),
                attempts: 0,
                saved_bytes: 0,
            },
        })
    }

    fn index(&self) -> Vec<ModelIndex> {
        let state = if self.is_ready() { state::READY } else { state::UNAVAILABLE };
        let entry = |name: &str| ModelIndex {
            name: name.into(),
            version: "1".into(),
            state: state.into(),
            reason: String::new(),
        };
        vec![entry("double"), entry("other")]
    }

    async fn load(&self, _: &Caller, _: &ModelName) -> Result<(), Problem> {
        self.unloaded.store(false, SeqCst);
        Ok(())
    }

    async fn unload(&self, _: &Caller, _: &ModelName) -> Result<(), Problem> {
        self.unloaded.store(true, SeqCst);
        Ok(())
    }

    fn statistics(&self) -> Vec<ModelStatistics> {
        let entry = |name: &str| ModelStatistics {
            name: name.into(),
            version: "1".into(),
            inference_count: 7,
            inference_stats: Some(InferStatistics::default()),
            ..Default::default()
        };
        vec![entry("double"), entry("other")]
    }

    fn intake(&self) -> &Intake {
        &self.intake
    }

    fn refused(&self, _: &Problem) {
        self.refused.fetch_add(1, SeqCst);
    }
}

/// The router over a fake, as this caller sees it.
pub(super) fn served(caller: Caller) -> (Arc<Fake>, Router) {
    let fake = Arc::new(Fake::default());
    let router = router(fake.clone()).layer(axum::Extension(caller));
    (fake, router)
}

/// A caller who may use `double` only.
pub(super) fn limited() -> Caller {
    Caller::of_models(Arc::new([("double".parse().unwrap())].into()))
}
