//! The topological order of a graph's nodes.

use super::error::OnnxError;
use super::graph::{Graph, NodeId};

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    Open,
    Done,
}

/// Every node after those whose values it reads. Nodes that are in order keep their places, and a node that was
/// inserted comes right before the first that needs it.
pub(super) fn order(graph: &Graph) -> Result<Vec<NodeId>, OnnxError> {
    let mut marks = vec![Mark::New; graph.slots()];
    let mut order = Vec::with_capacity(graph.len());
    for root in graph.ids() {
        visit(graph, root, &mut marks, &mut order)?;
    }
    Ok(order)
}

/// Depth first without recursion: a hostile graph may be one long chain.
fn visit(
    graph: &Graph,
    root: NodeId,
    marks: &mut [Mark],
    order: &mut Vec<NodeId>,
) -> Result<(), OnnxError> {
    if marks[root.index()] == Mark::Done {
        return Ok(());
    }
    let mut stack = vec![(root, graph.makers_for(root))];
    marks[root.index()] = Mark::Open;
    while let Some((id, waiting)) = stack.last_mut() {
        let id = *id;
        let Some(next) = waiting.pop() else {
            marks[id.index()] = Mark::Done;
            order.push(id);
            stack.pop();
            continue;
        };
        match marks[next.index()] {
            Mark::Done => {}
            Mark::Open => {
                let name = graph.node(next).output.first().cloned().unwrap_or_default();
                return Err(OnnxError::Cycle(name));
            }
            Mark::New => {
                marks[next.index()] = Mark::Open;
                stack.push((next, graph.makers_for(next)));
            }
        }
    }
    Ok(())
}
