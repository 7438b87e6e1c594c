//! Removes channels: the result is a smaller dense model that every runtime computes faster.
//!
//! [`channels`] says which channels stay or go together, [`cut`](mod@cut) takes them out of the weights. Which ones go is
//! decided by what the layers that read them lose ([`Importance::Reconstruction`]): of calibration samples it is known how
//! well other channels can stand in, and the weights of the readers are fitted anew with each channel that goes
//! (`regression`). Groups are pruned from the inputs on, and each fit sees what the ones before have left; at the end all
//! layers are fitted once more (`settle`), so errors do not add up. Up to about a quarter of the channels no training is needed. Where there are gradients,
//! [`Importance::Given`] takes anybody's scores, and the readers are fitted all the same.

use std::collections::{BTreeMap, HashMap};

use models::onnx::{Graph, Model};
use models::ort_backend::OrtBackend;
use protocol::tensor::Tensor;
use serde::Serialize;

use crate::error::CompressError;
use crate::measure::{Items, Reference};
use crate::scratch::Scratch;

mod allocation;
pub mod channels;
mod cost;
pub(crate) mod curvature;
pub mod cut;
pub mod mask;
pub(crate) mod reading;
pub(crate) mod regression;
pub(crate) mod samples;
mod settle;

use allocation::{Curve, allocate};
use channels::{Channels, GroupId, Reader};
use cut::Kept;
use regression::Regression;
use samples::{Layer, sample};

/// How the channels are found that matter least.
#[derive(Debug, Clone, PartialEq)]
pub enum Importance {
    /// By the error that readers are left with after they were fitted anew.
    Reconstruction,
    /// By the length of the weights that make them.
    Magnitude,
    /// By scores for the channels that each of these weights makes, for example of first order (weight times
    /// gradient); higher is more important.
    Given(BTreeMap<String, Vec<f64>>),
}

/// How much is pruned, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The share of all channels that stays.
    pub keep: f64,
    /// Whether every group loses the same share, or each what it can spare.
    pub uniform: bool,
    /// Which channels go first.
    pub importance: Importance,
    /// Whether the readers' weights are fitted anew.
    pub repair: bool,
    /// Counts that stay are multiples of this: runtimes compute so many channels at once.
    pub multiple: usize,
}

impl Default for Options {
    fn default() -> Self {
        let importance = Importance::Reconstruction;
        Self { keep: 0.75, uniform: false, importance, repair: true, multiple: 8 }
    }
}

/// What became of one group.
#[derive(Debug, Clone, Serialize)]
pub struct PrunedGroup {
    /// The weights that make its channels.
    pub made_by: Vec<String>,
    /// How many there were.
    pub channels: usize,
    /// How many are left.
    pub kept: usize,
    /// What the readers lost, as a share of what their outputs vary; where that was measured.
    pub loss: Option<f64>,
    /// Why no channel could go.
    pub fixed: Option<&'static str>,
}

/// A pruned model.
#[derive(Debug, Clone)]
pub struct Pruned {
    /// The model.
    pub model: Model,
    /// Every group of channels.
    pub groups: Vec<PrunedGroup>,
}

impl Pruned {
    /// Channels before and after, over all groups.
    pub fn channels(&self) -> (usize, usize) {
        let sum = |count: fn(&PrunedGroup) -> usize| self.groups.iter().map(count).sum();
        (sum(|group| group.channels), sum(|group| group.kept))
    }
}

/// Prunes a folded model. `chosen` are the items that are sampled. `progress` hears of each group.
///
/// # Errors
/// [`CompressError`].
pub fn prune(
    model: &Model,
    options: &Options,
    (items, chosen): (&Items<'_>, &[usize]),
    backend: &OrtBackend,
    progress: &mut dyn FnMut(&PrunedGroup),
) -> Result<Pruned, CompressError> {
    let first = chosen.first().copied().unwrap_or(0);
    let shapes = shapes(model, &items(first)?, backend)?;
    let channels = Channels::find(model, &shapes)?;
    let mut work = Work {
        original: model,
        current: model.clone(),
        channels,
        options,
        items,
        chosen,
        backend,
        scratch: Scratch::new()?,
        kept: Kept::new(),
    };
    let mut groups = Vec::new();
    let goes = work.allocate(&shapes)?;
    for id in work.channels.roots() {
        let group = work.group(id, goes.get(&id).copied().unwrap_or(0))?;
        progress(&group);
        groups.push(group);
    }
    if options.repair {
        work.settle()?;
    }
    let mut model = work.current;
    cut::cut(model.graph_mut(), &work.channels, &work.kept)?;
    Ok(Pruned { model, groups })
}

/// The shapes that all values have for an item: no inference is as sure as running the model.
pub(crate) fn shapes(
    model: &Model,
    inputs: &[Tensor],
    backend: &OrtBackend,
) -> Result<HashMap<String, Vec<i64>>, CompressError> {
    let mut watched = model.clone();
    let values: Vec<String> =
        model.graph().nodes().flat_map(|(_, node)| node.output.clone()).collect();
    let graph = watched.graph_mut();
    values.iter().filter(|value| !value.is_empty()).for_each(|value| graph.add_output(value));
    let mut session = Scratch::new()?.load(&watched, backend)?;
    let outputs = session.run(inputs, &[]);
    let outputs = outputs.map_err(|source| CompressError::Run { item: 0, source })?;
    let known = inputs.iter().chain(&outputs);
    Ok(known.map(|tensor| (tensor.name().to_owned(), tensor.shape().to_vec())).collect())
}

/// Groups are cut at the very end: until then a channel that goes is one that nobody reads any more, which is the same to
/// every layer behind, and keeps all shapes as they are.
struct Work<'w> {
    original: &'w Model,
    current: Model,
    channels: Channels,
    options: &'w Options,
    items: &'w Items<'w>,
    chosen: &'w [usize],
    backend: &'w OrtBackend,
    scratch: Scratch,
    kept: Kept,
}

