//! Whatever changed, the very file comes out; whatever is done to a delta, an answer.

use crate::{DeltaError, Element, Source, Tensor, apply, encode};
use proptest::prelude::*;
use std::io::{self, Cursor, Write};

/// A file with two texts and tensors between them, and where they are.
fn file(texts: [&[u8]; 2], tensors: &[(&str, Element, Vec<u8>)]) -> (Vec<u8>, Vec<Tensor>) {
    let (mut bytes, mut places) = (texts[0].to_vec(), Vec::new());
    for (name, element, numbers) in tensors {
        bytes.extend_from_slice(name.as_bytes());
        let range = bytes.len()..bytes.len() + numbers.len();
        bytes.extend_from_slice(numbers);
        let dims = vec![i64::try_from(numbers.len()).unwrap()];
        places.push(Tensor { name: (*name).to_owned(), dims, element: *element, range });
    }
    bytes.extend_from_slice(texts[1]);
    (bytes, places)
}

fn floats(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
    numbers.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Numbers that look like weights: a small generator, so that failures repeat.
fn weights(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| 0.1 * (uniform() + uniform() + uniform())).collect()
}

fn source((bytes, tensors): &(Vec<u8>, Vec<Tensor>)) -> Source<'_> {
    Source { bytes, tensors }
}

/// What the delta makes, which must be the new file; the delta.
#[track_caller]
fn check(old: Option<&(Vec<u8>, Vec<Tensor>)>, new: &(Vec<u8>, Vec<Tensor>)) -> Vec<u8> {
    let delta = encode(old.map(source), source(new)).unwrap();
    let old = old.map_or(&[][..], |old| &old.0);
    let mut made = Vec::new();
    apply(delta.as_slice(), Cursor::new(old), new.0.len() as u64, &mut made).unwrap();
    assert!(made == new.0, "another file came out");
    delta
}

const TEXTS: [&[u8]; 2] = [b"the head of the file", b"and its end"];

#[test]
fn small_steps_take_less_than_the_numbers_and_no_step_nothing() {
    let old = weights(1, 50_000);
    let moved: Vec<f32> =
        old.iter().zip(weights(2, 50_000)).map(|(old, step)| old + 1e-6 * step).collect();
    let before = file(TEXTS, &[("w", Element::Float32, floats(old.clone()))]);
    let after = file(TEXTS, &[("w", Element::Float32, floats(moved))]);
    let delta = check(Some(&before), &after).len();
    assert!(delta < 60_000, "{delta} bytes for steps of about 2^-20 of the numbers");
    assert!(check(Some(&before), &before).len() < 120);
    let renamed = file(TEXTS, &[("v", Element::Float32, floats(old))]);
    assert!(check(Some(&before), &renamed).len() < 150);
}

#[test]
fn the_smallest_that_became_zero_cost_little() {
    let old = weights(3, 50_000);
    let pruned = old.iter().map(|w| if w.abs() < 0.05 { 0.0 } else { *w });
    let before = file(TEXTS, &[("w", Element::Float32, floats(old.clone()))]);
    let after = file(TEXTS, &[("w", Element::Float32, floats(pruned))]);
    let (delta, packed) = (check(Some(&before), &after).len(), check(None, &after).len());
    assert!(delta < 3_000, "{delta}");
    let zeros = old.iter().filter(|w| w.abs() < 0.05).count();
    assert!(packed < 4 * (50_000 - zeros), "{packed} of {} numbers", 50_000 - zeros);
}

#[test]
#[allow(clippy::cast_possible_truncation)] // rounds
fn integers_that_hardly_change_take_a_fraction() {
    let old: Vec<u8> = weights(4, 50_000).iter().map(|w| (w * 500.0) as i8 as u8).collect();
    let steps = weights(5, 50_000);
    let new = old.iter().zip(steps).map(|(w, s)| w.wrapping_add((s * 12.0) as i8 as u8)).collect();
    let before = file(TEXTS, &[("w", Element::Int8, old)]);
    let after = file(TEXTS, &[("w", Element::Int8, new)]);
    let delta = check(Some(&before), &after).len();
    assert!(delta < 15_000, "{delta}");
}

fn any_element() -> impl Strategy<Value = Element> {
    prop::sample::select(Element::ALL.to_vec())
}

