//! Versions of one model that negates its numbers, which all answer their probes as they should: what is
//! wrong with some of them shows only when an application asks.

use super::{INT64, float, integer, loops_before, model, node};

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
