//! What layers read and give, at some places of some items.

use models::backend::Session;
use models::calibrate::random::Random;
use models::onnx::attribute::Attributes;
use models::onnx::proto::NodeProto;
use models::onnx::{Graph, NodeId, tensor};
use protocol::tensor::Tensor;

use super::regression::Moments;
use crate::error::CompressError;
use crate::measure::Items;

/// Layers with more inputs than that are not fitted: their matrix would not fit the memory.
const INPUTS_MAX: usize = 2304;
/// Places of each item, at least.
const PLACES: usize = 64;

/// A layer that can be fitted.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) node: NodeId,
    /// The value that it reads.
    pub(crate) reads: String,
    /// The value that it gives.
    pub(crate) gives: String,
    /// Numbers that one place reads, of each group.
    pub(crate) inputs: usize,
    /// Numbers that one place gives, of all groups.
    pub(crate) outputs: usize,
    /// Groups of channels that are read apart from each other; mostly one.
    pub(crate) groups: usize,
    /// Numbers of each channel that one place reads.
    pub(crate) kernel: usize,
    window: Option<Window>,
}

/// How a convolution looks at its input.
#[derive(Debug, Clone, Copy)]
struct Window {
    size: [usize; 2],
    stride: [usize; 2],
    pad: [usize; 2],
    pad_end: [usize; 2],
    dilation: [usize; 2],
}

impl Layer {
    /// None for a form that is not known, or a layer that is too large.
    pub(crate) fn of(graph: &Graph, node: NodeId) -> Option<Self> {
        let proto = graph.node(node);
        let dims = &graph.weight(proto.input.get(1)?)?.dims;
        let size = |index: usize| usize::try_from(*dims.get(index)?).ok();
        let (inputs, outputs, kernel, window) = match proto.op_type() {
            "Conv" => {
                let window = window(proto, dims)?;
                let kernel = window.size[0] * window.size[1];
                (size(1)? * kernel, size(0)?, kernel, Some(window))
            }
            _ if proto.int("transB").unwrap_or(0) != 0 => (size(1)?, size(0)?, 1, None),
            _ => (size(0)?, size(1)?, 1, None),
        };
        let (reads, gives) = (proto.input.first()?.clone(), proto.output.first()?.clone());
        let groups = usize::try_from(proto.int("group").unwrap_or(1)).ok()?.max(1);
        (inputs <= INPUTS_MAX).then_some(Self {
            node,
            reads,
            gives,
            inputs,
            outputs,
            groups,
            kernel,
            window,
        })
    }

    /// Its weights, a row for each output, and its bias.
    pub(crate) fn weights(&self, graph: &Graph) -> Option<(Vec<f32>, Vec<f32>)> {
        let proto = graph.node(self.node);
        let values = tensor::f32s(graph.weight(&proto.input[1])?).ok()?;
        let bias = proto.input.get(2).filter(|bias| !bias.is_empty());
        let bias = match bias {
            Some(bias) => tensor::f32s(graph.weight(bias)?).ok()?.into_owned(),
            None => vec![0.0; self.outputs],
        };
        Some((self.turned(graph, &values), bias))
    }

    /// Whether its weights lie as a row for each input.
    fn is_turned(&self, graph: &Graph) -> bool {
        self.window.is_none() && graph.node(self.node).int("transB").unwrap_or(0) == 0
    }

    fn turned(&self, graph: &Graph, values: &[f32]) -> Vec<f32> {
        match self.is_turned(graph) {
            true => transposed(values, self.outputs),
            false => values.to_vec(),
        }
    }

    /// A row of integers for each output, in the order of its own weights.
    pub(crate) fn in_place(&self, graph: &Graph, rows: &[i8]) -> Vec<i8> {
        match self.is_turned(graph) {
            true => transposed(rows, self.inputs),
            false => rows.to_vec(),
        }
    }

