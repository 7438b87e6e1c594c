//! What a segment gives back, to whom, and what it refuses.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_telemetry::key::{PrivateKey, PublicKey};
use outrigger_telemetry::open::{OpenError, Opener, in_the_clear};
use outrigger_telemetry::record::RecordError;
use outrigger_telemetry::seal::{Beginning, SealError, Sealer};
use outrigger_telemetry::segment::{InvalidSegment, Segment};
use outrigger_telemetry::wire::record::What;
use outrigger_telemetry::wire::{Counters, InferenceEvent, ModelCounters, Record, Sample};
use outrigger_telemetry::{Class, limits};
use proptest::prelude::*;
use protocol::id::ContentHash;

const MARKER: &str = "marker-of-a-record";

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_entropy(&[seed; 32])
}

fn event(number: u64) -> Record {
    let event = InferenceEvent { model: MARKER.into(), version: number, ..Default::default() };
    let what = Some(What::Inference(event));
    Record { number, observed_unix_ms: 1_700_000_000_000, what }
}

fn beginning(class: Class, segment: u64) -> Beginning {
    let device = "d-12345678".parse().unwrap();
    Beginning { device, segment, class, now_unix_ms: 1_700_000_000_000, previous: (6, 3) }
}

/// Three frames of two events each.
fn segment_of(number: u64, entropy: u8) -> Vec<u8> {
    let key = key(1);
    let begun = Sealer::begin(beginning(Class::Events, number), Some(key.public()), [entropy; 32]);
    let (mut sealer, begun) = begun.unwrap();
    let mut bytes = begun.head;
    for frame in 0..3 {
        bytes.extend(sealer.frame(vec![event(2 * frame), event(2 * frame + 1)]).unwrap());
    }
    assert_eq!((sealer.frames(), sealer.size_bytes()), (3, bytes.len()));
    bytes
}

