//! An edge variant out of one model: cut after a block, with a linear head that is fitted to the model's own answers.
//!
//! A value that every path from the inputs to the output runs through is a place to cut. What stands there, averaged over
//! the space (or the tokens), is read by one linear layer, whose weights follow from calibration items in closed form:
//! ridge regression on the whole model's logits. No gradient, no labels needed. For easy inputs the early layers are
//! enough, and what they are not sure of is deferred.

use std::collections::{BTreeSet, HashMap};

use models::onnx::attribute::{Attributes, node};
use models::onnx::{Graph, Model, NodeId, tensor};
use models::ort_backend::OrtBackend;
use protocol::tensor::Tensor;
use serde::Serialize;

use crate::error::CompressError;
use crate::measure::Items;
use crate::prune::{regression::Moments, shapes};
use crate::scratch::Scratch;

/// The most places that are tried.
const PLACES_MAX: usize = 16;
/// Strengths of the ridge that are tried.
const RIDGES: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];

/// What is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The value to cut after, instead of the best place.
    pub after: Option<String>,
    /// How many answers may differ from the whole model's (or be wrong where its are right, with labels).
    pub target_drop: f64,
}

/// A place to cut, and what is left behind it.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// The value.
    pub after: String,
    /// The share of the model's multiplications before it.
    pub work: f64,
    /// How many numbers the head reads.
    pub features: usize,
    /// The share of items with the whole model's class.
    pub agreement: f64,
    /// The share of right answers, with labels.
    pub accuracy: Option<f64>,
}

/// A model that ends early.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// The model.
    pub model: Model,
    /// Every place that was tried, in order.
    pub places: Vec<Place>,
    /// Which one was taken.
    pub chosen: usize,
    /// The whole model's share of right answers on the same items, with labels.
    pub accuracy: Option<f64>,
}

/// Items for the fit, and others to choose with.
#[derive(Debug, Clone, Copy)]
pub struct Split<'s> {
    /// For the weights of the head.
    pub fit: &'s [usize],
    /// For the place and the strength of the ridge.
    pub choose: &'s [usize],
}

/// Cuts a folded model whose first output is one row of scores.
///
/// # Errors
/// [`CompressError`]; [`CompressError::NoPlace`] for a model that cannot be cut.
pub fn distill(
    model: &Model,
    options: &Options,
    (items, split): (&Items<'_>, Split<'_>),
    labels: Option<&[usize]>,
    backend: &OrtBackend,
) -> Result<Distilled, CompressError> {
    let first = split.fit.first().copied().unwrap_or(0);
    let shapes = shapes(model, &items(first)?, backend)?;
    let output = model.graph().outputs().first().map(|o| o.name().to_owned()).unwrap_or_default();
    let classes = match shapes.get(&output).map(Vec::as_slice) {
        Some([1, classes]) if *classes > 1 => usize::try_from(*classes).unwrap_or(0),
        _ => return Err(CompressError::NoPlace("its first output is no row of scores")),
    };
    let candidates = places(model.graph(), &shapes, options.after.as_deref())?;
    if candidates.is_empty() {
        return Err(CompressError::NoPlace("no value of images or tokens is passed by every path"));
    }
    let seen = Seen::collect(model, (&candidates, &output, classes), (items, split), backend)?;
    let labels: Option<Vec<usize>> =
        labels.map(|labels| split.choose.iter().map(|item| labels[*item]).collect());
    let whole: Vec<usize> = seen.logits.iter().map(|row| best(row)).collect();
    let (mut found, mut heads) = (Vec::new(), Vec::new());
    for (index, candidate) in candidates.iter().enumerate() {
        let Some((head, answers)) = seen.fit(index, &whole) else { continue };
        found.push(Place {
            after: candidate.value.clone(),
            work: candidate.work,
            features: candidate.features,
            agreement: share(&answers, &whole),
            accuracy: labels.as_ref().map(|labels| share(&answers, labels)),
        });
        heads.push((candidate, head));
    }
    let accuracy = labels.as_ref().map(|labels| share(&whole, labels));
    let drop = |place: &Place| match (accuracy, place.accuracy) {
        (Some(whole), Some(own)) => whole - own,
        _ => 1.0 - place.agreement,
    };
    let good = (0..found.len()).find(|i| drop(&found[*i]) <= options.target_drop);
    let nearest = || (0..found.len()).min_by(|a, b| drop(&found[*a]).total_cmp(&drop(&found[*b])));
    let chosen = good.or_else(nearest).ok_or(CompressError::NoPlace("no head could be fitted"))?;
    let (candidate, head) = &heads[chosen];
    let model = ended(model, candidate, (&output, classes), head)?;
    Ok(Distilled { model, places: found, chosen, accuracy })
}

