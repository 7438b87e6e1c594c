use super::*;
use protocol::tensor::{DataType, TensorMeta};

fn check(
    shape: &[i64],
    values: &[f32],
    steps: &[PostStep],
    inputs: &[Tensor],
) -> Result<(Vec<i64>, Vec<f32>), RunError> {
    let from = Tensor::from_f32("y", shape.to_vec(), values).unwrap();
    let derived = Derived { output: "z".into(), from: "y".into(), steps: steps.to_vec() };
    let made = vectors::derive(&derived, &from, inputs)?;
    assert_eq!(made.name(), "z");
    Ok((made.shape().to_vec(), made.to_f32().unwrap()))
}

fn mask(shape: &[i64], values: &[f64]) -> Tensor {
    let meta = TensorMeta::new("mask", DataType::Int64, shape.to_vec()).unwrap();
    crate::numbers::from_f64(meta, values).unwrap()
}

#[test]
fn pooling_leaves_padding_out() {
    let pool = |mask: Option<&str>| [PostStep::MeanPool { mask: mask.map(str::to_owned) }];
    let values = [1.0, 2.0, 3.0, 4.0, f32::NAN, 6.0, 7.0, 8.0]; // NaN where nobody looks
    let two = mask(&[2, 2], &[1.0, 1.0, 0.0, 1.0]);
    let made = check(&[2, 2, 2], &values, &pool(Some("mask")), std::slice::from_ref(&two));
    assert_eq!(made, Ok((vec![2, 2], vec![2.0, 3.0, 7.0, 8.0])));
    let all = check(&[1, 2, 2], &values[..4], &pool(None), &[]);
    assert_eq!(all, Ok((vec![1, 2], vec![2.0, 3.0])));
    let nothing = mask(&[1, 2], &[0.0, 0.0]);
    let none = check(&[1, 2, 2], &values[..4], &pool(Some("mask")), &[nothing]);
    assert_eq!(none, Ok((vec![1, 2], vec![0.0, 0.0])));
    for inputs in [vec![], vec![mask(&[2, 1], &[1.0, 1.0])]] {
        let made = check(&[2, 2, 2], &values, &pool(Some("mask")), &inputs);
        assert!(matches!(made, Err(RunError::Failed(_))), "{made:?}");
    }
    let empty = check(&[0, 2, 2], &[], &pool(Some("mask")), &[mask(&[0, 2], &[])]);
    assert_eq!(empty, Ok((vec![0, 2], vec![])));
}

#[test]
fn lengths_become_one() {
    let made = check(&[3, 2], &[3.0, 4.0, 0.0, 0.0, 1e30, 1e30], &[PostStep::L2Normalize], &[]);
    let half = 0.5f32.sqrt();
    assert_eq!(made, Ok((vec![3, 2], vec![0.6, 0.8, 0.0, 0.0, half, half])));
}

#[test]
fn shares_sum_to_one() {
    let softmax = [PostStep::Softmax];
    let low = f32::NEG_INFINITY;
    let made = check(&[3, 2], &[1e38, 1e38, 0.0, low, low, low], &softmax, &[]);
    assert_eq!(made, Ok((vec![3, 2], vec![0.5, 0.5, 1.0, 0.0, 0.5, 0.5])));
    for bad in [f32::NAN, f32::INFINITY] {
        let made = check(&[1, 2], &[0.0, bad], &softmax, &[]);
        assert_eq!(made, Err(RunError::NotANumber("y".into())));
    }
}