fn open(bytes: &[u8], key: &PrivateKey) -> Result<Vec<Record>, OpenError> {
    let segment = Segment::parse(bytes).unwrap();
    Opener::begin(bytes, &segment, key, None)?.records()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn what_was_sealed_comes_back_in_order_to_the_key_it_was_sealed_for() {
    let bytes = segment_of(7, 1);
    let segment = Segment::parse(&bytes).unwrap();
    assert_eq!((segment.header.segment, segment.header.class), (7, Class::Events));
    assert_eq!((segment.header.previous, segment.records()), ((6, 3), 6));
    let numbers: Vec<u64> = open(&bytes, &key(1)).unwrap().iter().map(|r| r.number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    assert!(
        matches!(open(&bytes, &key(2)), Err(OpenError::OtherKey(id)) if id == key(1).public().id())
    );
    assert!(!contains(&bytes, MARKER));
}

#[test]
fn the_bytes_of_format_1_stay_what_they_are() {
    let bytes = segment_of(7, 1);
    insta::assert_snapshot!(ContentHash::of(&bytes).to_string());
    insta::assert_snapshot!(hex::encode(&bytes[..150]));
}

#[test]
fn counters_are_in_the_clear_and_nothing_else_is() {
    let counters = Record {
        number: 1,
        observed_unix_ms: 1,
        what: Some(What::Counters(Counters { from_unix_ms: 5, ..Default::default() })),
    };
    let begun = Sealer::begin(beginning(Class::Counters, 8), Some(key(1).public()), [1; 32]);
    let (mut sealer, begun) = begun.unwrap();
    let frame = sealer.frame(vec![counters.clone()]).unwrap();
    let bytes = [begun.head, frame].concat();
    let segment = Segment::parse(&bytes).unwrap();
    assert_eq!(segment.header.key_id, None);
    assert_eq!(in_the_clear(&bytes, &segment).unwrap(), [counters]);
    // Content does not get into the class that is in the clear.
    let misplaced = sealer.frame(vec![event(1)]);
    assert!(matches!(misplaced, Err(SealError::Record(RecordError::Misplaced(Class::Counters)))));
    for class in [Class::Aggregates, Class::Events, Class::Samples] {
        let begun = Sealer::begin(beginning(class, 9), None, [1; 32]);
        assert!(matches!(begun, Err(SealError::NoKey)), "{class:?}");
    }
    let sealed = segment_of(7, 1);
    let segment = Segment::parse(&sealed).unwrap();
    assert!(matches!(in_the_clear(&sealed, &segment), Err(OpenError::OtherKey(_))));
}

#[test]
fn what_unpacks_to_more_than_it_may_is_refused() {
    let begun = Sealer::begin(beginning(Class::Counters, 8), None, [1; 32]);
    let (mut sealer, begun) = begun.unwrap();
    let mut bytes = begun.head;
    // A few hundred bytes each, and three quarters of all that may come out.
    let row = || ModelCounters { model: "m".repeat(limits::BATCH_MAX_BYTES * 3 / 4), ..Default::default() };
    for number in 1..=2 {
        let counters = Counters { models: vec![row()], ..Default::default() };
        let what = Some(What::Counters(counters));
        bytes.extend(sealer.frame(vec![Record { number, observed_unix_ms: 1, what }]).unwrap());
    }
    assert!(bytes.len() < 2_000);
    let segment = Segment::parse(&bytes).unwrap();
    assert!(matches!(in_the_clear(&bytes, &segment), Err(OpenError::Records { frame: 1, .. })));
}

#[test]
fn samples_open_only_while_their_key_exists() {
    let begun = Sealer::begin(beginning(Class::Samples, 9), Some(key(1).public()), [4; 32]);
    let (mut sealer, begun) = begun.unwrap();
    let sample = Sample { model: MARKER.into(), ..Default::default() };
    let record = Record { number: 1, observed_unix_ms: 1, what: Some(What::Sample(sample)) };
    let frame = sealer.frame(vec![record.clone()]).unwrap();
    let bytes = [begun.head, frame].concat();
    let detached = begun.detached_key.unwrap();
    assert!(!bytes.windows(32).any(|window| window == detached));
    let segment = Segment::parse(&bytes).unwrap();
    let opened = Opener::begin(&bytes, &segment, &key(1), Some(detached)).unwrap().records();
    assert_eq!(opened.unwrap(), [record]);
    let shredded = Opener::begin(&bytes, &segment, &key(1), None);
    assert!(matches!(shredded, Err(OpenError::NoEncapsulatedKey)));
    let other = Opener::begin(&bytes, &segment, &key(1), Some([9; 32])).unwrap().records();
    assert!(matches!(other, Err(OpenError::Forged(0))));
}

#[test]
fn a_full_segment_says_so_and_a_large_record_is_refused() {
    let begun = Sealer::begin(beginning(Class::Samples, 9), Some(key(1).public()), [4; 32]);
    let (mut sealer, _) = begun.unwrap();
    // Bytes that do not get smaller.
    let noise = |bytes: usize, seed: u64| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        (0..bytes).map(|_| next()).collect()
    };
    let sample = |bytes, seed| {
        let data = noise(bytes, seed);
        let input = outrigger_telemetry::wire::SampleTensor { data, ..Default::default() };
        let what = Some(What::Sample(Sample { inputs: vec![input], ..Default::default() }));
        vec![Record { number: seed, observed_unix_ms: 1, what }]
    };
    let most = limits::FRAME_MAX_BYTES;
    assert!(matches!(sealer.frame(sample(most + 1, 1)), Err(SealError::Record(_))));
    let mut frames = 0;
    while sealer.frame(sample(most - 1000, frames)).is_ok() {
        frames += 1;
    }
    assert_eq!(frames, 4);
    assert!(matches!(sealer.frame(sample(most - 1000, 9)), Err(SealError::Full)));
}

#[test]
fn a_key_is_read_as_it_was_written() {
    let private = key(3);
    let read = PrivateKey::from_hex(&private.to_hex()).unwrap();
    assert_eq!(read.public().to_bytes(), private.public().to_bytes());
    let public = PublicKey::from_hex(&hex::encode(private.public().to_bytes())).unwrap();
    assert_eq!(public.id(), private.public().id());
    assert!(PrivateKey::from_hex("ab").is_err() && PublicKey::from_hex("zz").is_err());
    assert!(!format!("{private:?}").contains(&private.to_hex()));
}

/// Seals the same frames again, as if a frame, a header or a whole segment were put elsewhere, and mends the checks that
/// need no key: only the sealing is left to notice.
#[test]
fn what_is_put_elsewhere_does_not_open() {
    let (one, two) = (segment_of(7, 1), segment_of(8, 2));
    let (a, b) = (Segment::parse(&one).unwrap(), Segment::parse(&two).unwrap());
    let mut swapped_header = rebuilt(&one, &a, &two, &[0, 1, 2]);
    let mut swapped_frames = rebuilt(&one, &a, &one, &[1, 0, 2]);
    let mut replayed_frame = rebuilt(&one, &a, &one, &[0, 0, 1, 2]);
    let mut cut = rebuilt(&two, &b, &two, &[1, 2]);
    for bytes in [&mut swapped_header, &mut swapped_frames, &mut replayed_frame, &mut cut] {
        assert!(Segment::parse(bytes).is_ok(), "its checks are good");
        let refused = open(bytes, &key(1));
        assert!(matches!(refused, Err(OpenError::Forged(_))), "{refused:?}");
    }
    // The rebuilt segment opens where nothing was moved.
    assert_eq!(open(&rebuilt(&one, &a, &one, &[0, 1, 2]), &key(1)).unwrap().len(), 6);
}

/// The head of `front` and the frames of `one`'s layout taken from `frames_of`, with good checks.
fn rebuilt(front: &[u8], segment: &Segment, frames_of: &[u8], order: &[usize]) -> Vec<u8> {
    let head_end = segment.frames[0].body.start - 16;
    let mut bytes = front[..head_end].to_vec();
    let mut check = bytes[head_end - 8..].to_vec();
    let layout = Segment::parse(frames_of).unwrap();
    for index in order {
        let frame = &layout.frames[*index];
        let body = &frames_of[frame.body.clone()];
        let head = &frames_of[frame.body.start - 16..frame.body.start - 8];
        let hash = ContentHash::of(&[check.as_slice(), &head[..4], &head[4..], body].concat());
        check = hash.as_bytes()[..8].to_vec();
        bytes.extend([head, check.as_slice(), body].concat());
    }
    bytes
}

proptest! {
    #[test]
    fn a_flipped_bit_is_seen_without_a_key(at in 0usize..10_000, bit in 0u8..8) {
        let mut bytes = segment_of(7, 1);
        let whole = Segment::parse(&bytes).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert!(Segment::parse(&bytes).is_err());
        // What is in front of it stays good.
        if let Ok((front, wrong)) = Segment::parse_front(&bytes) {
            prop_assert!(wrong.is_some() && front.end <= at);
            prop_assert_eq!(&front.frames, &whole.frames[..front.frames.len()]);
        }
    }

    #[test]
    fn a_torn_tail_leaves_the_frames_in_front_of_it(length in 0usize..10_000) {
        let bytes = segment_of(7, 1);
        let whole = Segment::parse(&bytes).unwrap();
        let length = length % bytes.len();
        match Segment::parse_front(&bytes[..length]) {
            Err(error) => prop_assert!(matches!(error, InvalidSegment::Header | InvalidSegment::NoSegment)),
            Ok((front, wrong)) => {
                let good = whole.frames.iter().filter(|frame| frame.body.end <= length).count();
                prop_assert_eq!(front.frames.len(), good);
                prop_assert_eq!(wrong.is_none(), front.end == length);
            }
        }
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Segment::parse(&bytes);
        let _ = Segment::parse(&[b"ORTLSEG\x01".as_slice(), &bytes].concat());
    }
}