struct Candidate {
    value: String,
    work: f64,
    features: usize,
    rank: usize,
}

/// Values that every path runs through, evenly over the model's work.
fn places(
    graph: &Graph,
    shapes: &HashMap<String, Vec<i64>>,
    after: Option<&str>,
) -> Result<Vec<Candidate>, CompressError> {
    let order = graph.order()?;
    let work = |id: &NodeId| {
        let node = graph.node(*id);
        let weight = graph.weight(node.input.get(1)?)?;
        crate::inspect::macs(node, &weight.dims, shapes.get(node.output.first()?)?)
    };
    let all: u64 = order.iter().filter_map(work).sum();
    let (mut done, mut found) = (0u64, Vec::new());
    for (index, id) in order.iter().enumerate() {
        done += work(id).unwrap_or(0);
        let rest: BTreeSet<NodeId> = order[index + 1..].iter().copied().collect();
        let live = |value: &&String| graph.readers(value).any(|reader| rest.contains(&reader));
        let outputs = &graph.node(*id).output;
        let [value] = outputs.iter().filter(live).collect::<Vec<_>>()[..] else { continue };
        if order[..index].iter().flat_map(|id| &graph.node(*id).output).any(|v| live(&v)) {
            continue;
        }
        let Some(shape) = shapes.get(value) else { continue };
        let channels = match shape[..] {
            [1, channels, _, _] | [1, _, channels] => channels,
            _ => continue,
        };
        let share = done as f64 / all.max(1) as f64;
        let wanted = after.map_or(share > 0.02 && share < 0.95, |after| after == value);
        if wanted {
            let features = usize::try_from(channels).unwrap_or(0);
            found.push(Candidate {
                value: value.clone(),
                work: share,
                features,
                rank: shape.len(),
            });
        }
    }
    let step = found.len().div_ceil(PLACES_MAX).max(1);
    // The last of each run stands behind the activation functions.
    Ok(found.into_iter().rev().step_by(step).collect::<Vec<_>>().into_iter().rev().collect())
}

/// What the places and the output said.
struct Seen {
    moments: Vec<Moments>,
    /// For each place, the features of the items to choose with.
    features: Vec<Vec<Vec<f32>>>,
    /// The logits of these items.
    logits: Vec<Vec<f32>>,
    classes: usize,
}

impl Seen {
    fn collect(
        model: &Model,
        (places, output, classes): (&[Candidate], &str, usize),
        (items, split): (&Items<'_>, Split<'_>),
        backend: &OrtBackend,
    ) -> Result<Self, CompressError> {
        let mut watched = model.clone();
        places.iter().for_each(|place| watched.graph_mut().add_output(&place.value));
        let mut session = Scratch::new()?.load(&watched, backend)?;
        let wanted: Vec<String> =
            places.iter().map(|place| place.value.clone()).chain([output.to_owned()]).collect();
        let moments = places.iter().map(|place| Moments::new(place.features, classes)).collect();
        let features = vec![Vec::new(); places.len()];
        let mut seen = Self { moments, features, logits: Vec::new(), classes };
        for (items_of, fits) in [(split.fit, true), (split.choose, false)] {
            for &item in items_of {
                let outputs = session.run(&items(item)?, &wanted);
                let outputs = outputs.map_err(|source| CompressError::Run { item, source })?;
                seen.add(places, &outputs, fits);
            }
        }
        Ok(seen)
    }

