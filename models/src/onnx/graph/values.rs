//! Weights and descriptions of values.

use std::collections::HashSet;

use super::Graph;
use crate::onnx::proto::tensor_shape_proto::dimension::Value as Dimension;
use crate::onnx::proto::type_proto::Value as Type;
use crate::onnx::proto::{TensorProto, TypeProto, ValueInfoProto};

impl Graph {
    /// The weights of that name.
    pub fn weight(&self, name: &str) -> Option<&TensorProto> {
        self.weights.get(*self.weight_index.get(name)?)?.as_ref()
    }

    /// The weights of that name, if no caller can put others in their place.
    pub fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.weight(name).filter(|_| !self.is_input(name))
    }

    /// All weights.
    pub fn weights(&self) -> impl Iterator<Item = &TensorProto> + '_ {
        self.weights.iter().flatten()
    }

    pub(super) fn weights_mut(&mut self) -> impl Iterator<Item = &mut TensorProto> {
        self.weights.iter_mut().flatten()
    }

    /// Whether a caller gives that value.
    pub fn is_input(&self, value: &str) -> bool {
        self.head.input.iter().any(|input| input.name() == value)
    }

    /// Whether a caller gets that value.
    pub fn is_output(&self, value: &str) -> bool {
        self.head.output.iter().any(|output| output.name() == value)
    }

    /// The inputs that callers must give: those without weights of their name.
    pub fn required_inputs(&self) -> impl Iterator<Item = &ValueInfoProto> + '_ {
        self.head.input.iter().filter(|input| self.weight(input.name()).is_none())
    }

    /// What is said about a value: of inputs, outputs and intermediate values.
    pub fn described(&self, value: &str) -> Option<&ValueInfoProto> {
        let head = &self.head;
        let mut all = head.input.iter().chain(&head.output).chain(&head.value_info);
        all.find(|info| info.name() == value)
    }

    /// Element type and dimensions of a value, as far as the file says; -1 is any size.
    pub fn shape(&self, value: &str) -> Option<(i32, Vec<i64>)> {
        if let Some(tensor) = self.weight(value) {
            return Some((tensor.data_type(), tensor.dims.clone()));
        }
        dimensions(self.described(value)?.r#type.as_ref()?)
    }

    /// Gives a value to callers as well. Its type is left for the runtime to find out.
    pub fn add_output(&mut self, value: &str) {
        if !self.is_output(value) {
            let described = self.described(value).cloned();
            let bare = ValueInfoProto { name: Some(value.to_owned()), ..ValueInfoProto::default() };
            self.head.output.push(described.unwrap_or(bare));
        }
    }

    /// A name that no value has, beginning like `base`.
    pub fn fresh(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        while self.is_known(&name) {
            self.named += 1;
            name = format!("{base}_{}", self.named);
        }
        name
    }

    fn is_known(&self, name: &str) -> bool {
        self.maker(name).is_some()
            || self.readers.contains_key(name)
            || self.weight_index.contains_key(name)
            || self.is_input(name)
            || self.is_output(name)
    }

    pub(super) fn rename_described(&mut self, from: &str, to: &str) {
        let head = &mut self.head;
        let infos = head.input.iter_mut().chain(&mut head.output).chain(&mut head.value_info);
        for info in infos.filter(|info| info.name() == from) {
            info.name = Some(to.to_owned());
        }
        for note in &mut head.quantization_annotation {
            if note.tensor_name() == from {
                note.tensor_name = Some(to.to_owned());
            }
        }
    }

    /// Forgets weights that nobody reads and descriptions of values that nobody makes.
    pub(super) fn remove_dead_values(&mut self) {
        let names = self.weights().map(|tensor| tensor.name().to_owned());
        let unread = names.filter(|name| !self.readers.contains_key(name) && !self.is_output(name));
        let unread: Vec<String> = unread.collect();
        for name in &unread {
            self.remove_weight(name);
        }
        let unread: HashSet<String> = unread.into_iter().collect();
        let (makers, weights) = (&self.makers, &self.weight_index);
        self.head.input.retain(|info| !unread.contains(info.name()));
        self.head
            .value_info
            .retain(|info| makers.contains_key(info.name()) || weights.contains_key(info.name()));
    }
}

/// Element type and dimensions of a tensor's type; -1 is any size. None for anything but a tensor of a known rank.
pub fn dimensions(kind: &TypeProto) -> Option<(i32, Vec<i64>)> {
    let Type::TensorType(tensor) = kind.value.as_ref()? else { return None };
    let dimension = |value: &Option<Dimension>| match value {
        Some(Dimension::DimValue(size)) => *size,
        _ => -1,
    };
    let shape = tensor.shape.as_ref()?;
    Some((tensor.elem_type(), shape.dim.iter().map(|d| dimension(&d.value)).collect()))
}
