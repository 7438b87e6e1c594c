//! A graph under construction, and its messages with the field numbers of `onnx.proto3`.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OpsetProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OpsetProto {
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

/// Whole numbers, one or several.
#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<DimensionProto>,
}

/// Without a value it is any size.
#[derive(Clone, PartialEq, Message)]
struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
}

const FLOAT: i32 = 1;
const KIND_INT: i32 = 2;
const KIND_INTS: i32 = 7;
const IR_VERSION: i64 = 8;
const OPSET: i64 = 13;

/// What a model takes: `f32`, a dimension of -1 is any size.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its dimensions.
    pub shape: &'a [i64],
}

/// A graph with one input and one output. Weights come from a generator with a fixed seed, scaled
/// so that signals neither vanish nor grow.
pub struct Graph {
    proto: GraphProto,
    seed: u64,
}

impl Graph {
    /// An empty graph whose weights come from this seed.
    pub fn new(name: &str, seed: u64, input: Input<'_>) -> Self {
        let input = vec![value(input.name, input.shape)];
        let proto = GraphProto { name: name.to_owned(), input, ..GraphProto::default() };
        let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1; // never 0, where it would stay
        Self { proto, seed }
    }

    /// Adds a node with whole numbers as attributes: a single one is said as one number unless
    /// ONNX wants a list. Answers what its output is called.
    pub fn node(&mut self, op: &str, from: &[&str], attributes: &[(&str, &[i64])]) -> String {
        let output = format!("{op}{}", self.proto.node.len());
        self.proto.node.push(NodeProto {
            input: from.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.clone()],
            op_type: op.to_owned(),
            attribute: attributes.iter().map(|(name, values)| attribute(name, values)).collect(),
        });
        output
    }

    /// A layer that joins every input with every output.
    pub fn dense(&mut self, from: &str, inputs: i64, outputs: i64) -> String {
        let weights = self.weights(&[inputs, outputs], inputs);
        let bias = self.weights(&[outputs], outputs);
        self.node("Gemm", &[from, &weights, &bias], &[])
    }

    /// Adds a tensor of random weights for a sum of `fan_in` products; answers its name.
    pub fn weights(&mut self, shape: &[i64], fan_in: i64) -> String {
        let count: i64 = shape.iter().product();
        let scale = (6.0 / fan_in as f32).sqrt();
        let values: Vec<f32> = (0..count).map(|_| self.random() * scale).collect();
        self.constant(shape, &values)
    }

    /// Adds a tensor; answers its name.
    pub fn constant(&mut self, shape: &[i64], values: &[f32]) -> String {
        let name = format!("w{}", self.proto.initializer.len());
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let dims = shape.to_vec();
        let tensor = TensorProto { dims, data_type: FLOAT, name: name.clone(), raw_data };
        self.proto.initializer.push(tensor);
        name
    }

    /// The file, with `from` as the output under this name.
    pub fn finish(mut self, from: &str, name: &str, shape: &[i64]) -> Vec<u8> {
        self.proto.node.push(NodeProto {
            input: vec![from.to_owned()],
            output: vec![name.to_owned()],
            op_type: "Identity".to_owned(),
            attribute: Vec::new(),
        });
        self.proto.output.push(value(name, shape));
        let opset_import = vec![OpsetProto { version: OPSET }];
        let model = ModelProto { ir_version: IR_VERSION, graph: Some(self.proto), opset_import };
        model.encode_to_vec()
    }

    /// -1 to 1 (xorshift64, Marsaglia 2003).
    #[allow(clippy::cast_precision_loss)] // 24 bits fit
    fn random(&mut self) -> f32 {
        for shift in [13, -7, 17] {
            self.seed ^= if shift > 0 { self.seed << shift } else { self.seed >> -shift };
        }
        (self.seed >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// `group` is the one attribute here that is a single number.
fn attribute(name: &str, values: &[i64]) -> AttributeProto {
    let name = name.to_owned();
    match values {
        [one] if name == "group" => {
            AttributeProto { name, i: Some(*one), ints: Vec::new(), kind: KIND_INT }
        }
        many => AttributeProto { name, i: None, ints: many.to_vec(), kind: KIND_INTS },
    }
}

fn value(name: &str, shape: &[i64]) -> ValueProto {
    let dimension = |d: &i64| DimensionProto { value: Some(*d).filter(|d| *d >= 0) };
    let shape = ShapeProto { dim: shape.iter().map(dimension).collect() };
    let tensor = TensorTypeProto { elem_type: FLOAT, shape: Some(shape) };
    ValueProto { name: name.to_owned(), kind: Some(TypeProto { tensor: Some(tensor) }) }
}