    fn add(&mut self, places: &[Candidate], outputs: &[Tensor], fits: bool) {
        let logits = outputs.last().and_then(Tensor::to_f32).unwrap_or_default();
        for (index, place) in places.iter().enumerate() {
            let values = outputs[index].to_f32().unwrap_or_default();
            let means = means(&values, place);
            match fits {
                true => self.moments[index].add(&means, &logits),
                false => self.features[index].push(means),
            }
        }
        if !fits {
            self.logits.push(logits);
        }
    }

    /// The head of a place that agrees best, with its answers.
    fn fit(&self, place: usize, whole: &[usize]) -> Option<(Head, Vec<usize>)> {
        let moments = &self.moments[place];
        let zeros = vec![0.0; moments.inputs() * self.classes];
        let heads = RIDGES.iter().filter_map(|ridge| {
            let fitted = moments.clone().solve(&zeros, &vec![0.0; self.classes], *ridge, true)?;
            let (weights, bias) = fitted.weights();
            let head = Head { weights, bias };
            let answers: Vec<usize> =
                self.features[place].iter().map(|row| best(&head.scores(row))).collect();
            Some((share(&answers, whole), head, answers))
        });
        let found = heads.max_by(|a, b| a.0.total_cmp(&b.0));
        found.map(|(_, head, answers)| (head, answers))
    }
}

/// Means over the space, or over the tokens.
fn means(values: &[f32], place: &Candidate) -> Vec<f32> {
    let channels = place.features.max(1);
    let others = (values.len() / channels).max(1);
    let mean = |sum: f32| sum / others as f32;
    match place.rank {
        4 => values.chunks(others).map(|plane| mean(plane.iter().sum())).collect(),
        _ => (0..channels).map(|c| mean(values.iter().skip(c).step_by(channels).sum())).collect(),
    }
}

/// A linear layer; a row for each class.
struct Head {
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Head {
    fn scores(&self, features: &[f32]) -> Vec<f32> {
        let row = |(row, bias): (&[f32], &f32)| {
            row.iter().zip(features).map(|(w, x)| w * x).sum::<f32>() + bias
        };
        self.weights.chunks(features.len().max(1)).zip(&self.bias).map(row).collect()
    }
}

fn best(scores: &[f32]) -> usize {
    let most = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    most.map_or(0, |(class, _)| class)
}

fn share(answers: &[usize], right: &[usize]) -> f64 {
    let same = answers.iter().zip(right).filter(|(a, b)| a == b).count();
    same as f64 / answers.len().max(1) as f64
}

/// The model up to a place, with the head; its output keeps its name.
fn ended(
    model: &Model,
    place: &Candidate,
    (output, classes): (&str, usize),
    head: &Head,
) -> Result<Model, CompressError> {
    let mut model = model.clone();
    let new_axes = model.opset("").unwrap_or(13) >= 18;
    let graph = model.graph_mut();
    if let Some(maker) = graph.maker(output) {
        graph.remove(maker);
    }
    graph.head_mut().output.retain(|o| o.name() == output);
    let [pooled, flat, weights, bias, axes] = ["pooled", "features", "weights", "bias", "axes"]
        .map(|end| graph.fresh(&format!("head_{end}")));
    let size = |count: usize| i64::try_from(count).unwrap_or(0);
    graph.set_weight(tensor::new(&weights, &[size(classes), size(place.features)], &head.weights));
    graph.set_weight(tensor::new(&bias, &[size(classes)], &head.bias));
    match (place.rank, new_axes) {
        (4, _) => {
            graph.insert(node("GlobalAveragePool", &[&place.value], &[&pooled]))?;
            graph.insert(node("Flatten", &[&pooled], &[&flat]).with_int("axis", 1))?;
        }
        (_, true) => {
            graph.set_weight(tensor::new(&axes, &[1], &[1i64]));
            let mean = node("ReduceMean", &[&place.value, &axes], &[&flat]);
            graph.insert(mean.with_int("keepdims", 0))?;
        }
        (_, false) => {
            let mean = node("ReduceMean", &[&place.value], &[&flat]).with_ints("axes", &[1]);
            graph.insert(mean.with_int("keepdims", 0))?;
        }
    }
    let gemm = node("Gemm", &[&flat, &weights, &bias], &[output]);
    graph.insert(gemm.with_int("transB", 1))?;
    graph.remove_dead();
    Ok(model)
}
