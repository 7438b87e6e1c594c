use super::*;

const NOW_S: i64 = 1_800_000_000;

fn operator() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn lab() -> SigningKey {
    SigningKey::from_seed(&[2; 32])
}

fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

fn file(text: &str) -> FileRef {
    FileRef { sha256: ContentHash::of(text.as_bytes()), size_bytes: text.len() as u64 }
}

fn delegation() -> Delegation {
    Delegation {
        lab_key: hex::encode(lab().public().0),
        devices: Vec::new(),
        expires_at_s: NOW_S + 100,
    }
}

fn order() -> Order {
    Order {
        id: "0f".repeat(ORDER_ID_BYTES),
        device: device("d1"),
        expires_at_s: NOW_S + 60,
        threads: 1,
        time_s: 10,
        models: vec![file("float"), file("int8")],
        inputs: file("inputs"),
    }
}

fn verify(signed: &SignedOrder) -> Result<Order, InvalidOrder> {
    let again = SignedOrder::from_json(&signed.to_json()).unwrap();
    again.verify(&[operator().public()], &device("d1"), NOW_S)
}

fn signed(delegation: &Delegation, order: &Order) -> SignedOrder {
    order.sign(&lab(), delegation.sign(&operator()))
}

#[test]
fn a_delegated_lab_is_believed() {
    assert_eq!(verify(&signed(&delegation(), &order())), Ok(order()));
    let here = Delegation { devices: vec![device("d2"), device("d1")], ..delegation() };
    assert_eq!(verify(&signed(&here, &order())), Ok(order()));
}

#[test]
fn nobody_else_is() {
    let check = |signed: &SignedOrder, expected: InvalidOrder| {
        assert_eq!(verify(signed), Err(expected));
    };
    let stranger = SigningKey::from_seed(&[3; 32]);
    let by_stranger = order().sign(&lab(), delegation().sign(&stranger));
    check(&by_stranger, InvalidOrder::UnknownKey(stranger.public().key_id()));
    check(&order().sign(&stranger, delegation().sign(&operator())), InvalidOrder::Forged("order"));

    let mut altered = signed(&delegation(), &order());
    altered.order = altered.order.replace("\"threads\":1", "\"threads\":2");
    check(&altered, InvalidOrder::Forged("order"));
    let mut altered = signed(&delegation(), &order());
    altered.delegation.delegation = altered.delegation.delegation.replace("100", "900");
    check(&altered, InvalidOrder::Forged("delegation"));

    // What the operator signed for a manifest is good for nothing here, nor the other way round.
    let mut other_use = delegation().sign(&operator());
    other_use.signature = operator().sign_text(ORDER_CONTEXT, &other_use.delegation);
    check(&order().sign(&lab(), other_use), InvalidOrder::Forged("delegation"));
}

#[test]
fn an_order_holds_for_its_time_and_its_device() {
    let check = |delegation: Delegation, order: Order, expected: InvalidOrder| {
        assert_eq!(verify(&signed(&delegation, &order)), Err(expected));
    };
    let gone = Delegation { expires_at_s: NOW_S, ..delegation() };
    check(gone, order(), InvalidOrder::Expired("lab's delegation"));
    let others = Delegation { devices: vec![device("d2")], ..delegation() };
    check(others, order(), InvalidOrder::NotDelegated);
    let at = |expires_at_s| Order { expires_at_s, ..order() };
    check(delegation(), at(NOW_S), InvalidOrder::Expired("order"));
    check(delegation(), at(NOW_S + ORDER_LIFETIME_MAX_S + 1), InvalidOrder::Lifetime);
    let elsewhere = Order { device: device("d2"), ..order() };
    check(delegation(), elsewhere, InvalidOrder::Elsewhere(device("d2")));
}

#[test]
fn an_order_has_bounds() {
    let check = |order: Order, expected: InvalidOrder| {
        assert_eq!(verify(&signed(&delegation(), &order)), Err(expected));
    };
    let models = |count| Order { models: vec![file("m"); count], ..order() };
    check(models(0), InvalidOrder::Models(0));
    check(models(MEASURED_MODELS_MAX + 1), InvalidOrder::Models(MEASURED_MODELS_MAX + 1));
    for id in ["", "../../etc/passwd", &"0F".repeat(ORDER_ID_BYTES)] {
        check(Order { id: id.to_owned(), ..order() }, InvalidOrder::Id);
    }
    for time_s in [0, MEASUREMENT_MAX_S + 1] {
        check(Order { time_s, ..order() }, InvalidOrder::Bounds);
    }
    check(Order { threads: 0, ..order() }, InvalidOrder::Bounds);
    let large = FileRef { size_bytes: TENSORS_MAX_BYTES + 1, ..file("inputs") };
    check(Order { inputs: large, ..order() }, InvalidOrder::TooLarge(TENSORS_MAX_BYTES + 1));
    let full = Order { models: vec![file("m"); MEASURED_MODELS_MAX], ..order() };
    let devices = (0..32).map(|i| device(&format!("{i}{}", "d".repeat(40)))).collect();
    let full = signed(&Delegation { devices, ..delegation() }, &full);
    assert!(full.to_json().len() < ORDER_MAX_BYTES / 2, "{}", full.to_json().len());
    assert_eq!(
        SignedOrder::from_json(&vec![b' '; ORDER_MAX_BYTES + 1]),
        Err(InvalidOrder::Malformed)
    );
}

#[test]
fn inputs_are_read_as_they_were_written() {
    let inputs = [
        Tensor::from_f32("a", vec![1, 2], &[1.5, f32::NAN]).unwrap(),
        Tensor::from_f32("b", vec![0, 4], &[]).unwrap(),
    ];
    let bytes = encode_inputs(&inputs);
    let again = decode_inputs(&bytes).unwrap();
    assert_eq!(again.iter().map(Tensor::name).collect::<Vec<_>>(), ["a", "b"]);
    assert!(again.iter().zip(&inputs).all(|(a, b)| a.data() == b.data() && a.shape() == b.shape()));
    for bad in [&bytes[..bytes.len() - 1], b"", b"\xff\xff\xff\xff"] {
        assert!(decode_inputs(bad).is_err());
    }
}

#[test]
fn a_report_is_read_as_it_was_written() {
    let times = Times { runs: 100, median_us: 12.5, p95_us: 14.25, speedup: 1.5 };
    let models = vec![Timed::Times(times), Timed::Failed("it does not load".to_owned())];
    let machine = Machine::default();
    let whole = Report::Measured(Measured { machine, models, peak_memory_bytes: Some(1 << 20) });
    let refused = Report::Refused { why: "no".to_owned(), hint: "[lab] enabled".to_owned() };
    for report in [whole, refused] {
        assert_eq!(Report::from_json(&report.to_json()), Ok(report));
    }
    assert!(Report::from_json(&vec![b'x'; MEASURED_MAX_BYTES + 1]).is_err());
}
