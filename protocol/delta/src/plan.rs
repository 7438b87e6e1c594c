//! Which numbers of the new file are which of the old: tensors of the same name, type and shape; else of the same
//! type and shape, in their order, for tools rename what they touch. What is no tensor is the rest.

use crate::element::Element;
use crate::format::{Kind, PIECES_MAX, Piece, REST_MAX_BYTES};
use crate::numbers::{How, Moved, exponent, length, rank, read, signed};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;

/// Smaller tensors stay in the rest: naming them would cost more.
const TENSOR_MIN_BYTES: usize = 32;
/// Numbers that are looked at to choose how a tensor is described.
const SAMPLES: usize = 4096;

/// Where a tensor's numbers lie in a file, little-endian and without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub dims: Vec<i64>,
    /// What its numbers are.
    pub element: Element,
    /// Its bytes.
    pub range: Range<usize>,
}

/// A file and its tensors: none where it has none, or they are not known.
#[derive(Debug, Clone, Copy)]
pub struct Source<'s> {
    /// The file.
    pub bytes: &'s [u8],
    /// In any order; those that overlap or are not in the file are left out.
    pub tensors: &'s [Tensor],
}

impl<'s> Source<'s> {
    /// A file that is taken as it is.
    pub fn plain(bytes: &'s [u8]) -> Self {
        Self { bytes, tensors: &[] }
    }

    /// The tensors that are worth naming, in the order of the file.
    fn tensors(&self) -> Vec<&'s Tensor> {
        let fits = |tensor: &&Tensor| {
            let Range { start, end } = tensor.range;
            start <= end
                && end <= self.bytes.len()
                && end - start >= TENSOR_MIN_BYTES
                && (end - start).is_multiple_of(tensor.element.bytes())
        };
        let mut tensors: Vec<&Tensor> = self.tensors.iter().filter(fits).collect();
        tensors.sort_by_key(|tensor| tensor.range.start);
        let mut end = 0;
        tensors.retain(|tensor| {
            let is_behind = tensor.range.start >= end;
            end = if is_behind { tensor.range.end } else { end };
            is_behind
        });
        tensors.truncate(PIECES_MAX);
        tensors
    }
}

/// The pieces of the new file; none where they would leave more of a rest than is believed.
pub(crate) fn plan(old: Option<Source<'_>>, new: Source<'_>) -> Vec<Piece> {
    let news = counterparts(old, new);
    let mut pieces = Vec::with_capacity(news.len());
    let mut at = 0;
    for (tensor, counterpart) in news {
        let kind = match (old, counterpart) {
            (Some(old), Some(from)) => describe(old.bytes, from, new.bytes, tensor),
            _ => Kind::Numbers { element: tensor.element, how: How::Fresh, from: 0 },
        };
        let Range { start, end } = tensor.range;
        pieces.push(Piece { rest: (start - at) as u64, size: (end - start) as u64, kind });
        at = end;
    }
    let named: u64 = pieces.iter().map(|piece| piece.size).sum();
    if new.bytes.len() as u64 - named > REST_MAX_BYTES { Vec::new() } else { pieces }
}

/// The new tensors in the order of their file, each with where its counterpart begins in the old one, if it has one.
fn counterparts<'s>(old: Option<Source<'s>>, new: Source<'s>) -> Vec<(&'s Tensor, Option<usize>)> {
    let (mut left, news) = (Counterparts::new(old), new.tensors());
    let named: Vec<_> = news.iter().map(|tensor| left.by_name(tensor)).collect();
    let with_others = news.into_iter().zip(named);
    with_others.map(|(new, named)| (new, named.or_else(|| left.by_shape(new)))).collect()
}

/// The new tensors that have a counterpart, with where that begins in the old file.
pub(crate) fn pairs<'s>(old: Source<'s>, new: Source<'s>) -> Vec<(usize, &'s Tensor)> {
    let all = counterparts(Some(old), new).into_iter();
    all.filter_map(|(tensor, from)| Some((from?, tensor))).collect()
}

