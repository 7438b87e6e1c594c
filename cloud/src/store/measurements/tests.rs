use super::*;
use crate::store::tests::{add_token, applicant, by, store};
use protocol::manifest::{FileRef, SigningKey};
use protocol::measurement::{Delegation, ORDER_ID_BYTES};

fn order(device: &DeviceId, number: u8, expires_at_s: i64) -> (SignedOrder, Order) {
    let lab = SigningKey::from_seed(&[2; 32]);
    let file = |text: &str| FileRef {
        sha256: ContentHash::of(text.as_bytes()),
        size_bytes: text.len() as u64,
    };
    let order = Order {
        id: hex::encode([number; ORDER_ID_BYTES]),
        device: device.clone(),
        expires_at_s,
        threads: 1,
        time_s: 1,
        models: vec![file("model"), file(&format!("model {number}"))],
        inputs: file("inputs"),
    };
    let lab_key = hex::encode(lab.public().0);
    let delegation = Delegation { lab_key, devices: Vec::new(), expires_at_s };
    (order.sign(&lab, delegation.sign(&lab)), order)
}

fn device(store: &Store) -> DeviceId {
    add_token(store);
    store.enrol(&applicant(1, "a", 1500)).unwrap()
}

fn says(order: &Order, text: &str) -> MeasurementReport {
    let report = Report::Refused { why: text.to_owned(), hint: String::new() };
    MeasurementReport { id: order.id.clone(), report: report.to_json().into() }
}

#[test]
fn an_order_waits_until_its_device_has_said() {
    let (_folder, store) = store();
    let own = device(&store);
    let [(signed_1, one), (signed_2, two)] = [1, 2].map(|number| order(&own, number, 2000));
    for (signed, order) in [(&signed_1, &one), (&signed_2, &two)] {
        assert!(store.order_measurement(&by(), signed, order).unwrap().is_empty());
    }
    let wanted = || store.desired(&own).unwrap().state.measurements;
    assert_eq!(wanted(), [signed_1.to_json(), signed_2.to_json()]);
    let hash = |text: &str| ContentHash::of(text.as_bytes());
    assert_eq!(store.readable_blob(&own, hash("model 1")).unwrap(), Some(7));
    assert!(store.measurement(&one.id).unwrap().unwrap().report.is_none());

    let other: DeviceId = "other".parse().unwrap();
    assert!(store.measured(&other, &[says(&one, "mine")]).unwrap().is_empty(), "not its own");
    assert_eq!(wanted().len(), 2);
    let unneeded = store.measured(&own, &[says(&one, "first"), says(&one, "second")]).unwrap();
    assert_eq!(unneeded, [hash("model 1")], "the other order needs the rest");
    assert_eq!(wanted(), [signed_2.to_json()]);
    assert_eq!(store.readable_blob(&own, hash("model 1")).unwrap(), None);
    let Some(Report::Refused { why, .. }) = store.measurement(&one.id).unwrap().unwrap().report
    else {
        panic!("no report")
    };
    assert_eq!(why, "first", "what was said once stands");
    let junk = MeasurementReport { id: two.id.clone(), report: "junk".into() };
    assert_eq!(store.measured(&own, &[junk]).unwrap().len(), 3);
    assert!(matches!(
        store.measurement(&two.id).unwrap().unwrap().report,
        Some(Report::Refused { .. })
    ));
}

#[test]
fn orders_are_bounded_and_end() {
    let (_folder, store) = store();
    let own = device(&store);
    let take = |number: u8, now_s: i64| {
        let (signed, order) = order(&own, number, 2000);
        store.order_measurement(&By { now_s, ..by() }, &signed, &order)
    };
    let most = u8::try_from(ORDERS_WAITING_MAX).unwrap();
    (0..most).for_each(|number| drop(take(number, 1000).unwrap()));
    assert!(matches!(take(0, 1000), Err(OrderError::Known(_))));
    assert!(matches!(take(most, 1000), Err(OrderError::Waiting(_))));
    // Their device never came.
    assert_eq!(take(most, 2001).unwrap().len(), ORDERS_WAITING_MAX);
    assert_eq!(store.desired(&own).unwrap().state.measurements.len(), 1);
    let nobody: DeviceId = "nobody".parse().unwrap();
    let (signed, order) = order(&nobody, 99, 2000);
    let refused = store.order_measurement(&by(), &signed, &order);
    assert!(matches!(refused, Err(OrderError::NoDevice(_))));
}
