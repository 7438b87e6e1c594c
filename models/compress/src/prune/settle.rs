//! The last pass: every layer is fitted once more to what it gave in the model as it was.
//!
//! While groups are pruned one after the other only their readers are fitted. Layers in between, depthwise convolutions
//! and those that lost none of their inputs, still expect what the model as it was gave them, and what each fit left over
//! adds up. So from the inputs on every layer is fitted to its old outputs from its new inputs, and hands on what comes
//! nearest to them.

use std::slice::from_ref;

use models::onnx::NodeId;

use super::regression::Regression;
use super::samples::{Layer, sample};
use super::{RIDGE, Work};
use crate::calibrate::watch;
use crate::error::CompressError;

impl Work<'_> {
    /// Fits all layers, from the inputs on.
    pub(super) fn settle(&mut self) -> Result<(), CompressError> {
        for id in self.current.graph().order()? {
            let graph = self.current.graph();
            let weight = graph.node(id).input.get(1).filter(|w| graph.constant(w).is_some());
            let alone = weight.is_some_and(|weight| graph.readers(weight).count() == 1);
            let op = graph.node(id).op_type();
            if alone && matches!(op, "Conv" | "Gemm" | "MatMul") && self.has_changed(id) {
                self.settle_one(id)?;
            }
        }
        Ok(())
    }

    /// Whether any channel is gone at or before a layer: what reads the same as ever has nothing to learn.
    fn has_changed(&self, id: NodeId) -> bool {
        let (mut seen, mut next) = (std::collections::BTreeSet::new(), vec![id]);
        let graph = self.current.graph();
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            let changed = |weight: &String| match (
                graph.weight(weight),
                self.original.graph().weight(weight),
            ) {
                (Some(now), Some(before)) => now.raw_data != before.raw_data,
                _ => false,
            };
            if graph.node(id).input.iter().any(changed) {
                return true;
            }
            next.extend(graph.node(id).input.iter().filter_map(|input| graph.maker(input)));
        }
        false
    }

    fn settle_one(&mut self, id: NodeId) -> Result<(), CompressError> {
        let graph = self.current.graph();
        let Some(layer) = Layer::of(graph, id) else { return Ok(()) };
        let Some((weights, bias)) = layer.weights(graph) else { return Ok(()) };
        let has_bias = layer.has_bias(graph);
        let mut current = watch(&self.current, from_ref(&layer.reads), self.backend)?;
        let mut original = watch(self.original, from_ref(&layer.gives), self.backend)?;
        let only = [layer.clone()];
        let data = (self.items, self.chosen);
        let moments = sample(&only, (&mut *current, &mut *original), data)?;
        let gone = self.gone(&layer);
        let rows = layer.outputs / layer.groups;
        let (mut fitted, mut biases) = (Vec::new(), Vec::new());
        for (group, moments) in moments.into_iter().flatten().enumerate() {
            let own = &weights[group * rows * layer.inputs..][..rows * layer.inputs];
            let bias = &bias[group * rows..][..rows];
            let ridge = RIDGE * layer.inputs as f64 / moments.samples().max(1) as f64;
            let regression = moments.solve(own, bias, ridge, has_bias);
            let (own, bias) = match regression {
                Some(regression) => without(regression, &gone),
                None => (own.to_vec(), bias.to_vec()),
            };
            fitted.extend(own);
            biases.extend(bias);
        }
        layer.set(self.current.graph_mut(), &fitted, &biases)
    }

    /// The inputs of a layer that come from channels that go.
    fn gone(&self, layer: &Layer) -> Vec<usize> {
        let reader = self.channels.readers.iter().find(|reader| reader.node == layer.node);
        let positions = reader.map_or_else(Vec::new, |r| self.channels.positions(&r.parts));
        let gone = positions.into_iter().enumerate().filter(|(_, (group, channel))| {
            self.kept.get(group).is_some_and(|mask| !mask[*channel])
        });
        gone.flat_map(|(at, _)| at * layer.kernel..(at + 1) * layer.kernel).collect()
    }
}

fn without(mut regression: Regression, gone: &[usize]) -> (Vec<f32>, Vec<f32>) {
    regression.remove(gone);
    regression.weights()
}
