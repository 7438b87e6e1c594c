//! Edits of nodes and weights. Each leaves the index true.

use super::{Graph, NodeId, captured};
use crate::onnx::error::OnnxError;
use crate::onnx::proto::{NodeProto, TensorProto};

impl Graph {
    /// Adds a node. Where it stands follows from what it reads, so there is no place to be given.
    ///
    /// # Errors
    /// [`OnnxError::MadeTwice`] when one of its outputs is made already.
    pub fn insert(&mut self, node: NodeProto) -> Result<NodeId, OnnxError> {
        let full = OnnxError::TooMany { what: "nodes", most: u32::MAX as usize };
        let id = NodeId(u32::try_from(self.nodes.len()).map_err(|_| full)?);
        self.check_outputs(&node, None)?;
        self.nodes.push(None);
        self.place(id, node);
        Ok(id)
    }

    /// Puts another node in the place of one.
    ///
    /// # Errors
    /// [`OnnxError::MadeTwice`]; the graph is unchanged then.
    pub fn replace(&mut self, id: NodeId, node: NodeProto) -> Result<(), OnnxError> {
        self.check_outputs(&node, Some(id))?;
        self.take(id);
        self.place(id, node);
        Ok(())
    }

    /// Edits a node in its place.
    ///
    /// # Errors
    /// [`OnnxError::MadeTwice`]; the graph is unchanged then.
    pub fn edit(
        &mut self,
        id: NodeId,
        change: impl FnOnce(&mut NodeProto),
    ) -> Result<(), OnnxError> {
        let mut node = self.node(id).clone();
        change(&mut node);
        self.replace(id, node)
    }

    /// Removes a node and returns it.
    pub fn remove(&mut self, id: NodeId) -> Option<NodeProto> {
        self.take(id)
    }

    fn check_outputs(&self, node: &NodeProto, instead_of: Option<NodeId>) -> Result<(), OnnxError> {
        for (index, output) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let made = self.maker(output).is_some_and(|maker| Some(maker) != instead_of);
            if made || self.is_input(output) || self.weight(output).is_some() {
                return Err(OnnxError::MadeTwice(output.clone()));
            }
            if node.output[..index].contains(output) {
                return Err(OnnxError::MadeTwice(output.clone()));
            }
        }
        Ok(())
    }

    fn place(&mut self, id: NodeId, node: NodeProto) {
        for value in captured::reads(&node) {
            self.readers.entry(value.to_owned()).or_default().insert(id);
        }
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            self.makers.insert(output.clone(), id);
        }
        self.nodes[id.index()] = Some(node);
    }

    fn take(&mut self, id: NodeId) -> Option<NodeProto> {
        let node = self.nodes.get_mut(id.index())?.take()?;
        for value in captured::reads(&node) {
            if let Some(readers) = self.readers.get_mut(value) {
                readers.remove(&id);
                if readers.is_empty() {
                    self.readers.remove(value);
                }
            }
        }
        for output in &node.output {
            self.makers.remove(output);
        }
        Some(node)
    }

    /// Makes every node that reads `from` read `to`. The graph's outputs keep their names.
    pub fn reroute(&mut self, from: &str, to: &str) {
        let readers: Vec<NodeId> = self.readers(from).collect();
        readers.into_iter().for_each(|id| self.reroute_in(id, from, to));
    }

    /// Makes one node read `to` instead of `from`.
    pub fn reroute_in(&mut self, id: NodeId, from: &str, to: &str) {
        if let Some(mut node) = self.take(id) {
            captured::replace(&mut node, from, to);
            self.place(id, node);
        }
    }

    /// Puts nodes behind a value: `make` gets the value's name and returns the nodes with the name of
    /// the value that everybody else reads from now on.
    ///
    /// # Errors
    /// [`OnnxError::MadeTwice`].
    pub fn insert_after(
        &mut self,
        value: &str,
        nodes: impl IntoIterator<Item = NodeProto>,
        result: &str,
    ) -> Result<(), OnnxError> {
        self.reroute(value, result);
        for node in nodes {
            self.insert(node)?;
        }
        Ok(())
    }

    /// Puts a node before one input of another, which reads `result` from then on.
    ///
    /// # Errors
    /// [`OnnxError::MadeTwice`].
    pub fn insert_before(
        &mut self,
        id: NodeId,
        input: usize,
        node: NodeProto,
        result: &str,
    ) -> Result<NodeId, OnnxError> {
        let inserted = self.insert(node)?;
        self.edit(id, |node| {
            if let Some(input) = node.input.get_mut(input) {
                result.clone_into(input);
            }
        })?;
        Ok(inserted)
    }

    /// Gives a value another name everywhere: where it is made, read, described, given out.
    ///
    /// # Errors
    /// [`OnnxError::MadeTwice`] when the name is taken.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), OnnxError> {
        if self.maker(to).is_some() || self.is_input(to) || self.weight(to).is_some() {
            return Err(OnnxError::MadeTwice(to.to_owned()));
        }
        if let Some(maker) = self.maker(from) {
            self.edit(maker, |node| {
                for output in node.output.iter_mut().filter(|output| *output == from) {
                    to.clone_into(output);
                }
            })?;
        }
        if let Some(mut tensor) = self.remove_weight(from) {
            tensor.name = Some(to.to_owned());
            self.set_weight(tensor);
        }
        self.reroute(from, to);
        self.rename_described(from, to);
        Ok(())
    }

    /// Adds weights, or puts them in the place of those of the same name.
    pub fn set_weight(&mut self, tensor: TensorProto) {
        let name = tensor.name().to_owned();
        let index = *self.weight_index.entry(name).or_insert(self.weights.len());
        match self.weights.get_mut(index) {
            Some(place) => *place = Some(tensor),
            None => self.weights.push(Some(tensor)),
        }
    }

    /// Removes weights and returns them.
    pub fn remove_weight(&mut self, name: &str) -> Option<TensorProto> {
        let index = self.weight_index.remove(name)?;
        self.weights.get_mut(index)?.take()
    }

    /// Removes nodes whose values nobody reads, weights that nobody reads, and descriptions of
    /// values that are gone. Returns how many nodes went.
    pub fn remove_dead(&mut self) -> usize {
        let mut removed = 0;
        let mut doubtful: Vec<NodeId> = self.ids().collect();
        while let Some(id) = doubtful.pop() {
            let read = |value: &String| self.is_output(value) || self.readers.contains_key(value);
            let node = self.node(id);
            if node.output.is_empty() || node.output.iter().any(read) {
                continue;
            }
            doubtful.extend(self.makers_for(id));
            removed += usize::from(self.take(id).is_some());
        }
        self.remove_dead_values();
        removed
    }
}
