//! ONNX files that no runtime should be given, written field by field (`onnx.proto3`). All of them
//! take `x` and give `y`, `FP32 [-1,3]`, and every one is well-formed: what is wrong with them shows
//! only when ONNX Runtime 1.31 loads or runs them.

pub mod versions;

const FLOAT: u64 = 1;
const INT64: u64 = 7;
const BOOL: u64 = 9;
/// A domain of our own for functions.
const OWN: &str = "own";
/// The domain of operators that classical models have.
const ML: &str = "ai.onnx.ml";

/// Functions that call each other in a line of this length. Loading goes as deep, and overflows the
/// stack: a segmentation fault.
pub fn overflows_the_stack(depth: usize) -> Vec<u8> {
    let first = function("F0", &[node("Neg", &["a"], "b", &[])]);
    let call = |k: usize| function(&format!("F{k}"), &[call(k - 1, "a", "b")]);
    let functions: Vec<_> = std::iter::once(first).chain((1..depth).map(call)).collect();
    model(&[call_of(depth - 1)], &[], &functions)
}

/// Functions that call the one before twice: 2^39 nodes out of 40 functions, while loading.
pub fn grows_while_loading() -> Vec<u8> {
    let first = function("F0", &[node("Neg", &["a"], "b", &[])]);
    let twice =
        |k: usize| function(&format!("F{k}"), &[call(k - 1, "a", "t"), call(k - 1, "t", "b")]);
    let functions: Vec<_> = std::iter::once(first).chain((1..40).map(twice)).collect();
    model(&[call_of(39)], &[], &functions)
}

/// A tensor of 64 GiB out of two numbers.
pub fn takes_all_memory() -> Vec<u8> {
    let nodes = [
        node("ConstantOfShape", &["shape"], "big", &[]),
        node("ReduceSum", &["big"], "sum", &[integer("keepdims", 0)]),
        node("Add", &["x", "sum"], "y", &[]),
    ];
    model(&nodes, &[integers("shape", &[2], &[1 << 14, 1 << 20])], &[])
}

/// A loop that goes round 2^62 times.
pub fn never_ends() -> Vec<u8> {
    loops(&[], &[integers("times", &[], &[1 << 62])])
}

/// A loop that goes round as often as the largest number of `x` says, and adds 1 to it each time; that
/// is added to `x`. Good for small numbers, and as good as endless for large ones.
pub fn loops_as_told() -> Vec<u8> {
    let times = node("Cast", &["start"], "times", &[integer("to", INT64)]);
    loops(&[times], &[])
}

fn loops(counting: &[Vec<u8>], times: &[Vec<u8>]) -> Vec<u8> {
    loops_before(&[node("Add", &["x", "end"], "y", &[])], counting, times)
}

/// What comes after the loop finds its result as `end`.
fn loops_before(after: &[Vec<u8>], counting: &[Vec<u8>], constants: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        bytes(1, &node("Identity", &["go"], "go_on", &[])),
        bytes(1, &node("Add", &["sum", "one"], "more", &[])),
        bytes(2, b"body"),
        bytes(5, &float("one", 1.0)),
        bytes(11, &value("i", INT64, Some(&[]))),
        bytes(11, &value("go", BOOL, Some(&[]))),
        bytes(11, &value("sum", FLOAT, Some(&[]))),
        bytes(12, &value("go_on", BOOL, Some(&[]))),
        bytes(12, &value("more", FLOAT, Some(&[]))),
    ];
    let body = [bytes(1, b"body"), bytes(6, &body.concat()), numbers(20, 5)].concat();
    let start = node("ReduceMax", &["x"], "start", &[integer("keepdims", 0)]);
    let round = node("Loop", &["times", "yes", "start"], "end", &[body]);
    let nodes = [&[start], counting, &[round], after].concat();
    let yes = [numbers(2, BOOL), bytes(8, b"yes"), bytes(9, &[1])].concat();
    model(&nodes, &[constants, &[yes]].concat(), &[])
}

/// Subtracts the mean over the batch, so that neighbours change every answer; 0 for one alone.
pub fn minds_its_neighbours() -> Vec<u8> {
    let nodes = [
        node("ReduceMean", &["x"], "mean", &[list("axes", &[0])]),
        node("Sub", &["x", "mean"], "y", &[]),
    ];
    model(&nodes, &[], &[])
}