impl Work<'_> {
    /// For each group that may lose channels, how many units go.
    fn allocate(
        &self,
        shapes: &HashMap<String, Vec<i64>>,
    ) -> Result<BTreeMap<GroupId, usize>, CompressError> {
        let (mut goes, mut curves) = (BTreeMap::new(), Vec::new());
        let mut all = 0;
        let uniform = self.options.uniform || self.options.importance != Importance::Reconstruction;
        let reference = match uniform {
            true => None,
            false => {
                let mut session = self.scratch.load(self.original, self.backend)?;
                Some(Reference::new(&mut *session, self.items, self.few(), None)?)
            }
        };
        for id in self.channels.roots() {
            let group = self.channels.group(id);
            all += group.channels;
            let readers = self.readers(id);
            if group.fixed.is_some() || readers.is_empty() {
                continue;
            }
            match &reference {
                None => {
                    let stays = self.stays(group.channels, group.unit);
                    goes.insert(id, (group.channels - stays) / group.unit);
                }
                Some(reference) => {
                    let work = cost::of(self.original.graph(), &self.channels, id, shapes);
                    let work = work / group.channels as f64;
                    curves.extend(self.curve(id, work, &readers, reference)?);
                }
            }
        }
        let found = allocate(&curves, self.options.keep, all, self.options.multiple.max(1));
        goes.extend(curves.iter().map(|curve| curve.id).zip(found));
        Ok(goes)
    }

    /// The items that show how much a group matters.
    fn few(&self) -> &[usize] {
        &self.chosen[..self.chosen.len().min(WEIGHED_ITEMS)]
    }

    /// What a group would lose, alone. None where its readers cannot be fitted.
    fn curve(
        &self,
        id: GroupId,
        work: f64,
        readers: &[Reader],
        reference: &Reference,
    ) -> Result<Option<Curve>, CompressError> {
        let (channels, unit) = (self.channels.group(id).channels, self.channels.group(id).unit);
        let mut fits = self.fits(id, unit, readers)?;
        if fits.is_empty() {
            return Ok(None);
        }
        let mut mask = vec![true; channels];
        let units = channels / unit;
        let mut losses = eliminate(&mut fits, None, (unit, units.div_ceil(4)), &mut mask);
        let mut alone = self.current.clone();
        self.write(&mut alone, &fits)?;
        self.silence(&mut alone, id, readers, &mask)?;
        let mut session = self.scratch.load(&alone, self.backend)?;
        let moved = 1.0 - reference.compare(&mut *session, self.items, self.few())?.cosine;
        let weight = moved.max(0.0) / losses.iter().sum::<f64>().max(1e-12);
        losses.extend(eliminate(&mut fits, None, (unit, units * 7 / 20), &mut mask));
        Ok(Some(Curve { id, channels, unit, losses, weight, work }))
    }

    fn group(&mut self, id: GroupId, goes: usize) -> Result<PrunedGroup, CompressError> {
        let group = self.channels.group(id).clone();
        let makers =
            self.channels.makers.iter().filter(|(_, made)| self.channels.root(*made) == id);
        let mut pruned = PrunedGroup {
            made_by: makers.map(|(weight, _)| weight.clone()).collect(),
            channels: group.channels,
            kept: group.channels,
            loss: None,
            fixed: group.fixed,
        };
        let readers = self.readers(id);
        if readers.is_empty() {
            pruned.fixed = pruned.fixed.or(Some("no layer reads them"));
        }
        if pruned.fixed.is_some() || goes == 0 {
            return Ok(pruned);
        }
        let mut mask = vec![true; group.channels];
        pruned.loss = self.choose((id, group.unit), &readers, goes, &mut mask)?;
        pruned.kept = mask.iter().filter(|stays| **stays).count();
        self.kept.insert(id, mask);
        Ok(pruned)
    }

    /// How many of so many channels stay.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of a count
    fn stays(&self, channels: usize, unit: usize) -> usize {
        let multiple = if unit > 1 { unit } else { self.options.multiple.max(1) };
        let wanted = (channels as f64 * self.options.keep).ceil() as usize;
        wanted.max(1).next_multiple_of(multiple).min(channels)
    }

    fn readers(&self, id: GroupId) -> Vec<Reader> {
        let reads = |reader: &&Reader| {
            self.channels.positions(&reader.parts).iter().any(|(group, _)| *group == id)
        };
        self.channels.readers.iter().filter(reads).cloned().collect()
    }

    /// Marks the units that go, and fits the readers without them; what they lost.
    fn choose(
        &mut self,
        (id, unit): (GroupId, usize),
        readers: &[Reader],
        goes: usize,
        mask: &mut [bool],
    ) -> Result<Option<f64>, CompressError> {
        let mut fits = self.fits(id, unit, readers)?;
        let scores = match &self.options.importance {
            Importance::Reconstruction if fits.is_empty() => Some(self.magnitudes(id)?),
            Importance::Reconstruction => None,
            Importance::Magnitude => Some(self.magnitudes(id)?),
            Importance::Given(scores) => Some(given(&self.channels, id, scores, mask.len())),
        };
        let by_unit =
            scores.map(|scores| scores.chunks(unit).map(|s| s.iter().sum()).collect::<Vec<f64>>());
        let losses = eliminate(&mut fits, by_unit.as_deref(), (unit, goes), mask);
        let measured = !fits.is_empty();
        let mut current = self.current.clone();
        if self.options.repair {
            self.write(&mut current, &fits)?;
        }
        self.silence(&mut current, id, readers, mask)?;
        self.current = current;
        Ok(measured.then_some(losses.iter().sum()))
    }

    fn write(&self, model: &mut Model, fits: &[Fit]) -> Result<(), CompressError> {
        for fit in fits {
            let (weights, bias) = fit.regression.weights();
            fit.layer.set(model.graph_mut(), &weights, &bias)?;
        }
        Ok(())
    }

    /// The readers as regressions, without what other groups have lost already.
    fn fits(
        &self,
        id: GroupId,
        unit: usize,
        readers: &[Reader],
    ) -> Result<Vec<Fit>, CompressError> {
        let needless =
            !self.options.repair && self.options.importance != Importance::Reconstruction;
        let graph = self.current.graph();
        let layers: Vec<(Layer, &Reader)> = readers
            .iter()
            .filter_map(|reader| Some((Layer::of(graph, reader.node)?, reader)))
            .collect();
        if needless || layers.is_empty() {
            return Ok(Vec::new());
        }
        let watch = |model: &Model, value: fn(&Layer) -> &String| {
            let mut watched = model.clone();
            layers.iter().for_each(|(layer, _)| watched.graph_mut().add_output(value(layer)));
            self.scratch.load(&watched, self.backend)
        };
        let mut current = watch(&self.current, |layer| &layer.reads)?;
        let mut original = watch(self.original, |layer| &layer.gives)?;
        let only: Vec<Layer> = layers.iter().map(|(layer, _)| layer.clone()).collect();
        let moments = sample(&only, (&mut *current, &mut *original), (self.items, self.chosen))?;
        let mut fits = Vec::new();
        for ((layer, reader), moments) in layers.into_iter().zip(moments) {
            // What reads all channels together is one group.
            let Some(moments) = moments.into_iter().next() else { continue };
            let Some((weights, bias)) = layer.weights(graph) else { continue };
            let ridge = RIDGE * layer.inputs as f64 / moments.samples().max(1) as f64;
            let Some(mut regression) = moments.solve(&weights, &bias, ridge, layer.has_bias(graph))
            else {
                continue;
            };
            let positions = self.channels.positions(&reader.parts);
            let mut features = vec![Vec::new(); self.channels.group(id).channels / unit];
            for (position, (group, channel)) in positions.into_iter().enumerate() {
                let own = position * layer.kernel..(position + 1) * layer.kernel;
                let gone = self.kept.get(&group).is_some_and(|mask| !mask[channel]);
                if group == id {
                    features[channel / unit].extend(own);
                } else if gone {
                    regression.remove(&own.collect::<Vec<_>>());
                }
            }
            fits.push(Fit { layer, regression, features });
        }
        Ok(fits)
    }

    /// Squared lengths of the weights that make each channel, with those of depthwise convolutions on the way.
    fn magnitudes(&self, id: GroupId) -> Result<Vec<f64>, CompressError> {
        let mut lengths = vec![0.0; self.channels.group(id).channels];
        for cut in &self.channels.cuts {
            let Some(weight) = self.current.graph().weight(&cut.weight) else { continue };
            let made = self.channels.makers.iter().any(|(name, _)| *name == cut.weight);
            if cut.axis
                != usize::from(made && weight.dims.len() == 2 && self.is_turned(&cut.weight))
                || weight.dims.len() < 2
            {
                continue;
            }
            let inner =
                models::onnx::tensor::elements(&weight.dims[cut.axis + 1..]).unwrap_or(1).max(1);
            let values = models::onnx::tensor::f32s(weight)?;
            let positions = self.channels.positions(&cut.parts);
            for (index, slice) in values.chunks(inner).enumerate() {
                let (group, channel) = positions[index % positions.len()];
                if group == id {
                    lengths[channel] += slice.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                }
            }
        }
        Ok(lengths)
    }

    /// Whether output channels are the weights' last axis.
    fn is_turned(&self, weight: &str) -> bool {
        use models::onnx::attribute::Attributes;
        let graph = self.current.graph();
        let reader = graph.readers(weight).next().map(|id| graph.node(id));
        reader.is_some_and(|node| node.op_type() != "Conv" && node.int("transB").unwrap_or(0) == 0)
    }

    /// Makes sure that no reader hears of the channels that go, whether it was fitted or not.
    fn silence(
        &self,
        model: &mut Model,
        id: GroupId,
        readers: &[Reader],
        mask: &[bool],
    ) -> Result<(), CompressError> {
        let gone = Kept::from([(id, mask.to_vec())]);
        for reader in readers {
            let stays = cut::positions(&self.channels, &reader.parts, &gone);
            silence(model.graph_mut(), reader.node, &stays)?;
        }
        Ok(())
    }
}

