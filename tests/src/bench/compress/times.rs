//! How fast the builds are, in turn with each other on one thread, and how long one static build takes.

use compress::measure::latency;
use compress::{calibrate, fold, quantize};
use models::authoring::dataset::Dataset;
use models::backend::{Backend, Session, SessionOptions};
use models::timing;
use protocol::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

use super::contest::{ANCHOR_ITEMS, Build, Contest, Found};

/// How long two builds take turns.
const PAIR: Duration = Duration::from_secs(4);
/// How long each of the anchor's builds takes part.
const EACH: Duration = Duration::from_secs(2);
/// The anchor's plainest static configuration.
const STATIC: &str = "min-max";

/// The times of one model's builds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Timed {
    /// One run of the float model, in microseconds.
    pub(super) float_us: f64,
    /// How many times as fast as the float model ours is...
    pub(super) ours: f64,
    /// ...and the anchor's fastest within the target, with its place; none is faster than float.
    pub(super) anchor: Option<(usize, f64)>,
    /// How many times as fast as that one ours is, or as float.
    pub(super) beside: f64,
    /// How long one static build takes: ours, the anchor's.
    pub(super) static_seconds: Option<(f64, f64)>,
}

impl Contest<'_> {
    /// Times all builds that meet the target.
    pub(super) fn time(&self, found: &Found) -> anyhow::Result<Timed> {
        let evaluation = Dataset::open(&self.subject.evaluation)?;
        let float = self.load(&self.subject.onnx)?;
        let inputs = evaluation.for_model(float.inputs())?.inputs(evaluation.len() / 2)?;
        drop(float);
        let anchor = self.fastest(found, &inputs)?;
        let own = self.pair(&self.subject.onnx, &found.ours.onnx, &inputs)?;
        let beside = match anchor {
            Some((best, _)) => {
                self.pair(&found.anchors[best].onnx, &found.ours.onnx, &inputs)?.speedup
            }
            None => own.speedup,
        };
        let static_seconds = self.static_builds()?;
        let (float_us, ours) = (own.float_us, own.speedup);
        Ok(Timed { float_us, ours, anchor, beside, static_seconds })
    }

    fn load(&self, onnx: &Path) -> anyhow::Result<Box<dyn Session>> {
        Ok(self.backend.load(onnx, &SessionOptions::default())?)
    }

    fn pair(
        &self,
        first: &Path,
        second: &Path,
        inputs: &[Tensor],
    ) -> anyhow::Result<compress::measure::Latency> {
        let (mut first, mut second) = (self.load(first)?, self.load(second)?);
        Ok(latency(&mut *first, &mut *second, inputs, PAIR)?)
    }

    /// The anchor's fastest build within the target, if it is faster than float.
    fn fastest(&self, found: &Found, inputs: &[Tensor]) -> anyhow::Result<Option<(usize, f64)>> {
        let good = |build: &Build| build.drop <= self.subject.target_drop;
        let places: Vec<usize> =
            (0..found.anchors.len()).filter(|place| good(&found.anchors[*place])).collect();
        let onnx = places.iter().map(|place| found.anchors[*place].onnx.as_path());
        let all = std::iter::once(self.subject.onnx.as_path()).chain(onnx);
        let mut sessions = all.map(|onnx| self.load(onnx)).collect::<Result<Vec<_>, _>>()?;
        let mut turns: Vec<&mut dyn Session> = Vec::new();
        for session in &mut sessions {
            turns.push(&mut **session);
        }
        let budget = EACH * u32::try_from(turns.len())?;
        let times = timing::in_turn(&mut turns, inputs, budget)?;
        let speed = |(place, own): (&usize, &Vec<f64>)| (*place, timing::speedup(&times[0], own));
        let speeds = places.iter().zip(&times[1..]).map(speed);
        let speeds: Vec<(usize, f64)> = speeds.collect();
        for (place, speedup) in &speeds {
            eprintln!("  anchor {}: {speedup:.2}x", found.anchors[*place].what);
        }
        let faster = speeds.into_iter().filter(|(_, speedup)| *speedup > 1.0);
        Ok(faster.max_by(|a, b| a.1.total_cmp(&b.1)))
    }

    /// Seconds for one static build by min-max with the anchor's items, and the anchor's own.
    fn static_builds(&self) -> anyhow::Result<Option<(f64, f64)>> {
        let config = self.subject.anchors.iter().find(|config| config.0 == STATIC);
        let Some(config) = config else { return Ok(None) };
        let ours = self.one_static()?;
        let made = self.anchor().make(&[*config])?;
        Ok(made.first().map(|made| (ours, made.took.seconds)))
    }

    fn one_static(&self) -> anyhow::Result<f64> {
        let calibration = Dataset::open(&self.subject.calibration)?;
        let begin = Instant::now();
        let till = |what: &str| {
            eprintln!("  one static build: {what} at {:.2} s", begin.elapsed().as_secs_f64());
        };
        let mut model = models::onnx::Model::read(&self.subject.onnx)?;
        fold::fold(&mut model, self.backend)?;
        till("folded");
        let session = self.load(&self.subject.onnx)?;
        let data = calibration.for_model(session.inputs())?;
        drop(session);
        let values = quantize::plan(&model, &Default::default(), None).measured();
        let items = |item: usize| Ok(data.inputs(item)?);
        let chosen: Vec<usize> = (0..ANCHOR_ITEMS.min(calibration.len())).collect();
        let seen = calibrate::calibrate(&model, &values, (&items, &chosen), self.backend)?;
        till("calibrated");
        let built = quantize::quantize(&model, &seen, &quantize::Recipe::default())?;
        built.model.write(&self.work.join("static.onnx"))?;
        till("written");
        Ok(begin.elapsed().as_secs_f64())
    }
}
