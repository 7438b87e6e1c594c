//! Small ONNX models, written field by field (`onnx.proto3`).

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7F).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

pub(crate) const FLOAT: u64 = 1;
pub(crate) const INT64: u64 = 7;

/// An input or output; a dimension of -1 is any size.
pub(crate) fn value(name: &str, element: u64, shape: &[i64]) -> Vec<u8> {
    let dimension = |d: &i64| match u64::try_from(*d) {
        Ok(size) => bytes(1, &number(1, size)),
        Err(_) => bytes(1, &[]),
    };
    let shape: Vec<u8> = shape.iter().flat_map(dimension).collect();
    let tensor = [number(1, element), bytes(2, &shape)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
}

/// A node; attributes are lists of one integer (`axes`) or an integer (all others).
pub(crate) fn node(op: &str, from: &[&str], to: &str, attributes: &[(&str, u64)]) -> Vec<u8> {
    node_of_many(op, from, &[to], attributes)
}

/// A node with several outputs.
pub(crate) fn node_of_many(
    op: &str,
    from: &[&str],
    to: &[&str],
    attributes: &[(&str, u64)],
) -> Vec<u8> {
    let mut node: Vec<u8> = from.iter().flat_map(|name| bytes(1, name.as_bytes())).collect();
    node.extend(to.iter().flat_map(|name| bytes(2, name.as_bytes())));
    node.extend(bytes(4, op.as_bytes()));
    for (name, value) in attributes {
        let (field, kind) = if *name == "axes" { (8, 7) } else { (3, 2) };
        let attribute = [bytes(1, name.as_bytes()), number(field, *value), number(20, kind)];
        node.extend(bytes(5, &attribute.concat()));
    }
    node
}

/// A model at opset 11.
pub(crate) fn model(inputs: &[Vec<u8>], nodes: &[Vec<u8>], outputs: &[Vec<u8>]) -> Vec<u8> {
    let all = |field, parts: &[Vec<u8>]| -> Vec<u8> {
        parts.iter().flat_map(|part| bytes(field, part)).collect()
    };
    let graph = [all(1, nodes), bytes(2, b"g"), all(11, inputs), all(12, outputs)].concat();
    let opset = [bytes(1, b""), number(2, 11)].concat();
    [number(1, 6), bytes(7, &graph), bytes(8, &opset)].concat()
}