    /// Puts other weights in their place. A bias comes with a layer that can have one.
    pub(super) fn set(
        &self,
        graph: &mut Graph,
        weights: &[f32],
        bias: &[f32],
    ) -> Result<(), CompressError> {
        let proto = graph.node(self.node).clone();
        let name = &proto.input[1];
        let Some(dims) = graph.weight(name).map(|weight| weight.dims.clone()) else {
            return Ok(());
        };
        let values = match self.is_turned(graph) {
            true => transposed(weights, self.inputs),
            false => weights.to_vec(),
        };
        graph.set_weight(tensor::new(name, &dims, &values));
        if let Some(name) = proto.input.get(2).filter(|bias| !bias.is_empty()) {
            let length = i64::try_from(bias.len()).unwrap_or(0);
            graph.set_weight(tensor::new(name, &[length], bias));
        }
        Ok(())
    }

    /// Whether it adds a bias itself.
    pub(super) fn has_bias(&self, graph: &Graph) -> bool {
        graph.node(self.node).input.get(2).is_some_and(|bias| !bias.is_empty())
    }
}

/// Rows of a matrix as columns; `columns` are those of the matrix that comes.
pub(crate) fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    let columns = columns.max(1);
    let column = |c: usize| values.iter().skip(c).step_by(columns).copied();
    (0..columns).flat_map(column).collect()
}

fn window(node: &NodeProto, dims: &[i64]) -> Option<Window> {
    let plain = matches!(node.text("auto_pad").unwrap_or("NOTSET"), "NOTSET" | "VALID");
    if !plain || dims.len() != 4 {
        return None;
    }
    let pair = |name: &str, absent: usize| match node.ints(name) {
        Some(values) => {
            let at = |i: usize| usize::try_from(*values.get(i)?).ok();
            Some([at(0)?, at(1)?])
        }
        None => Some([absent, absent]),
    };
    let size = [usize::try_from(dims[2]).ok()?, usize::try_from(dims[3]).ok()?];
    let (stride, pad, dilation) = (pair("strides", 1)?, pair("pads", 0)?, pair("dilations", 1)?);
    let pad_end = match node.ints("pads").map(|pads| pads.get(2..4)) {
        Some(ends) => {
            [usize::try_from(*ends?.first()?).ok()?, usize::try_from(*ends?.last()?).ok()?]
        }
        None => [0, 0],
    };
    Some(Window { size, stride, pad, pad_end, dilation })
}

/// Samples layers: what they read in one model, and what they give in another.
pub(super) fn sample(
    layers: &[Layer],
    (current, original): (&mut dyn Session, &mut dyn Session),
    (items, chosen): (&Items<'_>, &[usize]),
) -> Result<Vec<Vec<Moments>>, CompressError> {
    let fresh = |layer: &Layer| {
        let own = layer.outputs / layer.groups;
        (0..layer.groups).map(|_| Moments::new(layer.inputs, own)).collect::<Vec<_>>()
    };
    let mut moments: Vec<Vec<Moments>> = layers.iter().map(fresh).collect();
    let reads: Vec<String> = unique(layers.iter().map(|layer| &layer.reads));
    let gives: Vec<String> = unique(layers.iter().map(|layer| &layer.gives));
    let mut random = Random::new(chosen.len() as u64);
    for &item in chosen {
        let inputs = items(item)?;
        let failed = |source| CompressError::Run { item, source };
        let read = current.run(&inputs, &reads).map_err(failed)?;
        let given = original.run(&inputs, &gives).map_err(failed)?;
        for (layer, moments) in layers.iter().zip(&mut moments) {
            let find = |tensors: &[Tensor], name: &str| {
                let found = tensors.iter().find(|tensor| tensor.name() == name);
                found.and_then(|tensor| Some((tensor.shape().to_vec(), tensor.to_f32()?)))
            };
            let (Some(x), Some(y)) = (find(&read, &layer.reads), find(&given, &layer.gives)) else {
                continue;
            };
            let places = PLACES.max(3 * layer.inputs / chosen.len().max(1));
            layer.places((&x.0, &x.1), (&y.0, &y.1), places, &mut random, moments);
        }
    }
    Ok(moments)
}

fn unique<'n>(names: impl Iterator<Item = &'n String>) -> Vec<String> {
    let mut unique: Vec<String> = names.cloned().collect();
    unique.sort();
    unique.dedup();
    unique
}