/// A file of before, and one that came of it by changes of every kind.
fn any_change() -> impl Strategy<Value = [(Vec<u8>, Vec<Tensor>); 2]> {
    let tensor = (any_element(), prop::collection::vec(any::<u8>(), 0..40), 0u8..4);
    let texts = prop::collection::vec(any::<u8>(), 0..300);
    (prop::collection::vec(tensor, 0..6), texts, any::<u32>()).prop_map(|(tensors, text, seed)| {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (index, (element, numbers, change)) in tensors.into_iter().enumerate() {
            let name = ["a", "b", "c", "d", "e", "f"][index];
            let whole = 4 * (numbers.len() / 4) * 8;
            let old: Vec<u8> = numbers.iter().cycle().take(whole).copied().collect();
            let noise = weights(seed, whole);
            let new: Vec<u8> = match change {
                0 => old.clone(),
                1 => old.iter().zip(&noise).map(|(b, n)| b ^ u8::from(*n > 0.1)).collect(),
                2 => old.iter().zip(&noise).map(|(b, n)| if *n > 0.0 { 0 } else { *b }).collect(),
                _ => noise.iter().map(|n| n.to_bits().to_le_bytes()[1]).collect(),
            };
            before.push((name, element, old));
            after.insert(if seed % 3 == 0 { 0 } else { after.len() }, (name, element, new));
        }
        let other: Vec<u8> = text.iter().rev().copied().collect();
        [file([&text, b"end"], &before), file([&other, b"end"], &after)]
    })
}

/// Takes no more than it may.
struct Bounded(u64);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len() as u64).expect("no more than the signed length");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_file_comes_out([before, after] in any_change()) {
        check(Some(&before), &after);
        check(None, &after);
    }

    /// A delta in which anything is altered, cut off or added makes no more than was asked for, and ends.
    #[test]
    fn a_hostile_delta_is_an_error(
        [before, after] in any_change(),
        alterations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut delta = check(Some(&before), &after);
        for (place, value) in alterations {
            let place = place.index(delta.len());
            delta[place] = value;
        }
        delta.truncate(delta.len() - cut.index(4));
        let size = after.0.len() as u64;
        let _ = apply(delta.as_slice(), Cursor::new(&before.0), size, &mut Bounded(size));
    }

    #[test]
    fn bytes_that_are_no_delta_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut delta = crate::format::MAGIC.to_vec();
        delta.extend(bytes);
        let _ = apply(delta.as_slice(), Cursor::new(&[7; 100]), 50, &mut Bounded(50));
    }
}

#[test]
fn what_is_not_what_was_signed_is_said() {
    let before = file(TEXTS, &[("w", Element::Float32, floats(weights(6, 100)))]);
    let after = file(TEXTS, &[("w", Element::Float32, floats(weights(7, 100)))]);
    let delta = check(Some(&before), &after);
    let size = after.0.len() as u64;
    let run = |delta: &[u8], old: &[u8], size| {
        apply(delta, Cursor::new(old), size, &mut Bounded(size)).unwrap_err()
    };
    assert!(matches!(run(&delta, &before.0, size - 1), DeltaError::WrongLength { .. }));
    assert!(matches!(run(&delta, &before.0[1..], size), DeltaError::WrongBase { .. }));
    assert!(matches!(run(b"PK\x03\x04 and more", &before.0, size), DeltaError::Unknown));
    let half = run(&delta[..delta.len() / 2], &before.0, size);
    assert!(matches!(half, DeltaError::Truncated | DeltaError::Io(_)), "{half}");
}

/// A program is no model: all of it is packed with the program before as its prefix, and what is alike costs nothing,
/// also far behind the first bytes.
#[test]
fn a_program_is_packed_behind_the_one_before() {
    let line = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    let old: Vec<u8> = (0..(9 << 20) / 8).flat_map(line).collect();
    let mut new = old.clone();
    drop(new.splice(5_000_000..5_000_004, *b"another function"));
    let (old, new) = ((old, Vec::new()), (new, Vec::new()));
    let delta = check(Some(&old), &new);
    assert!(delta.len() < new.0.len() / 100, "{} of {}", delta.len(), new.0.len());
}