/// Items that show how much a group matters.
const WEIGHED_ITEMS: usize = 12;

/// How strongly weights are held to what they were, for each input per sample.
const RIDGE: f64 = 0.01;

/// A reader with what its inputs are.
struct Fit {
    layer: Layer,
    regression: Regression,
    /// For each unit of the group, the inputs that it feeds.
    features: Vec<Vec<usize>>,
}

impl Fit {
    fn cost(&self, unit: usize) -> f64 {
        self.regression.cost(&self.features[unit])
    }
}

/// Takes out so many units, the cheapest first, by scores or by what they cost now; what each cost.
fn eliminate(
    fits: &mut [Fit],
    scores: Option<&[f64]>,
    (unit, count): (usize, usize),
    mask: &mut [bool],
) -> Vec<f64> {
    let mut losses = Vec::with_capacity(count);
    for _ in 0..count {
        let left = (0..mask.len() / unit).filter(|u| mask[u * unit]);
        let cost = |u: usize| match scores {
            Some(scores) => scores[u],
            None => fits.iter().map(|fit| fit.cost(u)).sum(),
        };
        let cheapest = left.map(|u| (u, cost(u))).min_by(|a, b| a.1.total_cmp(&b.1));
        let Some((u, _)) = cheapest else { break };
        mask[u * unit..(u + 1) * unit].fill(false);
        losses.push(fits.iter().map(|fit| fit.cost(u)).sum());
        for fit in &mut *fits {
            fit.regression.remove(&fit.features[u]);
        }
    }
    losses
}

