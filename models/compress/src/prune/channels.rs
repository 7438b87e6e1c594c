//! Which channels stay or go together.
//!
//! A channel that a convolution makes runs through activation functions, depthwise convolutions and poolings, is added to a
//! channel of another convolution, is joined with others, and is read in the end by layers with weights. All of that is
//! one [`Group`]: taking channel 7 out of it means to cut slice 7 from every weight on the way. The walk knows how
//! operators move the axis of the channels; what it does not know keeps its channels ([`Group::fixed`]).
//!
//! The heads of an attention are channels too: a reshape splits the axis, so that the channels of one head go together
//! ([`Group::unit`]).

use std::collections::{BTreeMap, HashMap};

use models::onnx::attribute::Attributes;
use models::onnx::graph::is_op;
use models::onnx::proto::NodeProto;
use models::onnx::{Model, NodeId, OnnxError, tensor};

mod moves;

/// The name of a [`Group`].
pub type GroupId = usize;

/// Channels that are made and read in the same places.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// How many there are.
    pub channels: usize,
    /// So many neighbours go together.
    pub unit: usize,
    /// Why none may go.
    pub fixed: Option<&'static str>,
}

/// A run of positions along an axis that belongs to one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The group, as it was named before groups were joined: ask [`Channels::root`].
    group: GroupId,
    /// So many positions for each channel.
    pub repeat: usize,
    /// So many channels for each position.
    pub per: usize,
    /// How many positions.
    pub positions: usize,
}

/// Along which axis of a value its channels lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    axis: usize,
    parts: Vec<Part>,
}

/// Weights that lose a slice with each channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Their name.
    pub weight: String,
    /// Along which axis.
    pub axis: usize,
    /// What lies along it.
    pub parts: Vec<Part>,
}

/// A layer that reads channels and multiplies them by weights: what it loses can be made good in its weights.
#[derive(Debug, Clone)]
pub struct Reader {
    /// The layer.
    pub node: NodeId,
    /// What lies along the axis of its weights that it reads.
    pub parts: Vec<Part>,
}

/// A number in the target of a reshape that counts channels.
#[derive(Debug, Clone)]
pub struct Reshaped {
    /// The node.
    pub node: NodeId,
    /// Which number.
    pub index: usize,
    /// What is counted.
    pub parts: Vec<Part>,
}

/// The groups of a graph with everything that must be cut.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    groups: Vec<Group>,
    parents: Vec<GroupId>,
    /// Weights to be cut.
    pub cuts: Vec<Cut>,
    /// Layers that multiply.
    pub readers: Vec<Reader>,
    /// Reshapes to be mended.
    pub reshaped: Vec<Reshaped>,
    /// Convolutions with as many groups as channels.
    pub depthwise: Vec<NodeId>,
    /// The weights whose output channels begin a group, with that group.
    pub makers: Vec<(String, GroupId)>,
}

impl Channels {
    /// Finds all groups of a folded model. `shapes` has the sizes of all values.
    ///
    /// # Errors
    /// [`OnnxError::Cycle`].
    pub fn find(model: &Model, shapes: &HashMap<String, Vec<i64>>) -> Result<Self, OnnxError> {
        let graph = model.graph();
        let mut walk = Walk {
            graph,
            shapes,
            layouts: HashMap::new(),
            channels: Self::default(),
            cut: BTreeMap::new(),
        };
        for id in graph.order()? {
            walk.node(id);
        }
        for output in graph.outputs() {
            walk.fix(output.name(), "the model gives them to callers");
        }
        Ok(walk.channels)
    }

    /// The groups that are not part of another one.
    pub fn roots(&self) -> Vec<GroupId> {
        (0..self.groups.len()).filter(|id| self.root(*id) == *id).collect()
    }

    /// The group that a name stands for now.
    pub fn root(&self, mut id: GroupId) -> GroupId {
        while self.parents[id] != id {
            id = self.parents[id];
        }
        id
    }

