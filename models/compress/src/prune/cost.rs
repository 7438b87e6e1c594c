//! What a channel costs: the multiplications of the layers that make or read it, and the numbers that they write.
//!
//! Early layers of a network for pictures multiply little and write much, so that they take much longer than their
//! multiplications say: a channel of them is worth more.

use std::collections::HashMap;

use models::onnx::Graph;

use super::channels::{Channels, Cut, GroupId};

/// Writing a number, and reading it again, takes as long as so many multiplications: a core that multiplies 40 at a time
/// each nanosecond moves about 10 bytes in it.
const TOUCHED: f64 = 32.0;

/// The work of all layers that make or read a group's channels.
pub(super) fn of(
    graph: &Graph,
    channels: &Channels,
    id: GroupId,
    shapes: &HashMap<String, Vec<i64>>,
) -> f64 {
    let own = channels.cuts.iter().filter(|cut| {
        channels.positions(&cut.parts).first().is_some_and(|(group, _)| *group == id)
    });
    let work = |cut: &Cut| {
        let weight = graph.weight(&cut.weight)?;
        let node = graph.node(graph.readers(&cut.weight).next()?);
        let output = shapes.get(node.output.first()?)?;
        let macs = crate::inspect::macs(node, &weight.dims, output)? as f64;
        Some(macs + TOUCHED * models::onnx::tensor::elements(output)? as f64)
    };
    own.filter_map(work).sum()
}