/// Scores from outside, summed over all makers of a group.
fn given(
    channels: &Channels,
    id: GroupId,
    scores: &BTreeMap<String, Vec<f64>>,
    count: usize,
) -> Vec<f64> {
    let mut sums = vec![0.0; count];
    for (weight, made) in &channels.makers {
        if let Some(scores) = scores.get(weight).filter(|_| channels.root(*made) == id) {
            sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
        }
    }
    sums
}

/// Sets the weights of the inputs that do not stay to zero.
fn silence(
    graph: &mut Graph,
    node: models::onnx::NodeId,
    stays: &[bool],
) -> Result<(), CompressError> {
    use models::onnx::attribute::Attributes;
    let proto = graph.node(node).clone();
    let name = &proto.input[1];
    let Some(weight) = graph.weight(name).cloned() else { return Ok(()) };
    let axis = match proto.op_type() {
        "Conv" => 1,
        _ => usize::from(proto.int("transB").unwrap_or(0) != 0),
    };
    let inner = models::onnx::tensor::elements(&weight.dims[axis + 1..]).unwrap_or(1).max(1);
    let mut values = models::onnx::tensor::f32s(&weight)?.into_owned();
    for (index, slice) in values.chunks_mut(inner).enumerate() {
        if !stays[index % stays.len()] {
            slice.fill(0.0);
        }
    }
    graph.set_weight(models::onnx::tensor::new(name, &weight.dims, &values));
    Ok(())
}