/// A model that gives back the negated input, and is nothing but good.
pub fn harmless() -> Vec<u8> {
    model(&[node("Neg", &["x"], "y", &[])], &[], &[])
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn numbers(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// An input or output of `FP32 [-1,3]`, or of another shape without dimensions of any size.
fn value(name: &str, element: u64, shape: Option<&[u64]>) -> Vec<u8> {
    let fixed = |d: &u64| bytes(1, &numbers(1, *d));
    let shape = match shape {
        Some(shape) => shape.iter().flat_map(fixed).collect(),
        None => [bytes(1, &bytes(2, b"n")), fixed(&3)].concat(),
    };
    let tensor = [numbers(1, element), bytes(2, &shape)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
}

fn node(operator: &str, from: &[&str], to: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut node: Vec<u8> = from.iter().flat_map(|name| bytes(1, name.as_bytes())).collect();
    node.extend(bytes(2, to.as_bytes()));
    node.extend(bytes(4, operator.as_bytes()));
    node.extend(attributes.iter().flat_map(|attribute| bytes(5, attribute)));
    node
}

fn integer(name: &str, value: u64) -> Vec<u8> {
    [bytes(1, name.as_bytes()), numbers(3, value), numbers(20, 2)].concat()
}

fn list(name: &str, values: &[u64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| numbers(8, *value)).collect();
    [bytes(1, name.as_bytes()), values, numbers(20, 7)].concat()
}

fn floats(name: &str, values: &[f32]) -> Vec<u8> {
    let fixed = |value: &f32| [varint(7 << 3 | 5), value.to_le_bytes().to_vec()].concat();
    let values: Vec<u8> = values.iter().flat_map(fixed).collect();
    [bytes(1, name.as_bytes()), values, numbers(20, 6)].concat()
}

/// An initializer.
fn integers(name: &str, shape: &[u64], values: &[u64]) -> Vec<u8> {
    let shape: Vec<u8> = shape.iter().flat_map(|d| numbers(1, *d)).collect();
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    [shape, numbers(2, INT64), bytes(8, name.as_bytes()), bytes(9, &raw)].concat()
}

/// An initializer without dimensions.
fn float(name: &str, value: f32) -> Vec<u8> {
    [numbers(2, FLOAT), bytes(8, name.as_bytes()), bytes(9, &value.to_le_bytes())].concat()
}

/// A function from `a` to `b`.
fn function(name: &str, nodes: &[Vec<u8>]) -> Vec<u8> {
    let head = [bytes(1, name.as_bytes()), bytes(4, b"a"), bytes(5, b"b")];
    let nodes = nodes.iter().flat_map(|node| bytes(7, node)).collect();
    let tail = [opset("", 17), opset(OWN, 1)].map(|opset| bytes(9, &opset)).concat();
    [head.concat(), nodes, tail, bytes(10, OWN.as_bytes())].concat()
}

fn call(function: usize, from: &str, to: &str) -> Vec<u8> {
    let node = node(&format!("F{function}"), &[from], to, &[]);
    [node, bytes(7, OWN.as_bytes())].concat()
}

fn call_of(function: usize) -> Vec<u8> {
    call(function, "x", "y")
}

fn opset(domain: &str, version: u64) -> Vec<u8> {
    [bytes(1, domain.as_bytes()), numbers(2, version)].concat()
}

fn model(nodes: &[Vec<u8>], initializers: &[Vec<u8>], functions: &[Vec<u8>]) -> Vec<u8> {
    let all = |field, parts: &[Vec<u8>]| -> Vec<u8> {
        parts.iter().flat_map(|part| bytes(field, part)).collect()
    };
    let graph = [
        all(1, nodes),
        bytes(2, b"g"),
        all(5, initializers),
        bytes(11, &value("x", FLOAT, None)),
        bytes(12, &value("y", FLOAT, None)),
    ];
    let opsets = all(8, &[opset("", 17), opset(OWN, 1), opset(ML, 3)]);
    [numbers(1, 8), bytes(7, &graph.concat()), opsets, all(25, functions)].concat()
}