type Shape<'s> = (Element, &'s [i64], usize);

/// The old tensors that have no new one yet.
struct Counterparts<'s> {
    names: HashMap<&'s str, &'s Tensor>,
    shapes: HashMap<Shape<'s>, VecDeque<&'s Tensor>>,
    /// Where those begin that have one.
    taken: HashSet<usize>,
}

fn shape(tensor: &Tensor) -> Shape<'_> {
    (tensor.element, &tensor.dims, tensor.range.len())
}

impl<'s> Counterparts<'s> {
    fn new(old: Option<Source<'s>>) -> Self {
        let (mut names, mut shapes) = (HashMap::new(), HashMap::<_, VecDeque<_>>::new());
        for tensor in old.map(|old| old.tensors()).unwrap_or_default() {
            names.insert(tensor.name.as_str(), tensor);
            shapes.entry(shape(tensor)).or_default().push_back(tensor);
        }
        Self { names, shapes, taken: HashSet::new() }
    }

    fn by_name(&mut self, new: &Tensor) -> Option<usize> {
        let old = self.names.get(new.name.as_str()).filter(|old| shape(old) == shape(new))?;
        let start = old.range.start;
        self.taken.insert(start).then_some(start)
    }

    fn by_shape(&mut self, new: &'s Tensor) -> Option<usize> {
        let olds = self.shapes.get_mut(&shape(new))?;
        while let Some(old) = olds.pop_front() {
            if self.taken.insert(old.range.start) {
                return Some(old.range.start);
            }
        }
        None
    }
}

/// What takes the fewest bytes, as far as a sample tells.
fn describe(old: &[u8], from: usize, new: &[u8], tensor: &Tensor) -> Kind {
    let (before, after) = (&old[from..from + tensor.range.len()], &new[tensor.range.clone()]);
    if before == after {
        return Kind::Copied { from: from as u64 };
    }
    let element = tensor.element;
    let width = element.bytes();
    let every = (after.len() / width).div_ceil(SAMPLES) * width;
    let numbers = |bytes: &[u8]| bytes.chunks(every).map(|b| read(&b[..width])).collect::<Vec<_>>();
    let (before, after) = (numbers(before), numbers(after));
    Kind::Numbers { element, how: how(element, &before, &after), from: from as u64 }
}

fn how(element: Element, before: &[u32], after: &[u32]) -> How {
    let Some(parts) = element.float_parts() else {
        let bits = element.bits();
        let step = |(old, new): (&u32, &u32)| signed(bits, new.wrapping_sub(*old)).unsigned_abs();
        let steps: u64 = before.iter().zip(after).map(step).sum();
        let sizes: u64 = after.iter().map(|new| signed(bits, *new).unsigned_abs()).sum();
        return if steps <= sizes { How::Changed(Moved::InProportion) } else { How::Fresh };
    };
    let bits = element.bits();
    let moved = before
        .iter()
        .zip(after)
        .filter(|(old, new)| old != new && **new != 0 && exponent(parts, **old) != 0);
    let lengths: Vec<(f64, f64)> = moved
        .map(|(old, new)| {
            let length = f64::from(length(rank(bits, *old).abs_diff(rank(bits, *new))));
            (length, length + f64::from(exponent(parts, *old)))
        })
        .collect();
    let (length, in_proportion) = mean_and_spread(lengths.iter().map(|pair| pair.0));
    let (_, alike) = mean_and_spread(lengths.iter().map(|pair| pair.1));
    // Lengths within two bits of the mantissa's end say that the numbers have nothing to do with each other.
    if length > f64::from(parts.mantissa) + 2.0 {
        return How::Fresh;
    }
    How::Changed(if alike < in_proportion { Moved::Alike } else { Moved::InProportion })
}

fn mean_and_spread(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / count;
    (mean, values.map(|value| (value - mean).powi(2)).sum::<f64>() / count)
}
