//! Times the models of a course, in turn, on inputs that came with them. What does not load or run
//! is said of that model, and the others go on.

use super::super::verdict::{Course, Stage};
use super::{Failure, say};
use crate::sandbox::verdict::Message;
use models::backend::{Backend, Session, SessionOptions};
use models::ort_backend::OrtBackend;
use models::timing::{self, in_turn, quantile};
use protocol::measurement::{Timed, Times, decode_inputs};
use protocol::problem::chain;
use protocol::tensor::Tensor;
use std::path::Path;

/// A model of the course: ready, or why not.
type Loaded = Result<Box<dyn Session>, String>;

pub(super) fn run(library: &Path, course: &Course) -> Result<Vec<Timed>, Failure> {
    let backend = OrtBackend::open(library).map_err(|e| Failure::Environment(chain(&e)))?;
    say(&Message::Stage(Stage::Reading))?;
    let inputs = decode_inputs(&std::fs::read(course.folder.join(&course.inputs))?);
    let inputs = inputs.map_err(|problem| Failure::Course(problem.to_string()))?;
    say(&Message::Stage(Stage::Loading))?;
    let options = SessionOptions { threads: course.threads, ..SessionOptions::default() };
    let load = |name: &String| -> Loaded {
        let session = backend.load(&course.folder.join(name), &options);
        session.map_err(|error| chain(&error))
    };
    let mut loaded: Vec<Loaded> = course.models.iter().map(load).collect();
    say(&Message::Stage(Stage::WarmingUp))?;
    loaded.iter_mut().for_each(|model| warm_up(model, &inputs));
    if let Some(Err(why)) = loaded.first() {
        return Err(Failure::Course(format!("the first model fails: {why}")));
    }
    say(&Message::Stage(Stage::Timing))?;
    let mut running: Vec<&mut dyn Session> = Vec::new();
    for session in loaded.iter_mut().flatten() {
        running.push(&mut **session);
    }
    let times = in_turn(&mut running, &inputs, course.time);
    let times = times.map_err(|failed| Failure::Course(chain(&failed)))?;
    drop(running);
    let mut times = times.iter();
    let yardstick = times.clone().next().cloned().unwrap_or_default();
    let timed = |model: Loaded| match model {
        Ok(_) => Timed::Times(summary(&yardstick, times.next().map_or(&[], Vec::as_slice))),
        Err(why) => Timed::Failed(why),
    };
    Ok(loaded.into_iter().map(timed).collect())
}

/// The first run, which fills caches and arenas, and shows whether the model takes these inputs.
fn warm_up(model: &mut Loaded, inputs: &[Tensor]) {
    let Ok(session) = model else { return };
    if let Err(error) = session.run(inputs, &[]) {
        *model = Err(chain(&error));
    }
}

fn summary(yardstick_us: &[f64], own_us: &[f64]) -> Times {
    let mut sorted = own_us.to_vec();
    Times {
        runs: u32::try_from(own_us.len()).unwrap_or(u32::MAX),
        median_us: quantile(&mut sorted, 0.5),
        p95_us: quantile(&mut sorted, 0.95),
        speedup: timing::speedup(yardstick_us, own_us),
    }
}
