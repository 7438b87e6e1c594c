//! Every datatype goes into ONNX Runtime and comes out again, aligned or not.

#![allow(clippy::unwrap_used)] // also in the helpers of tests

use bytes::Bytes;
use outrigger_models::backend::{Backend, LoadError, Session, SessionOptions};
use outrigger_models::error::{InvalidRequest, RunError};
use outrigger_models::ort_backend::{OrtBackend, find_library};
use protocol::tensor::{DataType, Tensor, TensorMeta};

/// Elements of `onnx.TensorProto.DataType`.
const ELEMENTS: [(DataType, u8); 14] = [
    (DataType::Fp32, 1),
    (DataType::Uint8, 2),
    (DataType::Int8, 3),
    (DataType::Uint16, 4),
    (DataType::Int16, 5),
    (DataType::Int32, 6),
    (DataType::Int64, 7),
    (DataType::Bytes, 8),
    (DataType::Bool, 9),
    (DataType::Fp16, 10),
    (DataType::Fp64, 11),
    (DataType::Uint32, 12),
    (DataType::Uint64, 13),
    (DataType::Bf16, 16),
];
const FLOAT8: u8 = 17;

/// A length-delimited protobuf field of fewer than 128 bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

/// An ONNX model `y = Identity(x)` over elements of that type and any length.
fn identity(element: u8) -> Vec<u8> {
    let value = |name: &[u8]| {
        let shape = field(1, &field(2, b"n"));
        let tensor = [varint(1, element), field(2, &shape)].concat();
        [field(1, name), field(2, &field(1, &tensor))].concat()
    };
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Identity")].concat();
    let graph = [field(1, &node), field(2, b"g"), field(11, &value(b"x")), field(12, &value(b"y"))]
        .concat();
    let opset = [field(1, b""), varint(2, 19)].concat();
    [varint(1, 9), field(7, &graph), field(8, &opset)].concat()
}

fn load(element: u8) -> Result<Box<dyn Session>, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    std::fs::write(&file, identity(element)).unwrap();
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    backend.load(&file, &SessionOptions::default())
}

fn tensor(datatype: DataType, len: i64, data: Bytes) -> Tensor {
    Tensor::new(TensorMeta::new("x", datatype, vec![len]).unwrap(), data).unwrap()
}

/// Three elements whose bytes start `shift` bytes after an aligned address.
fn example(datatype: DataType, shift: usize) -> Tensor {
    let Some(unit) = datatype.size_bytes() else {
        return Tensor::from_byte_strings("x", vec![3], &["", "ä", "outrigger"]).unwrap();
    };
    let ones = if datatype == DataType::Bool { vec![0, 1, 1] } else { vec![1; unit * 3] };
    tensor(datatype, 3, Bytes::from([vec![9; shift], ones].concat()).slice(shift..))
}

#[test]
fn every_datatype_comes_back() {
    for (datatype, element) in ELEMENTS {
        let mut session = load(element).unwrap();
        assert_eq!(
            (session.inputs()[0].datatype, &session.inputs()[0].shape),
            (datatype, &vec![-1])
        );
        for shift in 0..8 {
            let x = example(datatype, shift);
            let y = session.run(std::slice::from_ref(&x), &[]).unwrap().remove(0);
            assert_eq!((y.name(), y.shape(), y.data()), ("y", x.shape(), x.data()), "{datatype}");
        }
        let empty = session.run(&[tensor(datatype, 0, Bytes::new())], &["y".to_owned()]).unwrap();
        assert_eq!(empty[0].shape(), [0], "{datatype}");
    }
}

#[test]
fn elements_outside_their_datatype_are_refused() {
    let check = |element, x| load(element).unwrap().run(&[x], &[]).unwrap_err();
    let wrong = |index, expected| {
        RunError::Request(InvalidRequest::Element { name: "x".into(), index, expected })
    };
    let two = tensor(DataType::Bool, 3, Bytes::from_static(&[0, 1, 2]));
    assert_eq!(check(9, two), wrong(2, "a BOOL, which is 0 or 1"));
    for bad in [b"\xff".as_slice(), b"a\0b"] {
        let x = Tensor::from_byte_strings("x", vec![2], &[b"good".as_slice(), bad]).unwrap();
        assert_eq!(check(8, x), wrong(1, "UTF-8 text without NUL"));
    }
}

#[test]
fn other_datatypes_and_files_are_refused_at_load() {
    assert!(matches!(load(FLOAT8), Err(LoadError::DataType { .. })));
    let backend = OrtBackend::open(&find_library(None).unwrap()).unwrap();
    let check = |name: &str, content: Option<&[u8]>| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        backend.load(&file, &SessionOptions::default()).err().unwrap()
    };
    assert!(matches!(check("absent.onnx", None), LoadError::Read { .. }));
    for bad in [b"".as_slice(), b"not onnx", &identity(1)[..40]] {
        assert!(matches!(check("bad.onnx", Some(bad)), LoadError::Malformed { .. }));
    }
}