    /// A group.
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[self.root(id)]
    }

    /// For each position of some parts, its group and its first channel there.
    pub fn positions(&self, parts: &[Part]) -> Vec<(GroupId, usize)> {
        let of = |part: &Part| {
            let (root, repeat, per) = (self.root(part.group), part.repeat, part.per);
            (0..part.positions)
                .map(move |position| (root, position / repeat * per))
                .collect::<Vec<_>>()
        };
        parts.iter().flat_map(of).collect()
    }

    fn add(&mut self, channels: usize) -> GroupId {
        let id = self.groups.len();
        self.groups.push(Group { channels, unit: 1, fixed: None });
        self.parents.push(id);
        id
    }

    fn join(&mut self, a: GroupId, b: GroupId) {
        let (a, b) = (self.root(a), self.root(b));
        if a == b {
            return;
        }
        let (kept, gone) = (a.min(b), a.max(b));
        self.parents[gone] = kept;
        let (unit, fixed) = (self.groups[gone].unit, self.groups[gone].fixed);
        let group = &mut self.groups[kept];
        group.unit = common(group.unit, unit);
        group.fixed = group.fixed.or(fixed);
    }
}

/// More channels than that are nobody's.
const CHANNELS_MAX: usize = 1 << 20;

/// The least common multiple.
fn common(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

struct Walk<'w> {
    graph: &'w models::onnx::Graph,
    shapes: &'w HashMap<String, Vec<i64>>,
    layouts: HashMap<String, Layout>,
    channels: Channels,
    /// Which cut each weight has: a weight that would need two keeps its channels.
    cut: BTreeMap<String, usize>,
}

