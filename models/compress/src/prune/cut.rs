//! Takes channels out of a graph: what is left is a smaller dense model.

use std::collections::BTreeMap;

use models::onnx::attribute::Attributes;
use models::onnx::proto::TensorProto;
use models::onnx::{Graph, OnnxError, tensor};

use super::channels::{Channels, GroupId, Part};

/// For each group, which of its channels stay; groups that are not named keep all.
pub type Kept = BTreeMap<GroupId, Vec<bool>>;

/// Which positions of some parts stay.
pub(super) fn positions(channels: &Channels, parts: &[Part], kept: &Kept) -> Vec<bool> {
    let stays = |(group, channel): (GroupId, usize)| {
        kept.get(&group).is_none_or(|mask| mask.get(channel).copied().unwrap_or(true))
    };
    channels.positions(parts).into_iter().map(stays).collect()
}

/// Cuts the channels that do not stay out of every weight.
///
/// # Errors
/// [`OnnxError`] for weights whose data do not fill their shape.
pub fn cut(graph: &mut Graph, channels: &Channels, kept: &Kept) -> Result<(), OnnxError> {
    for cut in &channels.cuts {
        let stays = positions(channels, &cut.parts, kept);
        if stays.iter().all(|stays| *stays) {
            continue;
        }
        if let Some(weight) = graph.weight(&cut.weight).cloned() {
            graph.set_weight(sliced(&weight, cut.axis, &stays)?);
        }
    }
    for id in &channels.depthwise {
        let name = graph.node(*id).input[1].clone();
        if let Some(count) = graph.weight(&name).and_then(|weight| weight.dims.first()).copied() {
            graph.edit(*id, |node| *node = node.clone().with_int("group", count))?;
        }
    }
    for reshaped in &channels.reshaped {
        let stays = positions(channels, &reshaped.parts, kept);
        let count = stays.iter().filter(|stays| **stays).count();
        if count < stays.len() {
            let name = graph.node(reshaped.node).input[1].clone();
            let Some(target) = graph.weight(&name).cloned() else { continue };
            let mut sizes = tensor::i64s(&target)?.into_owned();
            sizes[reshaped.index] = i64::try_from(count).unwrap_or(0);
            // The target may be another reshape's too.
            let own = graph.fresh(&name);
            graph.set_weight(tensor::new(&own, &target.dims, &sizes));
            graph.edit(reshaped.node, |node| node.input[1] = own)?;
        }
    }
    let head = graph.head_mut();
    head.value_info.clear(); // it speaks of other sizes
    graph.remove_dead();
    Ok(())
}

/// The tensor without some slices along an axis.
fn sliced(weight: &TensorProto, axis: usize, stays: &[bool]) -> Result<TensorProto, OnnxError> {
    let values = tensor::f32s(weight)?;
    let inner = tensor::elements(weight.dims.get(axis + 1..).unwrap_or(&[])).unwrap_or(1);
    let along = stays.len().max(1);
    let kept = values.chunks(inner.max(1)).enumerate().filter(|(index, _)| stays[index % along]);
    let left: Vec<f32> = kept.flat_map(|(_, slice)| slice.iter().copied()).collect();
    let mut dims = weight.dims.clone();
    let count = stays.iter().filter(|stays| **stays).count();
    dims[axis] = i64::try_from(count).unwrap_or(0);
    Ok(tensor::new(weight.name(), &dims, &left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_go_along_any_axis() {
        let weight = tensor::new("w", &[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let columns = sliced(&weight, 1, &[true, false, true]).unwrap();
        assert_eq!(tensor::f32s(&columns).unwrap().as_ref(), [1.0, 3.0, 4.0, 6.0]);
        assert_eq!(columns.dims, [2, 2]);
        let rows = sliced(&weight, 0, &[false, true]).unwrap();
        assert_eq!(tensor::f32s(&rows).unwrap().as_ref(), [4.0, 5.0, 6.0]);
    }
}
