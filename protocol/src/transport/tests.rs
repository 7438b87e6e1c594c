use super::*;
use proptest::prelude::*;

fn tensor(shape: &[i64], values: &[f32]) -> Tensor {
    Tensor::from_f32("x", shape.to_vec(), values).unwrap()
}

/// There and back.
fn carried(transport: Transport, tensor: &Tensor) -> Vec<f32> {
    let sent = transport.pack(tensor, f32::MAX).unwrap();
    assert_eq!(Some(sent.len() as u64), transport.sent_bytes(tensor.meta()));
    let data = transport.unpack(tensor.meta(), &sent).unwrap();
    Tensor::new(tensor.meta().clone(), data).unwrap().to_f32().unwrap()
}

#[test]
fn the_bytes_of_each_form() {
    let two = tensor(&[2, 2], &[0.0, 1.0, -1.0, 254.0]);
    let hex = |transport: Transport| hex::encode(transport.pack(&two, f32::MAX).unwrap());
    assert_eq!(hex(Transport::Raw), hex::encode(two.data()));
    assert_eq!(hex(Transport::Float16), "0000003c00bcf05b");
    // Offset, scale and two steps; each item has its own.
    let first = format!("{}{}00ff", "00000000", hex::encode((1.0f32 / 255.0).to_le_bytes()));
    let second = format!(
        "{}{}00ff",
        hex::encode((-1.0f32).to_le_bytes()),
        hex::encode(1.0f32.to_le_bytes())
    );
    assert_eq!(hex(Transport::Int8), first + &second);
    let sizes =
        [Transport::Raw, Transport::Float16, Transport::Int8].map(|t| t.sent_bytes(two.meta()));
    assert_eq!(sizes, [Some(16), Some(8), Some(20)]);
    assert!(Transport::Float16.saves(two.meta()) && !Transport::Int8.saves(two.meta()));
}

#[test]
fn what_would_lose_more_than_was_measured_is_not_packed() {
    let wide = tensor(&[1, 3], &[-3.0, 0.0, 5.0]);
    assert_eq!(Transport::Int8.extent(&wide), Some(8.0));
    assert_eq!(Transport::Float16.extent(&wide), Some(5.0));
    assert!(
        Transport::Int8.pack(&wide, 8.0).is_some() && Transport::Int8.pack(&wide, 7.9).is_none()
    );
    for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let strange = tensor(&[1, 3], &[1.0, strange, 0.0]);
        for transport in [Transport::Float16, Transport::Int8] {
            assert_eq!(transport.pack(&strange, f32::INFINITY), None);
        }
    }
    let huge = tensor(&[2], &[f32::MAX, f32::MIN]);
    assert_eq!(Transport::Int8.pack(&huge, f32::INFINITY), None, "the range is no number");
    assert_eq!(Transport::Float16.pack(&huge, f32::INFINITY), None, "no half is so large");
    let pixels = Tensor::new(
        TensorMeta::new("x", DataType::Uint8, vec![2]).unwrap(),
        Bytes::from_static(&[1, 2]),
    );
    assert_eq!(Transport::Float16.pack(&pixels.unwrap(), f32::MAX), None);
}

#[test]
fn shapes_at_the_edge() {
    for shape in [&[][..], &[1], &[1, 1, 1]] {
        assert_eq!(carried(Transport::Int8, &tensor(shape, &[-7.5])), [-7.5]);
    }
    for shape in [&[0][..], &[0, 3], &[3, 0]] {
        assert_eq!(carried(Transport::Int8, &tensor(shape, &[])), [0.0; 0]);
        assert_eq!(carried(Transport::Float16, &tensor(shape, &[])), [0.0; 0]);
    }
}

#[test]
fn what_cannot_have_been_packed_is_refused() {
    let meta = TensorMeta::new("x", DataType::Fp32, vec![1, 2]).unwrap();
    let item = |offset: f32, scale: f32| {
        Bytes::from([&offset.to_le_bytes()[..], &scale.to_le_bytes(), &[0, 255]].concat())
    };
    let unpack =
        |transport: Transport, sent: &Bytes| transport.unpack(&meta, sent).map(drop).unwrap_err();
    for (offset, scale) in
        [(f32::NAN, 1.0), (0.0, f32::NAN), (0.0, f32::INFINITY), (f32::MAX, f32::MAX), (0.0, -1.0)]
    {
        let error = unpack(Transport::Int8, &item(offset, scale));
        assert_eq!(error, InvalidTransport::Scale { name: "x".into(), item: 0 });
    }
    let error = unpack(Transport::Int8, &item(0.0, 1.0).slice(1..));
    assert_eq!(error.to_string(), "input \"x\" needs 10 bytes as int8 but carries 9");
    let error = unpack(Transport::Float16, &Bytes::from_static(&[0, 0, 0, 0x7c]));
    assert_eq!(error, InvalidTransport::NotFinite { name: "x".into(), index: 1 });
    let whole = TensorMeta { datatype: DataType::Int32, ..meta.clone() };
    let error = Transport::Float16.unpack(&whole, &Bytes::from_static(&[0; 4])).unwrap_err();
    assert_eq!(error.to_string(), "input \"x\" is INT32, and only FP32 travels as float16");
}

proptest! {
    #[test]
    fn half_a_step_is_lost_at_most(values in prop::collection::vec(-1e6f32..1e6, 1..40)) {
        let one = tensor(&[1, values.len() as i64], &values);
        let step = Transport::Int8.extent(&one).unwrap() / 255.0;
        for (before, after) in values.iter().zip(carried(Transport::Int8, &one)) {
            prop_assert!((before - after).abs() <= step * 0.51 + before.abs() * 1e-6);
        }
        let small: Vec<f32> = values.iter().map(|v| v / 100.0).collect();
        for (before, after) in small.iter().zip(carried(Transport::Float16, &tensor(&[values.len() as i64], &small))) {
            prop_assert!((before - after).abs() <= before.abs() / 2048.0 + 6e-8);
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(sent in prop::collection::vec(any::<u8>(), 0..40), shape in prop::collection::vec(0i64..4, 0..4)) {
        let meta = TensorMeta::new("x", DataType::Fp32, shape).unwrap();
        for transport in [Transport::Float16, Transport::Int8] {
            if let Ok(data) = transport.unpack(&meta, &sent.clone().into()) {
                let tensor = Tensor::new(meta.clone(), data).unwrap();
                prop_assert!(tensor.to_f32().unwrap().iter().all(|value| value.is_finite()));
            }
        }
    }
}
