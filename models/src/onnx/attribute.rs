//! Attributes of nodes, and new nodes.

use super::proto::attribute_proto::AttributeType;
use super::proto::{AttributeProto, NodeProto, TensorProto};

/// A node of the standard's domain.
pub fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        op_type: Some(op.to_owned()),
        name: outputs.first().map(|output| format!("{output}/{op}")),
        input: owned(inputs),
        output: owned(outputs),
        ..NodeProto::default()
    }
}

/// Reading and writing attributes by name. What has another type reads as absent.
pub trait Attributes: Sized {
    /// The attribute.
    fn attribute(&self, name: &str) -> Option<&AttributeProto>;
    /// Puts an attribute in the place of one of the same name.
    fn set(&mut self, attribute: AttributeProto);
    /// Removes an attribute.
    fn unset(&mut self, name: &str);

    /// An integer.
    fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name).and_then(|attribute| attribute.i)
    }

    /// A number.
    fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name).and_then(|attribute| attribute.f)
    }

    /// Integers.
    fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    /// A text.
    fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.attribute(name)?.s.as_ref()?).ok()
    }

    /// A tensor.
    fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attribute(name).and_then(|attribute| attribute.t.as_ref())
    }

    /// Sets an integer.
    #[must_use]
    fn with_int(mut self, name: &str, value: i64) -> Self {
        self.set(AttributeProto { i: Some(value), ..typed(name, AttributeType::Int) });
        self
    }

    /// Sets a number.
    #[must_use]
    fn with_float(mut self, name: &str, value: f32) -> Self {
        self.set(AttributeProto { f: Some(value), ..typed(name, AttributeType::Float) });
        self
    }

    /// Sets integers.
    #[must_use]
    fn with_ints(mut self, name: &str, values: &[i64]) -> Self {
        self.set(AttributeProto { ints: values.to_vec(), ..typed(name, AttributeType::Ints) });
        self
    }
}

fn typed(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(kind.into()),
        ..AttributeProto::default()
    }
}

impl Attributes for NodeProto {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name() == name)
    }

    fn set(&mut self, attribute: AttributeProto) {
        match self.attribute.iter_mut().find(|other| other.name() == attribute.name()) {
            Some(place) => *place = attribute,
            None => self.attribute.push(attribute),
        }
    }

    fn unset(&mut self, name: &str) {
        self.attribute.retain(|attribute| attribute.name() != name);
    }
}
