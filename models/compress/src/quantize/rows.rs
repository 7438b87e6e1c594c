//! Embedding tables: `int8` with a scale for each row. Only the rows that are looked up become floats.

use std::collections::BTreeSet;

use models::onnx::attribute::{Attributes, node};
use models::onnx::proto::TensorProto;
use models::onnx::{Graph, NodeId, OnnxError, tensor};

use super::weights::{Channels, greatest, scale};

/// Smaller tables stay as they are: two lookups cost more than they save.
const TABLE_MIN_BYTES: usize = 64 << 10;

/// Quantizes all tables but those named; how many.
pub(super) fn quantize(graph: &mut Graph, float: &BTreeSet<String>) -> Result<usize, OnnxError> {
    let mut quantized = 0;
    for id in graph.nodes_of("Gather") {
        let lookup = graph.node(id);
        let axis = lookup.int("axis").unwrap_or(0);
        let output = lookup.output.first().cloned().unwrap_or_default();
        let table = lookup.input.first().and_then(|table| graph.constant(table));
        let Some(table) = table.filter(|table| axis == 0 && is_table(table)).cloned() else {
            continue;
        };
        // A table that something else reads too would be there twice.
        let alone = graph.readers(table.name()).count() == 1 && !graph.is_output(table.name());
        let whole = lookup.input.len() == 2 && !output.is_empty();
        if alone && whole && !float.contains(&output) {
            look_up(graph, id, &table)?;
            quantized += 1;
        }
    }
    Ok(quantized)
}

fn is_table(table: &TensorProto) -> bool {
    table.data_type() == tensor::element::FLOAT
        && table.dims.len() == 2
        && tensor::size_bytes(table).is_some_and(|size| size >= TABLE_MIN_BYTES)
}

fn look_up(graph: &mut Graph, id: NodeId, table: &TensorProto) -> Result<(), OnnxError> {
    let rows = Channels::of(table, Some(0))?;
    let most = greatest(false);
    let scales = rows.largest().iter().map(|largest| scale(*largest, most)).collect();
    let integers = rows.round(scales, most);
    let Some(lookup) = graph.remove(id) else { return Ok(()) };
    let (ids, output) = (lookup.input[1].clone(), lookup.output[0].clone());
    let name = table.name();
    let [q, s] = ["q", "scale"].map(|end| graph.fresh(&format!("{name}_{end}")));
    graph.set_weight(tensor::new(&q, &table.dims, &integers.values));
    graph.set_weight(tensor::new(&s, &[table.dims[0], 1], &integers.scales));
    let names = ["rows", "floats", "scales"].map(|end| graph.fresh(&format!("{output}_{end}")));
    let [found, floats, factors] = &names;
    graph.insert(node("Gather", &[&q, &ids], &[found]))?;
    graph.insert(node("Cast", &[found], &[floats]).with_int("to", 1))?;
    graph.insert(node("Gather", &[&s, &ids], &[factors]))?;
    graph.insert(node("Mul", &[floats, factors], &[&output]))?;
    Ok(())
}
