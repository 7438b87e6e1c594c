//! The classification extension: in place of a whole output, its greatest elements, each as the
//! text `value:index` or `value:index:label`.

use super::options::invalid;
use super::{ModelDescription, OutputForm};
use crate::infer::InferResponse;
use crate::problem::Problem;
use crate::tensor::{DataType, Tensor};

/// Replaces every output that is wanted as classes.
///
/// # Errors
/// An output whose elements are no numbers that can be ordered.
pub fn classify(
    response: &mut InferResponse,
    form: &OutputForm,
    model: &ModelDescription,
) -> Result<(), Problem> {
    let batched = model.max_batch_size() > 0;
    for output in &mut response.outputs {
        if let Some(count) = form.classes(output.name()) {
            *output = greatest(output, count, batched, model.labels_of(output.name()))?;
        }
    }
    Ok(())
}

/// A tensor `[items, count]` of texts; `[count]` for a model that takes no batches.
fn greatest(
    tensor: &Tensor,
    count: usize,
    batched: bool,
    labels: &[String],
) -> Result<Tensor, Problem> {
    let elements = numbers(tensor)?;
    let items = match tensor.shape().first() {
        Some(first) if batched => usize::try_from(*first).unwrap_or(0),
        _ => 1,
    };
    let width = elements.len().checked_div(items).unwrap_or(0);
    let count = count.min(width);
    let mut texts = Vec::with_capacity(items * count);
    for item in elements.chunks(width.max(1)) {
        let mut order: Vec<usize> = (0..item.len()).collect();
        order.sort_by(|a, b| item[*b].0.total_cmp(&item[*a].0)); // stable: the first of equals
        texts.extend(order[..count].iter().map(|index| text(&item[*index].1, *index, labels)));
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let shape = if batched { vec![tensor.shape()[0], count] } else { vec![count] };
    Ok(Tensor::from_byte_strings(tensor.name(), shape, &texts)?)
}

fn text(value: &str, index: usize, labels: &[String]) -> String {
    match labels.get(index) {
        Some(label) if !label.is_empty() => format!("{value}:{index}:{label}"),
        _ => format!("{value}:{index}"),
    }
}

/// Every element as a number that orders it and as the text that shows it.
fn numbers(tensor: &Tensor) -> Result<Vec<(f64, String)>, Problem> {
    macro_rules! shown {
        ($t:ty, $order:expr, $show:literal) => {{
            let chunks = tensor.data().chunks_exact(size_of::<$t>());
            let values = chunks.map(|c| <$t>::from_le_bytes(c.try_into().expect("exact chunk")));
            Ok(values.map(|v| ($order(v), format!($show, v))).collect())
        }};
    }
    match tensor.datatype() {
        DataType::Uint8 => shown!(u8, f64::from, "{}"),
        DataType::Uint16 => shown!(u16, f64::from, "{}"),
        DataType::Uint32 => shown!(u32, f64::from, "{}"),
        DataType::Uint64 => shown!(u64, |v| v as f64, "{}"),
        DataType::Int8 => shown!(i8, f64::from, "{}"),
        DataType::Int16 => shown!(i16, f64::from, "{}"),
        DataType::Int32 => shown!(i32, f64::from, "{}"),
        DataType::Int64 => shown!(i64, |v| v as f64, "{}"),
        DataType::Fp32 => shown!(f32, f64::from, "{:.6}"),
        DataType::Fp64 => shown!(f64, |v| v, "{:.6}"),
        other @ (DataType::Bool | DataType::Fp16 | DataType::Bf16 | DataType::Bytes) => {
            let text = format!("output {:?} of {other} cannot be classified", tensor.name());
            Err(invalid(text).hint("ask for it without the parameter \"classification\""))
        }
    }
}