impl Layer {
    /// Adds what each group reads at some places of one item.
    pub(crate) fn read(
        &self,
        (shape, x): (&[i64], &[f32]),
        count: usize,
        random: &mut Random,
        groups: &mut [Moments],
    ) {
        let size =
            |axis: usize| usize::try_from(shape.get(axis).copied().unwrap_or(1)).unwrap_or(1);
        let mut input = vec![0.0; self.inputs];
        let Some(window) = self.window else {
            for place in places(x.len() / self.inputs.max(1), count, random) {
                input.copy_from_slice(&x[place * self.inputs..][..self.inputs]);
                groups.iter_mut().for_each(|moments| moments.add(&input, &[]));
            }
            return;
        };
        let (height, width) = (size(2), size(3));
        let [rows, columns] = window.places(height, width);
        let (own, all) = (self.inputs / self.kernel, self.inputs / self.kernel * groups.len());
        for place in places(size(0) * rows * columns, count, random) {
            let (row, column) = (place / columns % rows, place % columns);
            let picture = &x[place / (rows * columns) * all * height * width..];
            for (group, moments) in groups.iter_mut().enumerate() {
                let picture = &picture[group * own * height * width..];
                window.read((picture, height, width), (row, column), &mut input);
                moments.add(&input, &[]);
            }
        }
    }

    /// Adds some places of one item.
    fn places(
        &self,
        (x_shape, x): (&[i64], &[f32]),
        (y_shape, y): (&[i64], &[f32]),
        count: usize,
        random: &mut Random,
        groups: &mut [Moments],
    ) {
        let chosen = places(y.len() / self.outputs.max(1), count, random);
        let own = self.outputs / groups.len().max(1);
        let (mut input, mut output) = (vec![0.0; self.inputs], vec![0.0; own]);
        let size = |shape: &[i64], axis: usize| {
            usize::try_from(shape.get(axis).copied().unwrap_or(1)).unwrap_or(1)
        };
        for place in chosen {
            let Some(window) = self.window else {
                input.copy_from_slice(&x[place * self.inputs..][..self.inputs]);
                output.copy_from_slice(&y[place * self.outputs..][..self.outputs]);
                groups.iter_mut().for_each(|moments| moments.add(&input, &output));
                continue;
            };
            let (height, width) = (size(x_shape, 2), size(x_shape, 3));
            let (rows, columns) = (size(y_shape, 2), size(y_shape, 3));
            let (image, row, column) =
                (place / (rows * columns), place / columns % rows, place % columns);
            let channels = self.inputs / self.kernel;
            for (group, moments) in groups.iter_mut().enumerate() {
                let picture = &x[(image * self.groups + group) * channels * height * width..];
                window.read((picture, height, width), (row, column), &mut input);
                for (index, value) in output.iter_mut().enumerate() {
                    let channel = image * self.outputs + group * own + index;
                    *value = y[(channel * rows + row) * columns + column];
                }
                moments.add(&input, &output);
            }
        }
    }
}

/// All of so many places, or some of them.
fn places(all: usize, count: usize, random: &mut Random) -> Vec<usize> {
    (0..count.min(all)).map(|place| if count < all { random.below(all) } else { place }).collect()
}

impl Window {
    /// How often it is put down and across.
    fn places(&self, height: usize, width: usize) -> [usize; 2] {
        let along = |axis: usize, length: usize| {
            let padded = length + self.pad[axis] + self.pad_end[axis];
            let reach = self.dilation[axis] * (self.size[axis] - 1) + 1;
            padded.checked_sub(reach).map_or(0, |left| left / self.stride[axis].max(1) + 1)
        };
        [along(0, height), along(1, width)]
    }

    /// What the convolution reads at a place; zeros beyond the edges.
    fn read(
        &self,
        (picture, height, width): (&[f32], usize, usize),
        (row, column): (usize, usize),
        to: &mut [f32],
    ) {
        let kernel = self.size[0] * self.size[1];
        for (index, value) in to.iter_mut().enumerate() {
            let (channel, at) = (index / kernel, index % kernel);
            let (y, x) = (at / self.size[1], at % self.size[1]);
            let y = (row * self.stride[0] + y * self.dilation[0]).checked_sub(self.pad[0]);
            let x = (column * self.stride[1] + x * self.dilation[1]).checked_sub(self.pad[1]);
            *value = match (y.filter(|y| *y < height), x.filter(|x| *x < width)) {
                (Some(y), Some(x)) => picture[(channel * height + y) * width + x],
                _ => 0.0,
            };
        }
    }
}
