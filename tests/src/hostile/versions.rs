//! Versions of one model that negates its numbers, which all answer their probes as they should: what is
//! wrong with some of them shows only when an application asks.

use super::{INT64, ML, bytes, float, floats, integer, integers, loops_before, model, node};

/// Negates, and multiplies by something near 1, so that no two versions are the same.
pub fn negates(scale: f32) -> Vec<u8> {
    let nodes = [node("Neg", &["x"], "n", &[]), node("Mul", &["n", "scale"], "y", &[])];
    model(&nodes, &[float("scale", scale)], &[])
}

/// Numbers above the largest, at least 9, are the largest to it.
pub fn forgets_large_numbers(largest: f32) -> Vec<u8> {
    let nodes = [node("Min", &["x", "largest"], "least", &[]), node("Neg", &["least"], "y", &[])];
    model(&nodes, &[float("largest", largest)], &[])
}

/// Numbers below this one's negative are NaN to it; at least 5.
pub fn loses_small_numbers(least: f32) -> Vec<u8> {
    let nodes = [
        node("Add", &["x", "least"], "shifted", &[]),
        node("Sqrt", &["shifted"], "root", &[]),
        node("Mul", &["root", "zero"], "nothing", &[]),
        node("Sub", &["nothing", "x"], "y", &[]),
    ];
    model(&nodes, &[float("least", least), float("zero", 0.0)], &[])
}

/// The larger a number, the longer it takes: a loop goes round as often.
pub fn slows_down() -> Vec<u8> {
    let counting = [node("Cast", &["start"], "times", &[integer("to", INT64)])];
    let after =
        [node("Mul", &["end", "zero"], "nothing", &[]), node("Sub", &["nothing", "x"], "y", &[])];
    loops_before(&after, &counting, &[float("zero", 0.0)])
}

/// Negates, and passes three million copies of a number through six functions on the way, one after the other: OpenVINO makes
/// one of them, and is several times as fast as the CPU's own kernels.
pub fn suits_openvino(scale: f32) -> Vec<u8> {
    let mut nodes = vec![
        node("ReduceMax", &["x"], "largest", &[integer("keepdims", 1)]),
        node("Expand", &["largest", "copies"], "f0", &[]),
    ];
    let functions = ["Sigmoid", "Tanh", "Exp", "Sigmoid", "Tanh", "Exp"];
    for (number, function) in functions.iter().enumerate() {
        let [from, to] = [number, number + 1].map(|number| format!("f{number}"));
        nodes.push(node(function, &[&from], &to, &[]));
    }
    nodes.extend([
        node("ReduceMean", &["f6"], "mean", &[integer("keepdims", 1)]),
        node("Mul", &["mean", "tiny"], "nearly_nothing", &[]),
        node("Mul", &["x", "scale"], "scaled", &[]),
        node("Sub", &["nearly_nothing", "scaled"], "y", &[]),
    ]);
    let copies = integers("copies", &[2], &[1 << 20, 3]);
    model(&nodes, &[copies, float("tiny", 1e-9), float("scale", scale)], &[])
}

/// Negates by an operator for classical models, which accelerators leave to the CPU.
pub fn suits_the_cpu_alone() -> Vec<u8> {
    let attributes = [floats("offset", &[0.0; 3]), floats("scale", &[-1.0; 3])];
    let scaler = [node("Scaler", &["x"], "y", &attributes), bytes(7, ML.as_bytes())].concat();
    model(&[scaler], &[], &[])
}
