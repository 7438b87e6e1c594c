//! Where the numbers of tensors lie in a file, for whoever compares versions byte by byte ([`delta`]).

use bytes::Bytes;
use delta::{Element, Tensor};

use super::error::OnnxError;
use super::file::Model;

/// The tensors of a file whose numbers can be compared: weights, constants, those of subgraphs. What lies beside the
/// file is not among them.
///
/// # Errors
/// [`OnnxError`] for bytes that are no model.
pub fn tensors(bytes: &Bytes) -> Result<Vec<Tensor>, OnnxError> {
    let model = Model::parse(bytes.clone())?;
    let begin = bytes.as_ptr() as usize;
    let mut tensors = Vec::new();
    model.graph().for_each_tensor(&mut |tensor| {
        let raw = tensor.raw_data.as_ref().filter(|raw| !raw.is_empty());
        let (Some(raw), Some(element)) = (raw, Element::of_onnx(tensor.data_type())) else {
            return;
        };
        // Weights are slices of the file: where they begin in memory says where they lie in it.
        let start = (raw.as_ptr() as usize).wrapping_sub(begin);
        if start.checked_add(raw.len()).is_some_and(|end| end <= bytes.len()) {
            let (name, dims) = (tensor.name().to_owned(), tensor.dims.clone());
            tensors.push(Tensor { name, dims, element, range: start..start + raw.len() });
        }
    });
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::{Graph, tensor};

    #[test]
    fn the_bytes_there_are_the_numbers() {
        let mut graph = Graph::default();
        graph.set_weight(tensor::new("w", &[2, 2], &[1.0_f32, 2.0, 3.0, 4.0]));
        graph.set_weight(tensor::new("n", &[3], &[7_i64, 8, 9])); // goes as bytes
        graph.set_weight(tensor::new("q", &[3], &[7_i8, 8, 9]));
        let bytes = Model::new(graph, 17).to_bytes().unwrap();
        let tensors = tensors(&bytes).unwrap();
        let found: Vec<_> = tensors.iter().map(|t| (t.name.as_str(), t.range.len())).collect();
        assert_eq!(found, [("w", 16), ("q", 3)]);
        assert_eq!(bytes[tensors[0].range.clone()][4..8], 2.0_f32.to_le_bytes());
        assert_eq!(bytes[tensors[1].range.clone()], [7, 8, 9]);
    }
}