impl Walk<'_> {
    fn shape(&self, value: &str) -> Option<Vec<usize>> {
        let dims = match self.graph.weight(value) {
            Some(weight) => &weight.dims,
            None => self.shapes.get(value)?,
        };
        dims.iter().map(|d| usize::try_from(*d).ok()).collect()
    }

    fn fix(&mut self, value: &str, reason: &'static str) {
        let Some(layout) = self.layouts.get(value) else { return };
        for part in layout.parts.clone() {
            self.fix_part(part, reason);
        }
    }

    fn fix_part(&mut self, part: Part, reason: &'static str) {
        let root = self.channels.root(part.group);
        let group = &mut self.channels.groups[root];
        group.fixed = group.fixed.or(Some(reason));
    }

    fn set(&mut self, value: Option<&String>, layout: Layout) {
        if let Some(value) = value {
            self.layouts.insert(value.clone(), layout);
        }
    }

    /// Begins a group at an axis of a value.
    fn begin(&mut self, value: Option<&String>, axis: usize, channels: usize) -> Vec<Part> {
        let group = self.channels.add(channels);
        let parts = vec![Part { group, repeat: 1, per: 1, positions: channels }];
        self.set(value, Layout { axis, parts: parts.clone() });
        parts
    }

    fn cut(&mut self, weight: &str, axis: usize, parts: &[Part]) {
        let cut = Cut { weight: weight.to_owned(), axis, parts: parts.to_vec() };
        match self.cut.get(weight) {
            Some(index) if self.channels.cuts[*index] == cut => {}
            Some(index)
                if self.channels.cuts[*index].axis != axis && self.readers_of(weight) == 1 =>
            {
                self.channels.cuts.push(cut);
            }
            Some(index) => {
                let both = [&self.channels.cuts[*index].parts[..], parts].concat();
                both.into_iter().for_each(|part| self.fix_part(part, "weights are shared"));
            }
            None => {
                self.cut.insert(weight.to_owned(), self.channels.cuts.len());
                self.channels.cuts.push(cut);
            }
        }
    }

    fn readers_of(&self, weight: &str) -> usize {
        self.graph.readers(weight).count()
    }

    fn node(&mut self, id: NodeId) {
        let node = self.graph.node(id);
        let known = match node.op_type() {
            _ if !is_op(node, node.op_type()) => false,
            "Conv" => self.convolution(id, node),
            "MatMul" | "Gemm" => self.product(id, node),
            _ => self.moved(id, node),
        };
        if !known {
            let inputs = node.input.clone();
            let inner = node.attribute.iter().any(|a| a.g.is_some());
            inputs.iter().for_each(|input| self.fix(input, "an operator reads them all at once"));
            if inner {
                let all: Vec<String> = self.layouts.keys().cloned().collect();
                all.iter().for_each(|value| self.fix(value, "a subgraph may read them"));
            }
        }
    }

    /// Constant weights of a node that nothing else reads.
    fn own_weights(&self, node: &NodeProto, index: usize) -> Option<(String, Vec<usize>)> {
        let name = node.input.get(index)?;
        let weight = self.graph.constant(name)?;
        let float = weight.data_type() == tensor::element::FLOAT;
        let shape = self.shape(name).filter(|_| float && self.readers_of(name) == 1)?;
        let sensible = shape.iter().all(|size| (1..=CHANNELS_MAX).contains(size));
        sensible.then(|| (name.clone(), shape))
    }

    fn convolution(&mut self, id: NodeId, node: &NodeProto) -> bool {
        let weights = self.own_weights(node, 1).filter(|(_, dims)| dims.len() >= 3);
        let Some((weight, dims)) = weights else { return false };
        let groups = usize::try_from(node.int("group").unwrap_or(1)).unwrap_or(1);
        let input = self.layouts.get(&node.input[0]).cloned();
        if input.as_ref().is_some_and(|layout| layout.axis != 1) {
            return false;
        }
        let bias = node.input.get(2).filter(|bias| !bias.is_empty()).cloned();
        if bias.as_ref().is_some_and(|bias| self.graph.constant(bias).is_none()) {
            return false;
        }
        let parts = match (groups, input) {
            (1, input) => {
                if let Some(layout) = input {
                    self.cut(&weight, 1, &layout.parts);
                    self.channels.readers.push(Reader { node: id, parts: layout.parts });
                }
                let parts = self.begin(node.output.first(), 1, dims[0]);
                self.channels.makers.push((weight.clone(), parts[0].group));
                parts
            }
            (groups, Some(layout)) if groups == dims[0] && dims[1] == 1 => {
                self.channels.depthwise.push(id);
                self.set(node.output.first(), layout.clone());
                layout.parts
            }
            _ => return false,
        };
        self.cut(&weight, 0, &parts);
        if let Some(bias) = bias {
            self.cut(&bias, 0, &parts);
        }
        true
    }

    fn product(&mut self, id: NodeId, node: &NodeProto) -> bool {
        let Some((weight, dims)) = self.own_weights(node, 1).filter(|(_, dims)| dims.len() == 2)
        else {
            return self.product_of_values(node);
        };
        let plain = |name: &str| node.float(name).unwrap_or(1.0) == 1.0;
        if node.int("transA").unwrap_or(0) != 0 || !plain("alpha") || !plain("beta") {
            return false;
        }
        let turned = node.int("transB").unwrap_or(0) != 0;
        let (read, made) = if turned { (1, 0) } else { (0, 1) };
        let Some(rank) = self.rank(node).filter(|rank| *rank > 0) else { return false };
        if let Some(layout) = self.layouts.get(&node.input[0]).cloned() {
            if layout.axis + 1 != rank {
                return false;
            }
            self.cut(&weight, read, &layout.parts);
            self.channels.readers.push(Reader { node: id, parts: layout.parts });
        }
        let parts = self.begin(node.output.first(), rank - 1, dims[made]);
        self.channels.makers.push((weight.clone(), parts[0].group));
        self.cut(&weight, made, &parts);
        let bias = node.input.get(2).filter(|bias| !bias.is_empty()).cloned();
        let Some(bias) = bias else { return true };
        match self.graph.constant(&bias).map(|bias| bias.dims.len()) {
            Some(1) => self.cut(&bias, 0, &parts),
            _ => parts.iter().for_each(|part| self.fix_part(*part, "the bias is no row")),
        }
        true
    }

    /// Heads are an axis that both factors have in common.
    fn product_of_values(&mut self, node: &NodeProto) -> bool {
        let layout = |index: usize| self.layouts.get(node.input.get(index)?).cloned();
        let [a, b] = [0, 1].map(layout);
        let Some(rank) = self.rank(node) else { return false };
        match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) if a.axis == b.axis && a.axis + 2 < rank && self.unite(&a, &b) => {
                self.set(node.output.first(), a);
                true
            }
            _ => false,
        }
    }

    /// Makes one of what lies along two axes; false where they do not fit together.
    fn unite(&mut self, a: &Layout, b: &Layout) -> bool {
        let alike = |(a, b): (&Part, &Part)| {
            (a.repeat, a.per, a.positions) == (b.repeat, b.per, b.positions)
        };
        if a.parts.len() != b.parts.len() || !a.parts.iter().zip(&b.parts).all(alike) {
            return false;
        }
        a.parts.iter().zip(&b.parts).for_each(|(a, b)| self.channels.join(a.group, b.group));
        true
    }
}
